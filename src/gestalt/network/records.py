"""What enters and leaves the panoptic network, per image: training targets, detections, predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.errors import ShapeError


@dataclass(frozen=True, eq=False)
class ImageTarget:
    """What one image should become.

    Attributes:
        boxes: (N, 4) float32, x0, y0, x1, y1 in pixels; x1 and y1 are the first column and row outside.
        classes: (N,) int64, thing index 0..T-1.
        masks: (N, H, W) bool.
        semantic: (H, W) uint8: 0 thing, 1..S stuff index + 1, 255 void.

    Raises:
        ShapeError: The numbers of boxes, classes and masks differ, or masks and semantics differ in size.
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor
    semantic: Tensor

    def __post_init__(self) -> None:
        n_objects = len(self.boxes)
        expected = (n_objects, *self.semantic.shape)
        if len(self.classes) != n_objects or tuple(self.masks.shape) != expected:
            raise ShapeError(
                f"a target with {n_objects} boxes must have as many classes and masks {expected}. "
                f"Got: {len(self.classes)} classes and masks {tuple(self.masks.shape)}"
            )

    def to(self, device: torch.device) -> ImageTarget:
        """The same target on another device."""
        return ImageTarget(
            self.boxes.to(device), self.classes.to(device), self.masks.to(device), self.semantic.to(device)
        )


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one image, best first.

    Attributes:
        boxes: (N, 4) float32, x0, y0, x1, y1 in pixels of the image.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64, thing index 0..T-1.
        mask_probs: (N, M, M) float32, probability inside the box; (0, M, M) before the mask head has run.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    mask_probs: Tensor


@dataclass(frozen=True, eq=False)
class Prediction:
    """The network's opinion of one image before merging.

    Attributes:
        detections: Objects, in pixels of the output size.
        semantic_probs: (S + 1, H, W) float32 at the output size; channel 0 is "some thing".
    """

    detections: Detections
    semantic_probs: Tensor
