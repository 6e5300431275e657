"""Geometric augmentation: flips, scale, shape and place of the crop of a pair, and what displacements become.

A crop is an axis-parallel affine view of a stored image. The same view, taken wider than the crop, is the context
that displacements leading out of the crop still find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gestalt.matching.occlusion import sample_batch
from gestalt.matching.warping import pixel_grid

if TYPE_CHECKING:
    from gestalt.config.optical_flow import CropSettings

# Share of a bilinear sample that must be known for the sample to be.
KNOWN = 0.999


@dataclass(frozen=True)
class Placement:
    """Where the pixels of a crop lie in the stored image: ``stored = scale * crop + offset``, x and y.

    Attributes:
        scale: Stored pixels per pixel of the crop; negative where mirrored.
        offset: Position of the crop's first pixel.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]


def draw_placement(
    stored: tuple[int, int], settings: CropSettings, generator: np.random.Generator
) -> Placement:
    """A random view.

    Args:
        stored: (H, W) of the stored images.
        settings: Size of the crop, probabilities and ranges.
        generator: Source of chance.

    Returns:
        A view inside the image; images that are too small are enlarged. Without scaling and stretching the crop
        lies on whole pixels.
    """
    zoom = np.ones(2)
    if generator.random() < settings.scale_prob:
        zoom *= 2 ** generator.uniform(settings.scale_low_log2, settings.scale_high_log2)
    if generator.random() < settings.stretch_prob:
        zoom *= 2 ** generator.uniform(-settings.stretch_log2, settings.stretch_log2, 2)
    flips = generator.random(2) < (settings.flip_prob, settings.vertical_flip_prob)
    places = generator.random(2)
    scales, offsets = [], []
    for crop, length, wanted, is_flipped, place in zip(
        (settings.width, settings.height), stored[::-1], zoom, flips, places, strict=True
    ):
        factor = max(float(wanted), crop / length)
        start = np.floor(place * (length * factor - crop + 1))
        start = min(start, length * factor - crop)
        # Pixel centres are whole numbers, so half a pixel of either size lies before the first centre.
        first = start + crop - 1 if is_flipped else start
        scales.append((-1 if is_flipped else 1) / factor)
        offsets.append(float((first + 0.5) / factor - 0.5))
    return Placement((scales[0], scales[1]), (offsets[0], offsets[1]))


def stored_positions(
    placements: list[Placement], size: tuple[int, int], margin: tuple[int, int], device: torch.device
) -> Tensor:
    """Where the pixels of crops and their margins lie in the stored images.

    Args:
        placements: B views.
        size: (H, W) of the crop.
        margin: Rows and columns added at each side.
        device: Of the result.

    Returns:
        (B, 2, H + 2 rows, W + 2 columns) float32, x and y, pixels of the stored images.
    """
    rows, columns = margin
    grid = pixel_grid(size[0] + 2 * rows, size[1] + 2 * columns, device)
    grid = grid - grid.new_tensor([columns, rows]).view(2, 1, 1)
    scale, offset = _tensors(placements, device)
    return scale * grid + offset


def view_images(images: Tensor, positions: Tensor) -> Tensor:
    """Images (B, C, H, W) float at positions (B, 2, h, w); beyond the border they repeat it."""
    height, width = images.shape[-2:]
    limit = positions.new_tensor([width - 1, height - 1]).view(1, 2, 1, 1)
    samples, _ = sample_batch(images, torch.minimum(positions.clamp(min=0), limit))
    return samples


def view_displacements(
    optical_flow: Tensor, known: Tensor, positions: Tensor, placements: list[Placement]
) -> tuple[Tensor, Tensor]:
    """Displacements of the stored images as displacements of the crops.

    Args:
        optical_flow: (B, 2, H, W) float32, pixels of the stored images.
        known: (B, H, W) bool.
        positions: (B, 2, h, w) float32 of the crops, as ``stored_positions`` gives them without a margin.
        placements: B views.

    Returns:
        (B, 2, h, w) float32, pixels of the crop, 0 where unknown; (B, h, w) bool, whether they are known.
    """
    scale, _ = _tensors(placements, optical_flow.device)
    both = torch.cat([optical_flow * known[:, None], known[:, None].to(optical_flow.dtype)], 1)
    samples = view_images(both, positions)
    seen = samples[:, 2] >= KNOWN
    return samples[:, :2] / scale * seen[:, None], seen


def frame_bounds(
    placements: list[Placement],
    stored: tuple[int, int],
    size: tuple[int, int],
    margin: tuple[int, int],
    device: torch.device,
) -> Tensor:
    """How far displacements may lead from a crop: to the end of its context, and of the stored image.

    Returns:
        (B, 4) float32: least x, least y, largest x, largest y, pixels of the crop.
    """
    scale, offset = (values[:, :, 0, 0] for values in _tensors(placements, device))
    ends = scale.new_tensor([stored[1] - 1, stored[0] - 1])
    first, last = -offset / scale, (ends - offset) / scale
    beyond = scale.new_tensor([margin[1], margin[0]])
    until = scale.new_tensor([size[1] - 1, size[0] - 1]) + beyond
    # A view whose own pixels lie half a stored pixel beyond the border repeats it: they belong to the image.
    least = torch.minimum(first, last).clamp(max=0.0)
    largest = torch.maximum(torch.maximum(first, last), until - beyond)
    return torch.cat([torch.maximum(least, -beyond), torch.minimum(largest, until)], 1)


def _tensors(placements: list[Placement], device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and offset of each view, (B, 2, 1, 1) float32 each."""
    scale = torch.tensor([view.scale for view in placements], device=device)
    offset = torch.tensor([view.offset for view in placements], device=device)
    return scale[..., None, None], offset[..., None, None]
