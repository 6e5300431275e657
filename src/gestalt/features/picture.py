"""Dense features for the eye: principal components as colours, likeness to a chosen pixel, attention.

Pictures have one pixel per cell; ``enlarge_cells`` brings them to the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import DataError, ShapeError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Pixels = TypeVar("Pixels", bound=np.generic)

# Cells below and above these shares are drawn in the last colour: a few outliers must not wash out the rest.
LOWEST_SHARE, HIGHEST_SHARE = 0.02, 0.98
# Cells that a basis is fitted on: quantiles of more cost much and say the same.
BASIS_CELLS = 200_000
# Chosen cells are compared by the mean around them, so that none is an odd one, and keep off the border.
NEIGHBOURHOOD = 5
INVALID_RGB = (0, 0, 0)


@dataclass(frozen=True, eq=False)
class ColourBasis:
    """How vectors become colours: three directions and where each scale begins and ends.

    Attributes:
        mean: (D,) float64.
        directions: (D, 3) float64, orthonormal; the leading ones of the fitted cells, zero where there are none.
        lowest: (3,) float64, drawn as 0.
        highest: (3,) float64, drawn as 255.
    """

    mean: Tensor
    directions: Tensor
    lowest: Tensor
    highest: Tensor


def fit_colour_basis(cells: Sequence[Tensor]) -> ColourBasis:
    """The three leading principal components of the cells of one image or of several.

    Args:
        cells: (n, D) float each, the valid cells of an image.

    Raises:
        DataError: There is no cell.
    """
    if not sum(map(len, cells)):
        raise DataError("colours need at least one valid cell; is the image smaller than a cell?")
    together = torch.cat([part.detach().double().cpu() for part in cells])
    together = together[:: -(-len(together) // BASIS_CELLS)]
    mean = together.mean(0)
    centred = together - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    directions = vectors.flip(1)[:, :3]
    # The sign of an eigenvector is arbitrary; the largest entry becomes positive.
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    directions = functional.pad(
        directions * torch.where(largest < 0, -1.0, 1.0), (0, 3 - directions.shape[1])
    )
    shares = torch.tensor([LOWEST_SHARE, HIGHEST_SHARE], dtype=torch.float64)
    lowest, highest = torch.quantile(centred @ directions, shares, dim=0)
    return ColourBasis(mean, directions, lowest, highest)


def valid_cells(grid: Tensor, valid: Tensor) -> Tensor:
    """(D, h, w) vectors and (h, w) bool -> (n, D) vectors of the valid cells, row by row."""
    return grid[:, valid].T


def colour_cells(grid: Tensor, valid: Tensor, basis: ColourBasis) -> UInt8Array:
    """Vectors as colours; cells of like vectors look alike.

    Args:
        grid: (D, h, w) float.
        valid: (h, w) bool; other cells are black.
        basis: Of this image, or of several, whose colours can then be compared.

    Returns:
        (h, w, 3) uint8 RGB: red is the first component; grey where vectors do not differ at all.
    """
    if grid.shape[0] != len(basis.mean):
        raise ShapeError(
            f"the basis of colours is for vectors of length {len(basis.mean)}. Got: {grid.shape[0]}"
        )
    centred = grid.detach().double().cpu().flatten(1).T - basis.mean
    extent = basis.highest - basis.lowest
    # Rounding is all that there is to see in a component that does not vary.
    varies = extent > 1e-6 * basis.mean.norm().clamp(min=1e-6)
    level = (centred @ basis.directions - basis.lowest) / torch.where(varies, extent, 1.0)
    level = torch.where(varies, level, 0.5).clamp(0, 1)
    colours = (level * 255).round().to(torch.uint8).reshape(*grid.shape[1:], 3)
    colours[~valid.cpu()] = torch.tensor(INVALID_RGB, dtype=torch.uint8)
    return colours.numpy()


def likeness(grid: Tensor, valid: Tensor, cell: tuple[int, int]) -> FloatArray:
    """Cosine of every cell's vector and that of one cell.

    Args:
        grid: (D, h, w) float.
        valid: (h, w) bool.
        cell: Row and column of a valid cell.

    Returns:
        (h, w) float32 in [-1, 1]; NaN where a cell is not valid.

    Raises:
        DataError: The cell lies outside the grid, or is not valid.
    """
    row, column = cell
    height, width = valid.shape
    if not (0 <= row < height and 0 <= column < width and bool(valid[row, column])):
        raise DataError(f"cell {row},{column} holds no pixel of the image: it has {height} x {width} cells")
    unit = functional.normalize(grid.detach().float(), dim=0)
    cosine = torch.einsum("dhw,d->hw", unit, unit[:, row, column]).clamp(-1, 1)
    return torch.where(valid, cosine, torch.nan).cpu().numpy()


def spread_cells(grid: Tensor, valid: Tensor, count: int) -> list[tuple[int, int]]:
    """Cells that stand for as different things as possible.

    Args:
        grid: (D, h, w) float.
        valid: (h, w) bool.
        count: How many are wanted.

    Returns:
        (row, column) of at most ``count`` valid cells: the one nearest to the middle, then the one that is least like
        those chosen before, in the mean over its neighbourhood.
    """
    height, width = valid.shape
    margin = min(NEIGHBOURHOOD // 2, (min(height, width) - 1) // 2)
    smooth = functional.avg_pool2d(
        grid.detach().float()[None], 2 * margin + 1, 1, margin, count_include_pad=False
    )[0]
    unit = functional.normalize(smooth, dim=0).flatten(1)
    inner = torch.zeros_like(valid)
    inner[margin : height - margin, margin : width - margin] = True
    candidates = ((inner & valid) if bool((inner & valid).any()) else valid).flatten()
    if not bool(candidates.any()):
        return []
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    off_middle = (rows - (height - 1) / 2).square() + (columns - (width - 1) / 2).square()
    start = off_middle.flatten().to(valid.device).masked_fill(~candidates, torch.inf).argmin()
    chosen = [int(start)]
    nearest = unit.T @ unit[:, chosen[0]]
    for _ in range(min(count, int(candidates.sum())) - 1):
        chosen.append(int(nearest.masked_fill(~candidates, torch.inf).argmin()))
        nearest = torch.maximum(nearest, unit.T @ unit[:, chosen[-1]])
        nearest[chosen] = torch.inf
    return [divmod(place, width) for place in chosen]


def attention_shares(cls_attention: Tensor, valid: Tensor) -> FloatArray:
    """Attention of the whole image to its cells, mean over the heads, in multiples of an even spread.

    Args:
        cls_attention: (heads, h, w) float, not negative.
        valid: (h, w) bool.

    Returns:
        (h, w) float32 with mean 1 over the valid cells; NaN elsewhere.
    """
    mean = cls_attention.detach().float().mean(0)
    even = mean[valid].mean().clamp(min=1e-12)
    return torch.where(valid, mean / even, torch.nan).cpu().numpy()


def enlarge_cells(cells: npt.NDArray[Pixels], stride: int, height: int, width: int) -> npt.NDArray[Pixels]:
    """(h, w, ...) cells -> (height, width, ...) pixels, each cell a square of ``stride`` pixels, cut at the border."""
    enlarged = cells.repeat(stride, axis=0).repeat(stride, axis=1)
    return enlarged[:height, :width]
