"""Colour changes of crops, each crop its own: drawn as a table of numbers, applied on the device, batched.

Brightness, contrast, saturation, hue; grey; blur; inversion of what is bright: in that order, as DINO's crops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gestalt.data.colours import luma, turn_hue

if TYPE_CHECKING:
    from gestalt.config.distillation import ViewColourSettings

# Keeps a blur of no width from dividing by 0.
TINY = 1e-6
SOLARISE_FROM = 0.5
JITTERS = 4


@dataclass(frozen=True, eq=False)
class ColourTable:
    """A row of numbers per crop.

    Attributes:
        values: (..., 7) float32: factors of brightness, contrast and saturation; turn of the hue, share of the circle;
            1 where the crop loses its colours; sigma of the blur, pixels of the crop, 0 for none; 1 where what is
            bright is inverted.
        order: The order of brightness (0), contrast (1), saturation (2) and hue (3), one for all crops of a step.
    """

    values: npt.NDArray[np.float32]
    order: tuple[int, ...]

    def of(self, images: slice) -> ColourTable:
        """The rows (V, B, 7) of some of the images."""
        return ColourTable(self.values[:, images], self.order)


def draw_colours(
    settings: ViewColourSettings, n_global: int, n_local: int, n_images: int, generator: np.random.Generator
) -> tuple[ColourTable, ColourTable]:
    """Changes of ``n_global`` (two or more) and ``n_local`` crops of each image: rows (V, B, 7).

    Source:
        Probabilities by the role of the crop as in DINO: the first global crop is blurred more often than the second,
        and the second alone solarised. torchvision draws the order of the four jitters per crop, we per step.
    """
    order = tuple(int(number) for number in generator.permutation(JITTERS))
    n_other = n_global - 1
    blur_probs = np.array(
        [settings.first_blur_prob]
        + [settings.second_blur_prob] * n_other
        + [settings.local_blur_prob] * n_local
    )
    solarise_probs = np.array([0.0] + [settings.solarise_prob] * n_other + [0.0] * n_local)
    shape = (n_global + n_local, n_images)

    def happens(prob: float | npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        return generator.random(shape) < (prob if isinstance(prob, float) else prob[:, None])

    is_jittered = happens(settings.jitter_prob)
    factors = [
        1 + is_jittered * generator.uniform(-1, 1, shape) * width
        for width in (settings.brightness, settings.contrast, settings.saturation)
    ]
    hue = is_jittered * generator.uniform(-settings.hue, settings.hue, shape)
    low, high = sorted((settings.blur_low_px, settings.blur_high_px))
    grey = happens(settings.grey_prob)
    sigma = happens(blur_probs) * generator.uniform(low, high, shape)
    solarised = happens(solarise_probs)
    values = np.stack([*factors, hue, grey, sigma, solarised], -1).astype(np.float32)
    return ColourTable(values[:n_global], order), ColourTable(values[n_global:], order)


def change_view_colours(crops: Tensor, table: Tensor, order: tuple[int, ...]) -> Tensor:
    """Crops with each its own change.

    Args:
        crops: (N, 3, S, S) float32 RGB in [0, 1].
        table: (N, 7) float32 on the same device, rows as in ``ColourTable``.
        order: Of the four jitters.

    Returns:
        (N, 3, S, S) float32 in [0, 1].
    """
    brightness, contrast, saturation, turn, grey, sigma, solarised = table[..., None, None, None].unbind(1)
    for jitter in order:
        if jitter == 0:
            crops = (crops * brightness).clamp(0, 1)
        elif jitter == 1:
            mean = luma(crops).mean((2, 3), keepdim=True)
            crops = (mean + contrast * (crops - mean)).clamp(0, 1)
        elif jitter == 2:
            own = luma(crops)
            crops = (own + saturation * (crops - own)).clamp(0, 1)
        else:
            crops = turn_hue(crops, turn)
    crops = torch.where(grey > 0, luma(crops), crops)
    crops = blur(crops, sigma.flatten())
    return torch.where((solarised > 0) & (crops >= SOLARISE_FROM), 1 - crops, crops)


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Square images (N, 3, S, S) blurred by Gaussians of widths (N,) px; 0 changes nothing, bit for bit.

    Beyond the border nothing counts: weights of the pixels inside sum to 1.
    """
    side = images.shape[-1]
    place = torch.arange(side, device=images.device, dtype=torch.float32)
    squared = (place[:, None] - place) ** 2
    weights = torch.exp(-squared / (2 * sigmas.clamp(min=TINY)[:, None, None] ** 2))
    weights = (weights / weights.sum(-1, keepdim=True))[:, None]
    return weights @ images @ weights.transpose(2, 3)
