"""Brightness and hue of images as tensor code, which every change of colours in a training is made of."""

from __future__ import annotations

import torch
from torch import Tensor

# Share of red, green and blue in brightness (ITU-R BT.601, as torchvision rounds it).
LUMA = (0.2989, 0.587, 0.114)
# Keeps grey, which has no hue, from dividing by 0.
TINY = 1e-6


def luma(images: Tensor) -> Tensor:
    """Brightness as the eye weighs colours: (N, 3, H, W) -> (N, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] with the hue of HSV turned by shares (N, 1, 1, 1) of the circle."""
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    # Colours on the hexagon: 2 at the channel that is largest, and the difference of the others around it.
    following, preceding = images.roll(-1, 1), images.roll(-2, 1)
    sextant = torch.tensor([0.0, 2.0, 4.0], device=images.device)[:, None, None]
    candidates = sextant + (following - preceding) / chroma.clamp(min=TINY)
    hue = candidates.gather(1, images.argmax(1, keepdim=True)) + 6 * turn
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    wheel = (hue + offsets).remainder(6)
    return value - chroma * torch.minimum(wheel, 4 - wheel).clamp(0, 1)
