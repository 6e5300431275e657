"""Labels that the teacher gives: confident instances, and semantics above a threshold per class."""

from __future__ import annotations

import torch
from torch import Tensor

from gestalt.network.merge import paint_instances
from gestalt.network.records import Prediction
from gestalt.panoptic import VOID, UInt8Array
from gestalt.training.sample import THING_LABEL, TrainingSample


def confident_semantics(semantic_probs: Tensor, share: float, *, next_best: bool) -> UInt8Array:
    """Most probable label of each pixel, void where it is not confident.

    Args:
        semantic_probs: (S + 1, H, W) float, averaged over the teacher's views.
        share: zeta: a class counts at a pixel when its probability is at least this share of the largest one
            that it reaches anywhere in the image.
        next_best: Where the most probable class does not count, take the most probable one of those that
            do, as CUPS does. Then classes that are unlikely everywhere win all uncertain pixels; on the
            embedded data such labels were worse than the plain most probable class.

    Returns:
        (H, W) uint8, 0 thing, 1..S stuff index + 1, 255 void.
    """
    limits = share * semantic_probs.amax((1, 2), keepdim=True)
    is_confident = (semantic_probs >= limits) & (semantic_probs > 0)
    if next_best:
        labels = torch.where(is_confident.any(0), (semantic_probs * is_confident).argmax(0), VOID)
    else:
        best = semantic_probs.argmax(0, keepdim=True)
        labels = torch.where(is_confident.gather(0, best), best, VOID)[0]
    result: UInt8Array = labels.to(torch.uint8).cpu().numpy()
    return result


def self_label(
    image: UInt8Array,
    prediction: Prediction,
    *,
    instance_confidence: float,
    overlap_share: float,
    semantic_confidence: float,
    next_best: bool,
    ignore_uncovered_things: bool,
) -> TrainingSample:
    """A teacher's prediction as a training sample.

    Args:
        image: (H, W, 3) uint8 RGB, what the teacher saw.
        prediction: Its averaged opinion at the size of ``image``.
        instance_confidence: gamma; detections from this score become objects.
        overlap_share: See ``paint_instances``.
        semantic_confidence: zeta, see ``confident_semantics``.
        next_best: See ``confident_semantics``.
        ignore_uncovered_things: Pixels called thing without an accepted object become void instead of thing.

    Source:
        CUPS (Hahn et al., CVPR 2025), third stage. There the semantic label stays as the semantic head says
        under accepted objects; here it is thing under them, so that both branches hear the same.
    """
    instance, objects = paint_instances(
        prediction.detections,
        (image.shape[0], image.shape[1]),
        score_threshold=instance_confidence,
        overlap_share=overlap_share,
    )
    semantic = confident_semantics(prediction.semantic_probs, semantic_confidence, next_best=next_best)
    if ignore_uncovered_things:
        semantic[(semantic == THING_LABEL) & (instance == 0)] = VOID
    semantic[instance > 0] = THING_LABEL
    return TrainingSample(image, semantic, instance, tuple(entry.thing_class for entry in objects))
