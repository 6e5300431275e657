"""The first steps of a training look at small images, where a long displacement is a short one.

A census pattern is 7 px wide, so a displacement that is wrong by more than about 4 px hardly says where to go, and a
network that starts from chance is wrong by more. In images a quarter of the size the same 4 px are 16. Where even
these say nothing, a pull towards rest keeps displacements from wandering off: an update adds to all before it, and
Adam makes steps of noise as large as steps of signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from gestalt.config.optical_flow import CoarseStartSettings

# A displacement shorter than this, px, is pulled less: at rest the length itself has no gradient.
AT_REST_PX = 0.01


def shrink_factor(step: int, settings: CoarseStartSettings) -> int:
    """By how much the images of a step are smaller for the losses: a power of two that falls to 1.

    Args:
        step: Of the training.
        settings: Number of levels and steps at each.
    """
    level = max(0, settings.levels - step // settings.steps_per_level)
    return int(2**level)


def shrink_images(images: Tensor, factor: int) -> Tensor:
    """Means over squares of ``factor`` pixels: (B, C, H, W) -> (B, C, H / factor, W / factor)."""
    return functional.avg_pool2d(images, factor)


def shrink_displacements(optical_flow: Tensor, factor: int) -> Tensor:
    """Displacements (B, 2, H, W) in pixels as those of images that are smaller by ``factor``, in their pixels."""
    return functional.avg_pool2d(optical_flow, factor) / factor


def shrink_positions(positions: Tensor, factor: int) -> Tensor:
    """Positions in pixels as positions in images that are smaller by ``factor``; centres are whole numbers."""
    return (positions - (factor - 1) / 2) / factor


def mean_lengths(predictions: list[Tensor]) -> Tensor:
    """Mean length of each field of displacements, (B, 2, H, W) in pixels: (n,) px, 0 at rest."""
    return torch.stack(
        [(field.float().square().sum(1) + AT_REST_PX**2).sqrt().mean() - AT_REST_PX for field in predictions]
    )
