"""Channels that need no fitting: colour, local contrast, oriented gradient energy, position."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.features.gaussian import blur

STRIDE = 4
# Blur of colour and of contrast, in cells of STRIDE pixels; 0 leaves the mean of the cell.
COLOUR_SIGMAS = (0.0, 1.5, 3.0)
CONTRAST_SIGMAS = (1.0, 3.0)
# Gradients of the image at full, half and quarter size; one more octave is as wide as a cell.
OCTAVES = 3
ORIENTATIONS = 4
ENERGY_SIGMA = 1.5
# Below these, contrast (share of the lightness range) and gradient are noise: logarithms flatten there.
CONTRAST_FLOOR, GRADIENT_FLOOR = 0.01, 0.004

COLOUR_CHANNELS = 3 * len(COLOUR_SIGMAS)
TEXTURE_CHANNELS = len(CONTRAST_SIGMAS) + OCTAVES * ORIENTATIONS

# sRGB primaries to CIE XYZ, divided by the white point D65 (IEC 61966-2-1).
_RGB_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
# CIE L*a*b*: the cube root is replaced by a line below this share of white.
_LINEAR_BELOW, _LINEAR_SLOPE, _LINEAR_OFFSET = 0.008856, 7.787, 16 / 116


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIE L*a*b* (D65), each channel divided by 100.

    Args:
        images: (B, 3, H, W) float, sRGB in [0, 1].

    Returns:
        (B, 3, H, W) float: L in [0, 1], a and b about [-1, 1].
    """
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4)
    xyz = torch.einsum("ij,bjhw->bihw", linear.new_tensor(_RGB_TO_XYZ), linear)
    root = torch.where(
        xyz > _LINEAR_BELOW,
        xyz.clamp(min=_LINEAR_BELOW) ** (1 / 3),
        _LINEAR_SLOPE * xyz + _LINEAR_OFFSET,
    )
    x, y, z = root.unbind(1)
    return torch.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], 1)


def colour_channels(lab: Tensor) -> Tensor:
    """(B, 3, H, W) L*a*b* -> (B, COLOUR_CHANNELS, H/4, W/4): colour around each cell at several scales."""
    cells = functional.avg_pool2d(lab, STRIDE)
    return torch.cat([blur(cells, sigma) if sigma else cells for sigma in COLOUR_SIGMAS], 1)


def texture_channels(lab: Tensor) -> Tensor:
    """(B, 3, H, W) L*a*b* -> (B, TEXTURE_CHANNELS, H/4, W/4): log contrast and log oriented gradient energy.

    Gradients are taken on the lightness at full, half and quarter size, projected on four directions 45
    degrees apart, rectified and averaged.
    """
    lightness = lab[:, :1]
    mean, square = functional.avg_pool2d(torch.cat([lightness, lightness**2], 1), STRIDE).chunk(2, 1)
    channels = [
        torch.log((blur(square, sigma) - blur(mean, sigma) ** 2).clamp(min=0).sqrt() + CONTRAST_FLOOR)
        for sigma in CONTRAST_SIGMAS
    ]
    for octave in range(OCTAVES):
        if octave:
            lightness = functional.avg_pool2d(lightness, 2)
        energy = functional.avg_pool2d(_oriented_gradients(lightness), STRIDE >> octave)
        channels.append(torch.log(blur(energy, ENERGY_SIGMA) + GRADIENT_FLOOR))
    return torch.cat(channels, 1)


def _oriented_gradients(lightness: Tensor) -> Tensor:
    # Sobel, scaled to the change per pixel.
    horizontal = lightness.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([horizontal, horizontal.T])[:, None]
    gradient = functional.conv2d(functional.pad(lightness, (1, 1, 1, 1), mode="replicate"), kernels)
    angles = [math.pi * k / ORIENTATIONS for k in range(ORIENTATIONS)]
    directions = lightness.new_tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    return torch.einsum("od,bdhw->bohw", directions, gradient).abs()


def position_channel(batch: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """(batch, 1, height, width) float: row, from -1 at the top to 1 at the bottom of the image."""
    rows = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height * 2 - 1
    return rows[None, None, :, None].expand(batch, 1, height, width)
