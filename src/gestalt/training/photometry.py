"""Random changes of colour and sharpness: drawn as numbers, applied as tensor code on the device of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.config.training import PhotometricSettings
from gestalt.data.colours import luma, turn_hue

# CUPS blurs with a 7x7 kernel whatever the sigma.
BLUR_RADIUS_PX = 3


@dataclass(frozen=True)
class ColourChange:
    """What happens to one image; the defaults change nothing.

    Attributes:
        sigma_px: Of the Gaussian blur.
        brightness: Factor of the colours.
        contrast: Factor of the distance to the mean brightness of the image.
        saturation: Factor of the distance to the own brightness.
        turn: Of the hue, share of the circle.
        is_grey: The colours are lost.
    """

    sigma_px: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    turn: float = 0.0
    is_grey: bool = False

    @property
    def is_jittered(self) -> bool:
        """Whether any of the four factors changes something."""
        return (self.brightness, self.contrast, self.saturation, self.turn) != (1.0, 1.0, 1.0, 0.0)


def draw_colour_change(generator: np.random.Generator, settings: PhotometricSettings) -> ColourChange:
    """The change of one image; as many values are drawn whatever happens."""
    blur, colour, grey = generator.random(3)
    sigma = float(generator.uniform(settings.blur_sigma_low_px, settings.blur_sigma_high_px))
    brightness, contrast, saturation, turn = (float(value) for value in generator.uniform(-1, 1, 4))
    sigma = sigma if blur < settings.blur_prob else 0.0
    is_grey = bool(grey < settings.grey_prob)
    if colour >= settings.colour_prob:
        return ColourChange(sigma_px=sigma, is_grey=is_grey)
    return ColourChange(
        sigma,
        1 + settings.brightness * brightness,
        1 + settings.contrast * contrast,
        1 + settings.saturation * saturation,
        settings.hue * turn,
        is_grey,
    )


def change_colours(images: Tensor, changes: Sequence[ColourChange]) -> Tensor:
    """Blur, then brightness, contrast, saturation and hue, then grey; images without a change keep their bits.

    Args:
        images: (B, 3, H, W) float32 RGB in [0, 1].
        changes: One per image.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    blurred = [_blur(images[n : n + 1], change.sigma_px) for n, change in enumerate(changes)]
    images = torch.cat(blurred)
    if rows := [n for n, change in enumerate(changes) if change.is_jittered]:
        table = [(c.brightness, c.contrast, c.saturation, c.turn) for c in (changes[n] for n in rows)]
        values = torch.tensor(table, dtype=images.dtype, device=images.device)[..., None, None, None]
        images[rows] = _jitter(images[rows], *values.unbind(1))
    if rows := [n for n, change in enumerate(changes) if change.is_grey]:
        images[rows] = luma(images[rows]).expand(-1, 3, -1, -1)
    return images


def _jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    changed = (images * brightness).clamp_(0, 1)
    mean = luma(changed).mean((2, 3), keepdim=True)
    changed = (mean + contrast * (changed - mean)).clamp_(0, 1)
    own = luma(changed)
    changed = (own + saturation * (changed - own)).clamp_(0, 1)
    return turn_hue(changed, turn)


def _blur(image: Tensor, sigma_px: float) -> Tensor:
    """(1, 3, H, W) blurred along rows, then columns; the border is mirrored."""
    if sigma_px <= 0:
        return image
    channels, height, width = image.shape[1:]
    place = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, dtype=torch.float32)
    weights = torch.exp(-(place**2) / (2 * sigma_px**2))
    kernel = (weights / weights.sum()).to(image).view(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    # An image of few pixels has fewer to mirror than the kernel reaches.
    mode = "reflect" if min(height, width) > BLUR_RADIUS_PX else "replicate"
    padded = functional.pad(image, (BLUR_RADIUS_PX,) * 4, mode=mode)
    # Channels last: grouped convolutions of three planes take many times as long otherwise.
    padded = padded.contiguous(memory_format=torch.channels_last)
    across = functional.conv2d(padded, kernel, groups=channels)
    return functional.conv2d(across, kernel.transpose(2, 3), groups=channels).clamp_(0, 1)
