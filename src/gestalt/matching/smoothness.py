"""The smoothness of displacements: neighbours move alike, except across edges of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gestalt.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from gestalt.config.optical_flow import SmoothnessSettings

ORDERS = (1, 2)
# The last two axes of images: rows lie along x, columns along y.
AXES = (-1, -2)


def smoothness_losses(optical_flow: Tensor, image: Tensor, settings: SmoothnessSettings) -> Tensor:
    """Edge-aware mean of the first or second derivatives of displacements, of each image.

    Args:
        optical_flow: (n B, 2, H, W) float32, pixels; n of them, one after the other, for the same B images.
        image: (B, 3, H, W) float32 RGB in [0, 1], whose pixels these displacements belong to.
        settings: Order, weight of edges, softness.

    Returns:
        (n B,) float32; 0 for constant (first order) or affine (second order) displacements.

    Raises:
        ShapeError: Sizes differ.
        ConfigError: The order is neither 1 nor 2.

    Source:
        UFlow (Jonschkowski et al., ECCV 2020) and SMURF. The colour difference spans as many pixels as the
        derivative. The penalty's value at 0, which has no gradient, is taken off.
    """
    if (
        optical_flow.shape[-2:] != image.shape[-2:]
        or optical_flow.ndim != 4
        or len(optical_flow) % len(image)
    ):
        raise ShapeError(
            "smoothness needs (n B, 2, H, W) displacements and (B, 3, H, W) images. "
            f"Got: {tuple(optical_flow.shape)} and {tuple(image.shape)}"
        )
    if settings.order not in ORDERS:
        raise ConfigError(f"optical_flow.smoothness.order must be 1 or 2. Got: {settings.order}")
    by_image = optical_flow.reshape(-1, len(image), *optical_flow.shape[1:])
    total = optical_flow.new_zeros(len(optical_flow))
    for axis in AXES:
        derivative = by_image
        for _ in range(settings.order):
            derivative = _difference(derivative, axis, 1)
        edges = _difference(image, axis, settings.order).abs() * settings.edge_weight
        weight = torch.exp(-edges.mean(1, keepdim=True)).detach()
        penalty = weight * soft_absolute(derivative, settings.softness_px)
        total = total + penalty.mean((-3, -2, -1)).flatten()
    return total / len(AXES)


def soft_absolute(value: Tensor, softness: float) -> Tensor:
    """Absolute value, smooth within ``softness`` of 0; 0 at 0."""
    return (value.square() + softness**2).sqrt() - softness


def _difference(values: Tensor, axis: int, distance: int) -> Tensor:
    length = values.shape[axis] - distance
    return values.narrow(axis, distance, length) - values.narrow(axis, 0, length)
