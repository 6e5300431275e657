"""Detections and semantics of one image become one panoptic map in unified pseudo-class space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gestalt.network.instance_heads import paste_mask
from gestalt.network.records import Detections, Prediction
from gestalt.panoptic import VOID, PanopticMap, UInt16Array

MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Segment:
    """One segment of a merged map.

    Attributes:
        unified_class: Stuff 0..S-1, things S..S+T-1.
        instance: Id in the instance map; 0 for stuff.
        score: Detection score of a thing; mean probability of stuff over its pixels.
        area_px: Pixels that the segment owns.
    """

    unified_class: int
    instance: int
    score: float
    area_px: int


@dataclass(frozen=True)
class PaintedInstance:
    """One detection that found its place; its id in the instance map is its position, counted from 1.

    Attributes:
        thing_class: Thing index 0..T-1.
        score: Detection score.
        area_px: Pixels that it owns.
    """

    thing_class: int
    score: float
    area_px: int


def merge_panoptic(
    prediction: Prediction, *, score_threshold: float, overlap_share: float, min_stuff_share: float
) -> tuple[PanopticMap, list[Segment]]:
    """Paint instances from the best score down, then stuff where enough of it is left.

    Args:
        prediction: One image's detections and (S + 1, H, W) semantic probabilities.
        score_threshold: Detections below are left out.
        overlap_share: See ``paint_instances``.
        min_stuff_share: Stuff segments smaller than this share of the image are void.

    Returns:
        The map in unified space (stuff 0..S-1, things S..S+T-1, 255 void; instances 1..N in order of
        score) and its segments, things first. Pixels of semantic channel 0 without an instance are void.

    Source:
        Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, as CUPS uses it; its stuff limit of
        4096 pixels of 1024x2048 is a share of the image here, so that it means the same at any size.
    """
    probs = prediction.semantic_probs
    n_stuff = len(probs) - 1
    instances, painted = paint_instances(
        prediction.detections,
        (int(probs.shape[1]), int(probs.shape[2])),
        score_threshold=score_threshold,
        overlap_share=overlap_share,
    )
    class_of = np.array([VOID] + [n_stuff + entry.thing_class for entry in painted], np.uint8)
    semantic = class_of[instances]
    segments = [
        Segment(n_stuff + entry.thing_class, number, entry.score, entry.area_px)
        for number, entry in enumerate(painted, start=1)
    ]

    best_prob, best = (array.cpu().numpy() for array in probs.max(0))
    free = instances == 0
    areas = np.bincount(best[free], minlength=n_stuff + 1)
    sums = np.bincount(best[free], weights=best_prob[free], minlength=n_stuff + 1)
    is_kept = (areas > 0) & (areas >= min_stuff_share * semantic.size)
    is_kept[0] = False
    is_stuff = free & is_kept[best]
    semantic[is_stuff] = best[is_stuff] - 1
    segments += [
        Segment(int(channel) - 1, 0, float(sums[channel] / areas[channel]), int(areas[channel]))
        for channel in np.flatnonzero(is_kept)
    ]
    return PanopticMap(semantic, instances), segments


def paint_instances(
    detections: Detections, size: tuple[int, int], *, score_threshold: float, overlap_share: float
) -> tuple[UInt16Array, list[PaintedInstance]]:
    """Detections as an instance map without overlap.

    Args:
        detections: Of one image, boxes in pixels of ``size``.
        size: (H, W) of the map.
        score_threshold: Detections below are left out.
        overlap_share: A detection with a larger share of its pixels already taken by better ones is left out;
            otherwise it gets the free ones.

    Returns:
        (H, W) uint16, 0 where no instance is, and the instance behind each id 1..N.
    """
    instances = np.zeros(size, np.uint16)
    painted: list[PaintedInstance] = []
    boxes, mask_probs = detections.boxes.cpu(), detections.mask_probs.cpu()
    scores, classes = detections.scores.tolist(), detections.classes.tolist()
    for row in torch.argsort(detections.scores.cpu(), descending=True, stable=True).tolist():
        if scores[row] < score_threshold:
            break
        pasted, (top, bottom, left, right) = paste_mask(mask_probs[row], boxes[row], size)
        mask = pasted.numpy() >= MASK_THRESHOLD
        area = int(mask.sum())
        region = instances[top:bottom, left:right]
        free = mask & (region == 0)
        free_area = int(free.sum())
        if free_area == 0 or area - free_area > overlap_share * area:
            continue
        painted.append(PaintedInstance(classes[row], scores[row], free_area))
        region[free] = len(painted)
    return instances, painted
