"""Depth as a target: cells at one depth are to have one code.

Source: DepthG (Sick et al., CVPR 2024). Its published code normalises a map of one channel over that channel, which
makes every depth 1; here depth runs from 0 to 1 in each crop, as the paper says.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.semantics.correspondence import sample_positions

# A position between cells knows its depth when this share of the bilinear weight lies on known cells.
MIN_KNOWN_WEIGHT = 0.5


def scale_depth(nearness: Tensor, scale: str) -> Tensor:
    """Depth of each map, stretched to [0, 1].

    Args:
        nearness: (B, h, w) float, inverse depth, 1/m, 0 where it is unknown.
        scale: ``log`` (0 nearest, 1 farthest, by the logarithm) or ``inverse`` (0 farthest, 1 nearest, by inverse
            depth).

    Returns:
        (B, h, w) float in [0, 1]; 0 where depth is unknown, and everywhere in a map of one depth.
    """
    known = nearness > 0
    values = -torch.where(known, nearness, 1.0).log() if scale == "log" else nearness
    low = torch.where(known, values, math.inf).amin((1, 2), keepdim=True)
    high = torch.where(known, values, -math.inf).amax((1, 2), keepdim=True)
    span = (high - low).clamp(min=1e-6)
    return torch.where(known, (values - low) / span, 0.0)


def sample_depth(depth: Tensor, known: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Depth between cells, of known neighbours alone.

    Args:
        depth: (B, h, w) float.
        known: (B, h, w) bool.
        positions: (B, P, 2) float, as in ``sample_positions``: the ones that codes are sampled at.

    Returns:
        (B, P) float and (B, P) bool, whether it is known.
    """
    weights = known.float()
    sums, total = sample_positions(torch.stack([depth * weights, weights], 1), positions).unbind(1)
    is_known = total >= MIN_KNOWN_WEIGHT
    return torch.where(is_known, sums / total.clamp(min=MIN_KNOWN_WEIGHT), 0.0), is_known


def depth_correlations(depth: Tensor, target: str) -> Tensor:
    """Correlation of all pairs of depths of a crop.

    Args:
        depth: (B, P) float in [0, 1].
        target: ``difference`` (1 - |z - z'|) or ``product`` (z z').

    Returns:
        (B, P, P) float in [0, 1].
    """
    left, right = depth[:, :, None], depth[:, None, :]
    return left * right if target == "product" else 1 - (left - right).abs()


def depth_loss(
    correlations: Tensor, known: Tensor, codes: Tensor, shift: float, clamp_high: float = 1.0
) -> Tensor:
    """Draw codes together where depth agrees by more than the shift.

    Args:
        correlations: (B, P, P) float, of depth.
        known: (B, P) bool; pairs with an unknown depth are left out.
        codes: (B, P, P) float, of codes of the same positions.
        shift: Correlation from which it attracts.
        clamp_high: Code correlations are clamped to [0, clamp_high].

    Returns:
        Scalar, ``-mean((correlations - shift) * clamp(codes))``; 0 where nothing is known.
    """
    pairs = (known[:, :, None] & known[:, None, :]).float()
    terms = (correlations - shift) * codes.clamp(0, clamp_high) * pairs
    return -terms.sum() / pairs.sum().clamp(min=1)


def sample_depth_as_published(depth: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Depth on a regular grid, wherever codes were sampled, and made 1 by a norm over its one channel.

    Args:
        depth: (B, h, w) float, 0 where it is unknown.
        side: Positions per side of the grid.

    Returns:
        (B, side * side) float, 1 where depth is positive and 0 elsewhere, and (B, side * side) bool, all true.
    """
    grid = resize_to_grid(depth, side)
    values = normalize_channel(grid)
    return values, torch.ones_like(values, dtype=torch.bool)


def resize_to_grid(depth: Tensor, side: int) -> Tensor:
    """(B, h, w) -> (B, side * side): depth at the points of a regular grid, whatever positions codes have."""
    grid = functional.interpolate(depth[:, None], (side, side), mode="bilinear", align_corners=True)
    return grid.flatten(1)


def normalize_channel(depth: Tensor) -> Tensor:
    """(B, P) -> (B, P): depth as a vector of one channel of unit length, that is 1 wherever it is positive."""
    return functional.normalize(depth[:, None], dim=1)[:, 0]


def decayed(value: float, factor: float, step: int, every: int) -> float:
    """``value`` after ``step`` steps: multiplied by ``factor`` every ``every`` steps."""
    return value * factor ** (step // every)


def decayed_side(side: int, factor: float, step: int, every: int) -> int:
    """Positions per side after ``step`` steps, rounded down, at least 2."""
    # A hair above: 0.9 of 10 in floating point must not become 8.
    return max(2, math.floor(decayed(side, factor, step, every) + 1e-9))


def decayed_side_as_published(side: int, factor: float, step: int, every: int) -> int:
    """The same with the first decay before the first step, rounding down after each."""
    for _ in range(step // every + 1):
        side = max(2, int(side * factor))
    return side
