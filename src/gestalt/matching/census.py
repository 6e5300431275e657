"""The photometric loss: how differently two images are patterned around each pixel, whatever their brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import ShapeError

if TYPE_CHECKING:
    from gestalt.config.optical_flow import CensusSettings

# Luma of Rec. 601, and the grey levels that the constants of the loss are made for.
LUMA = (0.299, 0.587, 0.114)
GREY_LEVELS = 255.0
# Keeps the mean over no pixel at 0.
NO_PIXEL = 1e-6


def census_transform(image: Tensor, settings: CensusSettings) -> Tensor:
    """Normalised differences of each pixel to its neighbourhood.

    Args:
        image: (B, 3, H, W) float32 RGB in [0, 1].
        settings: Size of the neighbourhood k, softness of the normalisation.

    Returns:
        (B, k * k, H, W) float32 in (-1, 1). Outside of the image there is black, so the outermost k // 2 pixels
        mean nothing.

    Raises:
        ShapeError: The image has no three channels, or the neighbourhood has no middle.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ShapeError(f"the census transform needs (B, 3, H, W). Got: {tuple(image.shape)}")
    if settings.patch_px % 2 == 0:
        raise ShapeError(f"optical_flow.census.patch_px must be odd. Got: {settings.patch_px}")
    weights = torch.tensor(LUMA, device=image.device).view(1, 3, 1, 1) * GREY_LEVELS
    grey = (image * weights).sum(1, keepdim=True)
    patches = functional.unfold(grey, settings.patch_px, padding=settings.patch_px // 2)
    difference = patches.reshape(len(grey), -1, *grey.shape[2:]) - grey
    return difference * torch.rsqrt(settings.contrast + difference.square())


def census_distance(first: Tensor, second: Tensor, settings: CensusSettings) -> Tensor:
    """Soft Hamming distance of census transforms: (..., k * k, H, W) each -> (..., H, W), 0 where they agree."""
    squared = (first - second).square()
    return (squared / (settings.distance + squared)).sum(-3)


def photometric_losses(first: Tensor, warped: Tensor, visible: Tensor, settings: CensusSettings) -> Tensor:
    """Robust mean of the census distance over visible pixels, of each image.

    Args:
        first: (B, k * k, H, W) float32, census transform of the first images.
        warped: (n B, 3, H, W) float32 RGB in [0, 1], the second images sampled where displacements point; n of
            them, one after the other, for the same B first images.
        visible: (n B, H, W) float or bool in [0, 1], weight of each pixel; it gets no gradient.
        settings: Constants of the loss.

    Returns:
        (n B,) float32; 0 for equal patterns.

    Source:
        SMURF (Stone et al., CVPR 2021), after DDFlow (Liu et al., AAAI 2019). The penalty's value at distance 0,
        which has no gradient, is taken off, so that a perfect match has loss 0.
    """
    transformed = census_transform(warped, settings).reshape(-1, *first.shape)
    distance = census_distance(first, transformed, settings).flatten(0, 1)
    penalty = (distance + settings.offset).pow(settings.power) - settings.offset**settings.power
    weight = within_frame(visible.detach().to(penalty.dtype), settings.patch_px // 2)
    means: Tensor = (penalty * weight).sum((1, 2)) / (weight.sum((1, 2)) + NO_PIXEL)
    return means


def within_frame(weight: Tensor, width_px: int) -> Tensor:
    """``weight`` (B, H, W) with a frame of ``width_px`` pixels set to 0: neighbourhoods there are incomplete."""
    inside = torch.zeros_like(weight)
    rows, columns = slice(width_px, -width_px or None), slice(width_px, -width_px or None)
    inside[:, rows, columns] = weight[:, rows, columns]
    return inside
