"""A step's samples as what the network takes: one size, tensors, targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gestalt.config.training import PhotometricSettings
from gestalt.network.records import ImageTarget
from gestalt.panoptic import UInt8Array
from gestalt.training.augmentation import change_colours
from gestalt.training.sample import TrainingSample, sample_to_target


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """What one step learns from.

    Attributes:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        targets: One per image.
    """

    images: Tensor
    targets: list[ImageTarget]

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""
        return TrainingBatch(
            self.images.to(device, non_blocking=True), [target.to(device) for target in self.targets]
        )


def collate(samples: Sequence[TrainingSample], min_object_px: int) -> TrainingBatch:
    """Samples of one size as a batch; objects with fewer pixels than ``min_object_px`` are left out."""
    images = images_to_tensor([sample.image for sample in samples])
    return TrainingBatch(images, [sample_to_target(sample, min_object_px) for sample in samples])


def images_to_tensor(images: Sequence[UInt8Array]) -> Tensor:
    """(H, W, 3) uint8 RGB images of one size -> (B, 3, H, W) float32 in [0, 1], channels last in memory."""
    stacked = torch.from_numpy(np.stack(list(images)))
    return stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def change_sample_colours(
    samples: Sequence[TrainingSample], generator: np.random.Generator, settings: PhotometricSettings
) -> list[TrainingSample]:
    """Each sample with colours and sharpness changed by chance."""
    return [
        TrainingSample(
            change_colours(sample.image, generator, settings),
            sample.semantic,
            sample.instance,
            sample.classes,
        )
        for sample in samples
    ]
