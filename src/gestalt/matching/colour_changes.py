"""Photometric augmentation: hue, saturation, contrast, brightness, erased rectangles; drawn first, applied later.

What is drawn are a few numbers from a generator; what is applied is tensor code on the device of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from gestalt.config.optical_flow import ColourSettings

# Keeps black and grey, which have no hue, from dividing by 0.
NO_COLOUR = 1e-12


@dataclass(frozen=True)
class ColourChange:
    """A change of an image's colours; the defaults change nothing.

    Attributes:
        hue: Turn, share of the circle.
        saturation: Factor.
        contrast: Factor of the distance to the mean colour.
        brightness: What is added, of images in 0..1.
    """

    hue: float = 0.0
    saturation: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0


@dataclass(frozen=True)
class Rectangle:
    """Pixels of rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


def draw_colour_changes(
    settings: ColourSettings, generator: np.random.Generator
) -> tuple[ColourChange, ColourChange]:
    """The changes of the two images of a pair.

    Source:
        RAFT changes the images of a pair separately with probability 0.2 and alike otherwise. SMURF's released
        code has the first half only: with ``joint_prob`` 0 four of five pairs keep their colours.
    """
    separate = generator.random() < settings.separate_prob
    joint = generator.random() < settings.joint_prob
    first, second = _draw_change(settings, generator), _draw_change(settings, generator)
    if separate:
        return first, second
    return (first, first) if joint else (ColourChange(), ColourChange())


def draw_rectangles(
    size: tuple[int, int], settings: ColourSettings, generator: np.random.Generator
) -> tuple[Rectangle, ...]:
    """What of an image of ``size`` (H, W) is erased: nothing, or a few rectangles around random centres."""
    if generator.random() >= settings.eraser_prob:
        return ()
    height, width = size
    low, high = sorted((settings.eraser_low_px, settings.eraser_high_px))
    rectangles = []
    for _ in range(int(generator.integers(1, settings.eraser_max + 1))):
        rows, columns = (int(side) for side in generator.integers(low, high + 1, 2))
        top, left = int(generator.integers(height)) - rows // 2, int(generator.integers(width)) - columns // 2
        rectangles.append(
            Rectangle(max(0, top), min(height, top + rows), max(0, left), min(width, left + columns))
        )
    return tuple(rectangles)


def change_colours(images: Tensor, changes: Sequence[ColourChange]) -> Tensor:
    """Images with each its own change; one whose change is none stays as it is, bit for bit.

    Args:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        changes: B changes.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    chosen = [index for index, change in enumerate(changes) if change != ColourChange()]
    if not chosen:
        return images
    rows = [
        (change.hue, change.saturation, change.contrast, change.brightness)
        for change in (changes[index] for index in chosen)
    ]
    values = torch.tensor(rows, device=images.device)[..., None, None]
    hue, saturation, contrast, brightness = values.unbind(1)
    changed = _turn_hue(images[chosen], hue, saturation)
    mean = changed.mean((2, 3), keepdim=True)
    changed = (changed - mean) * contrast[:, None] + mean + brightness[:, None]
    result = images.clone()
    result[chosen] = changed.clamp(0, 1)
    return result


def erase(images: Tensor, rectangles: Sequence[Sequence[Rectangle]]) -> Tensor:
    """Images (B, 3, H, W) whose rectangles, a sequence per image, have the mean colour of the image."""
    if not any(rectangles):
        return images
    erased, means = images.clone(), images.mean((2, 3))
    for index, own in enumerate(rectangles):
        for part in own:
            erased[index, :, part.top : part.bottom, part.left : part.right] = means[index, :, None, None]
    return erased


def _draw_change(settings: ColourSettings, generator: np.random.Generator) -> ColourChange:
    hue, saturation, contrast, brightness = (float(value) for value in generator.uniform(-1, 1, 4))
    return ColourChange(
        hue=hue * settings.hue,
        saturation=1 + saturation * settings.saturation,
        contrast=1 + contrast * settings.contrast,
        brightness=brightness * settings.brightness,
    )


def _turn_hue(images: Tensor, turn: Tensor, factor: Tensor) -> Tensor:
    """Images (B, 3, H, W) with hue turned and saturation scaled, in the hexagon of HSV; both (B, 1, 1)."""
    red, green, blue = images.unbind(1)
    value, largest = images.max(1)
    chroma = value - images.min(1).values
    safe = chroma.clamp(min=NO_COLOUR)
    sector = torch.stack([(green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4], 1)
    hue = sector.gather(1, largest[:, None]).squeeze(1) + 6 * turn
    chroma = value * (factor * chroma / value.clamp(min=NO_COLOUR)).clamp(0, 1)
    # Where each channel lies on the hexagon: full, rising, none, falling.
    place = torch.stack([hue + 5, hue + 3, hue + 1], 1).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)
