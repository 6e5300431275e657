"""From vectors of cells to log-probabilities of pixels: nearest centres, or cosines to prototypes.

A pixel's vector is interpolated between those of the four cells around it. Both classifiers get there without
ever holding an interpolated vector: they interpolate K numbers instead of D.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

# Squared lengths below this count as zero: such a vector has no direction.
MIN_SQUARED_LENGTH = 1e-12


class PixelClassifier(ABC):
    """Gives pixels pseudo-classes from the vectors of cells.

    Args:
        centres: (K, D) float, one vector for each pseudo-class.
    """

    def __init__(self, centres: Tensor) -> None:
        self.centres = centres

    def log_prob(self, vectors: Tensor, cell_px: int, height: int, width: int) -> Tensor:
        """Log-probabilities of pixels.

        Args:
            vectors: (B, D, h, w) float, of cells of ``cell_px`` pixels; the last ones may reach over the border.
            cell_px: Side of a cell, pixels of the wanted size.
            height: Rows wanted.
            width: Columns wanted.

        Returns:
            (B, K, height, width) float.
        """
        return functional.log_softmax(self.pixel_logits(vectors, cell_px, height, width), dim=1)

    @abstractmethod
    def pixel_logits(self, vectors: Tensor, cell_px: int, height: int, width: int) -> Tensor:
        """Logits of interpolated vectors; arguments as in ``log_prob``, result (B, K, height, width)."""


class NearestCentre(PixelClassifier):
    """Logits are negative squared distances to the centres over a temperature.

    The squared length of a vector is left out: it is the same for all pseudo-classes, and without it logits
    are affine in the vector, so that interpolating logits equals classifying interpolated vectors.

    Args:
        centres: (K, D) float.
        temperature: Squared distances are divided by it.
    """

    def __init__(self, centres: Tensor, temperature: float) -> None:
        super().__init__(centres)
        self._offsets = -centres.square().sum(1) / temperature
        self._kernel = (2 * centres / temperature)[:, :, None, None]

    def cell_logits(self, vectors: Tensor) -> Tensor:
        """(B, D, h, w) vectors -> (B, K, h, w) logits."""
        return functional.conv2d(vectors, self._kernel, self._offsets)

    def pixel_logits(self, vectors: Tensor, cell_px: int, height: int, width: int) -> Tensor:
        """See ``PixelClassifier.pixel_logits``."""
        return to_pixels(self.cell_logits(vectors), cell_px, height, width)


class NearestDirection(PixelClassifier):
    """Logits are cosines to the centres, times a sharpness.

    Args:
        centres: (K, D) float, of unit length: the prototypes of a cluster probe.
        sharpness: Cosines are multiplied by it (STEGO and CUPS: 2).

    Source:
        Inference of STEGO (Hamilton et al., ICLR 2022), log-softmax of twice the cosine of interpolated codes.
    """

    def __init__(self, centres: Tensor, sharpness: float) -> None:
        super().__init__(centres)
        self._kernel = (sharpness * centres)[:, :, None, None]

    def pixel_logits(self, vectors: Tensor, cell_px: int, height: int, width: int) -> Tensor:
        """See ``PixelClassifier.pixel_logits``."""
        products = to_pixels(functional.conv2d(vectors, self._kernel), cell_px, height, width)
        squared = interpolated_squared_length(vectors, cell_px, height, width)
        return products * squared.clamp(min=MIN_SQUARED_LENGTH).rsqrt()


def to_pixels(maps: Tensor, cell_px: int, height: int, width: int) -> Tensor:
    """Interpolate (B, C, h, w) values of cells bilinearly to (B, C, height, width) pixels.

    Cells are ``cell_px`` pixels wide. Pixels beyond the last cell continue it.
    """
    size = (maps.shape[-2] * cell_px, maps.shape[-1] * cell_px)
    pixels = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    if size[0] < height or size[1] < width:
        pixels = functional.pad(
            pixels, (0, max(width - size[1], 0), 0, max(height - size[0], 0)), mode="replicate"
        )
    return pixels[..., :height, :width]


def interpolated_squared_length(vectors: Tensor, cell_px: int, height: int, width: int) -> Tensor:
    """Squared length of bilinearly interpolated vectors, without interpolating them.

    The square of a weighted sum of four vectors needs only their products with each other, which are those
    of a cell with itself and with its neighbours.

    Args:
        vectors: (B, D, h, w) float.
        cell_px: Side of a cell, pixels.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        (B, 1, height, width) float: what ``to_pixels(vectors, ...).square().sum(1, keepdim=True)`` gives.
    """
    # The last row and column continue, as interpolation at the border does.
    right = torch.cat([vectors[..., 1:], vectors[..., -1:]], -1)
    below = torch.cat([vectors[..., 1:, :], vectors[..., -1:, :]], -2)
    below_right = torch.cat([below[..., 1:], below[..., -1:]], -1)
    before, weight_x = _places(vectors.shape[-1], cell_px, width, vectors)
    row = _quadratic(
        _products(vectors, vectors), _products(vectors, right), _products(right, right), before, weight_x
    )
    across = _quadratic(
        _products(vectors, below),
        (_products(vectors, below_right) + _products(right, below)) / 2,
        _products(right, below_right),
        before,
        weight_x,
    )
    above, weight_y = _places(vectors.shape[-2], cell_px, height, vectors)
    under = (above + 1).clamp(max=vectors.shape[-2] - 1)
    weight_y = weight_y[:, None]
    return (
        (1 - weight_y).square() * row[..., above, :]
        + weight_y.square() * row[..., under, :]
        + 2 * weight_y * (1 - weight_y) * across[..., above, :]
    )


def _products(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(1, keepdim=True)


def _places(n_cells: int, cell_px: int, n_pixels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pixel along an axis the cell before it, int64, and the weight of the next one."""
    pixels = torch.arange(n_pixels, device=like.device, dtype=like.dtype).clamp(max=n_cells * cell_px - 1)
    centre = ((pixels + 0.5) / cell_px - 0.5).clamp(min=0)
    before = centre.floor().clamp(max=n_cells - 1)
    return before.long(), centre - before


def _quadratic(first: Tensor, mixed: Tensor, second: Tensor, before: Tensor, weight: Tensor) -> Tensor:
    """Along the columns ``(1 - t)^2 first + 2 t (1 - t) mixed + t^2 second`` at the cell before each pixel."""
    return (
        (1 - weight).square() * first[..., before]
        + 2 * weight * (1 - weight) * mixed[..., before]
        + weight.square() * second[..., before]
    )
