"""Prediction averaged over scales and mirror images, in batches; one plain view is ordinary inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.network.boxes import flip_boxes
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.records import Detections, Prediction


@dataclass(frozen=True, eq=False)
class _View:
    """All images of a batch at one scale, mirrored or not."""

    pyramid: list[Tensor]
    detections: list[Detections]
    size: tuple[int, int]
    is_flipped: bool

    def to_output(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes of this view in pixels of an image of ``size``."""
        boxes = flip_boxes(boxes, self.size[1]) if self.is_flipped else boxes
        return boxes * _box_scale(self.size, size).to(boxes)

    def from_output(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Inverse of ``to_output``."""
        boxes = boxes * _box_scale(size, self.size).to(boxes)
        return flip_boxes(boxes, self.size[1]) if self.is_flipped else boxes


@torch.no_grad()
def predict_views(
    network: PanopticModel,
    images: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    score_threshold: float = 0.5,
    output_size: tuple[int, int] | None = None,
) -> list[Prediction]:
    """Predict a batch from several views and average.

    Boxes of all views are pooled, suppressed per class and projected back into every view, where the mask
    head sees them; masks are averaged as probabilities. Semantic probabilities are averaged at the output
    size.

    Args:
        network: In evaluation mode.
        images: (B, 3, H, W) float32 RGB in [0, 1], on the network's device.
        scales: Sizes of the views relative to ``images``.
        flip: Add the mirror image of each view.
        score_threshold: Detections must score above.
        output_size: (H, W) of the predictions; the images' own when None.

    Returns:
        One prediction per image, in pixels of the output size.

    Source:
        Teacher of CUPS (Hahn et al., CVPR 2025, self-training), one batch per scale instead of one view at a
        time.
    """
    batch, _, height, width = images.shape
    size = output_size or (height, width)
    views: list[_View] = []
    semantic_probs: Tensor | None = None
    for scale in scales:
        view_size = (max(round(height * scale), 1), max(round(width * scale), 1))
        scaled = images if view_size == (height, width) else _resize(images, view_size)
        both = torch.cat([scaled, scaled.flip(-1)]) if flip else scaled
        pyramid, detections, logits = network.detect(both, score_threshold)
        for start in range(0, len(both), batch):
            is_flipped = start > 0
            own = slice(start, start + batch)
            views.append(_View([level[own] for level in pyramid], detections[own], view_size, is_flipped))
            own_logits = logits[own].flip(-1) if is_flipped else logits[own]
            probs = _resize_logits(own_logits, size).softmax(1)
            semantic_probs = probs if semantic_probs is None else semantic_probs + probs
    assert semantic_probs is not None
    semantic_probs = semantic_probs / len(views)
    detections = [_pool_boxes(network, views, number, size) for number in range(batch)]
    masks = _average_masks(network, views, detections, size)
    return [
        Prediction(Detections(found.boxes, found.scores, found.classes, mask), probs)
        for found, mask, probs in zip(detections, masks, semantic_probs, strict=True)
    ]


def _pool_boxes(
    network: PanopticModel, views: Sequence[_View], number: int, size: tuple[int, int]
) -> Detections:
    found = [view.detections[number] for view in views]
    boxes = torch.cat([view.to_output(own.boxes, size) for view, own in zip(views, found, strict=True)])
    scores = torch.cat([own.scores for own in found])
    return network.suppress(boxes, scores, torch.cat([own.classes for own in found]))


def _average_masks(
    network: PanopticModel, views: Sequence[_View], detections: Sequence[Detections], size: tuple[int, int]
) -> list[Tensor]:
    classes = [found.classes for found in detections]
    total: list[Tensor] | None = None
    for view in views:
        boxes = [view.from_output(found.boxes, size) for found in detections]
        masks = network.mask_probs(view.pyramid, boxes, classes)
        if view.is_flipped:
            masks = [mask.flip(-1) for mask in masks]
        total = masks if total is None else [mean + mask for mean, mask in zip(total, masks, strict=True)]
    assert total is not None
    return [mask / len(views) for mask in total]


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def _resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _box_scale(source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    vertical, horizontal = target[0] / source[0], target[1] / source[1]
    return torch.tensor([horizontal, vertical, horizontal, vertical])
