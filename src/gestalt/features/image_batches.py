"""Batches of images as features take them: what is refused, and what lies beyond an image in a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor

from gestalt.errors import DataError, ShapeError


def check_images(images: Tensor, smallest_px: int = 1) -> None:
    """Refuse what is not (B, 3, H, W) floating point with sides of at least ``smallest_px``.

    Raises:
        ShapeError: It is something else.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or images.numel() == 0:
        raise ShapeError(
            f"images must be (B, 3, H, W) float in [0, 1]. Got: {tuple(images.shape)} {images.dtype}"
        )
    if min(images.shape[2:]) < smallest_px:
        raise ShapeError(
            f"images must be at least {smallest_px} x {smallest_px} px, a patch of these features. "
            f"Got: {images.shape[2]} x {images.shape[3]}"
        )


def check_sizes(sizes: Tensor, images: Tensor, smallest_px: int = 1) -> None:
    """Refuse sizes that do not lie within a padded batch.

    Raises:
        ShapeError: They are not (B, 2) integers between ``smallest_px`` and the size of the batch.
    """
    if sizes.shape != (len(images), 2) or sizes.is_floating_point() or sizes.is_complex():
        raise ShapeError(
            f"sizes must be ({len(images)}, 2) int, an image each. Got: {tuple(sizes.shape)} {sizes.dtype}"
        )
    largest = sizes.new_tensor(images.shape[2:])
    if bool((sizes < smallest_px).any()) or bool((sizes > largest).any()):
        raise ShapeError(
            f"sizes must lie between {smallest_px} px and the batch's {tuple(images.shape[2:])}. "
            f"Got: {sizes.tolist()}"
        )


def check_finite(images: Tensor) -> None:
    """Refuse images with NaN or infinity.

    Raises:
        DataError: There is one.
    """
    if not bool(images.isfinite().all()):
        broken = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise DataError(f"images hold NaN or infinity (in the batch: {broken}); the frames are damaged")


def continue_borders(images: Tensor, sizes: Tensor) -> Tensor:
    """Replace what lies beyond each image of a padded batch by the image's own last row and column.

    Args:
        images: (B, 3, H, W).
        sizes: (B, 2) int, rows and columns of each image, on the same device.
    """
    height, width = images.shape[2:]
    rows = torch.minimum(torch.arange(height, device=images.device), sizes[:, :1] - 1)
    columns = torch.minimum(torch.arange(width, device=images.device), sizes[:, 1:] - 1)
    tall = images.gather(2, rows[:, None, :, None].expand_as(images))
    return tall.gather(3, columns[:, None, None].expand_as(images))
