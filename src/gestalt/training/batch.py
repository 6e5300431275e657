"""A step's samples as what the network takes: label maps as tensors, then one size, targets with boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.network.records import ImageTarget
from gestalt.panoptic import VOID, UInt8Array
from gestalt.training.pixels import nearest_places
from gestalt.training.sample import TrainingSample


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """What the network learns from at once.

    Attributes:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        targets: One per image.
    """

    images: Tensor
    targets: list[ImageTarget]

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""
        return TrainingBatch(self.images.to(device), [target.to(device) for target in self.targets])


@dataclass(frozen=True)
class Window:
    """A part of an image: rows ``top`` to ``top + height``, columns ``left`` to ``left + width``, ends excluded."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Samples of one size, still as maps: masks of all objects would be many times as large.

    Attributes:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        semantics: (B, H, W) uint8: 0 thing, 1..S stuff index + 1, 255 void.
        instances: (B, H, W) int32: 0 none, otherwise 1..N.
        classes: Per image the thing index of instance 1..N.
    """

    images: Tensor
    semantics: Tensor
    instances: Tensor
    classes: list[tuple[int, ...]]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.semantics.shape[1]), int(self.semantics.shape[2])

    def with_images(self, images: Tensor) -> SampleBatch:
        """The same labels of other pixels."""
        return SampleBatch(images, self.semantics, self.instances, self.classes)

    def zoomed(self, windows: Sequence[Window], size: tuple[int, int]) -> SampleBatch:
        """A window of each image at ``size`` (H, W): images bilinear, averaged where they shrink; labels nearest."""
        if size == self.size and all(window == Window(0, 0, *size) for window in windows):
            return self
        images, semantics, instances = [], [], []
        for number, window in enumerate(windows):
            rows = slice(window.top, window.top + window.height)
            columns = slice(window.left, window.left + window.width)
            images.append(_zoom(self.images[number : number + 1, :, rows, columns], size))
            places = [
                torch.from_numpy(start + nearest_places(old, new)).to(self.semantics.device)
                for start, old, new in (
                    (window.top, window.height, size[0]),
                    (window.left, window.width, size[1]),
                )
            ]
            semantics.append(self.semantics[number][places[0]][:, places[1]])
            instances.append(self.instances[number][places[0]][:, places[1]])
        return SampleBatch(torch.cat(images), torch.stack(semantics), torch.stack(instances), self.classes)

    def resized(self, size: tuple[int, int]) -> SampleBatch:
        """The whole images at ``size`` (H, W)."""
        return self.zoomed([Window(0, 0, *self.size)] * len(self.classes), size)

    def finished(self, min_object_px: int) -> TrainingBatch:
        """Targets of the instances that have ``min_object_px`` pixels; those of smaller ones are void."""
        targets = [
            image_target(semantic, instance, classes, min_object_px)
            for semantic, instance, classes in zip(self.semantics, self.instances, self.classes, strict=True)
        ]
        return TrainingBatch(self.images, targets)


def stack_samples(samples: Sequence[TrainingSample], device: torch.device) -> SampleBatch:
    """Samples of one size as tensors on ``device``; bytes travel, floats are made there."""
    semantics = torch.from_numpy(np.stack([sample.semantic for sample in samples]))
    instances = torch.from_numpy(np.stack([sample.instance for sample in samples]).astype(np.int32))
    return SampleBatch(
        images_to_tensor([sample.image for sample in samples], device),
        semantics.to(device, non_blocking=True),
        instances.to(device, non_blocking=True),
        [sample.classes for sample in samples],
    )


def collate(samples: Sequence[TrainingSample], min_object_px: int) -> TrainingBatch:
    """Samples of one size as a batch on the CPU; objects with fewer pixels than ``min_object_px`` are left out."""
    return stack_samples(samples, torch.device("cpu")).finished(min_object_px)


def images_to_tensor(images: Sequence[UInt8Array], device: torch.device | None = None) -> Tensor:
    """(H, W, 3) uint8 RGB images of one size -> (B, 3, H, W) float32 in [0, 1], channels last in memory."""
    stacked = torch.from_numpy(np.stack(list(images))).to(device or torch.device("cpu"), non_blocking=True)
    return stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def image_target(
    semantic: Tensor, instance: Tensor, classes: Sequence[int], min_object_px: int
) -> ImageTarget:
    """Boxes, classes and masks of the instances that have enough pixels.

    Boxes are tight and exclusive at the right and at the bottom, so that an object one pixel wide has a box
    of width one.

    Args:
        semantic: (H, W) uint8: 0 thing, 1..S stuff index + 1, 255 void.
        instance: (H, W) int32: 0 none, otherwise 1..N.
        classes: Thing index of instance 1..N.
        min_object_px: Objects with fewer pixels are left out of the list; their pixels become void.
    """
    areas = torch.bincount(instance.flatten(), minlength=len(classes) + 1).tolist()
    kept = [number for number in range(1, len(classes) + 1) if areas[number] >= min_object_px]
    masks = instance == torch.tensor(kept, dtype=torch.int32, device=instance.device)[:, None, None]
    if lost := [number for number in range(1, len(classes) + 1) if 0 < areas[number] < min_object_px]:
        is_lost = torch.isin(instance, torch.tensor(lost, dtype=torch.int32, device=instance.device))
        semantic = semantic.masked_fill(is_lost, VOID)
    own = torch.tensor([classes[number - 1] for number in kept], dtype=torch.int64, device=instance.device)
    return ImageTarget(mask_boxes(masks), own, masks, semantic)


def mask_boxes(masks: Tensor) -> Tensor:
    """(N, H, W) bool, none empty -> (N, 4) float32 x0, y0, x1, y1; x1 and y1 are the first ones outside."""
    sides = []
    for covered in (masks.any(1), masks.any(2)):
        place = torch.arange(covered.shape[1], device=masks.device).expand_as(covered)
        first = place.masked_fill(~covered, covered.shape[1]).amin(1)
        sides += [first, (place + 1).masked_fill(~covered, 0).amax(1)]
    x0, x1, y0, y1 = sides
    return torch.stack([x0, y0, x1, y1], 1).to(torch.float32)


def _zoom(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)
