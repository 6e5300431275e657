"""Correspondences: where features of two crops agree, codes are to agree, and nowhere else.

Source: STEGO (Hamilton et al., ICLR 2022). Positions of a crop with itself are one draw, all others independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Correlations:
    """Cosines between positions of anchors and of what they are paired with.

    Attributes:
        features: (M, B, P, Q) float, of features, without gradient.
        codes: (M, B, P, Q) float, of codes.
    """

    features: Tensor
    codes: Tensor


def draw_positions(maps: int, count: int, generator: torch.Generator) -> Tensor:
    """Uniformly random positions.

    Returns:
        (maps, count, 2) float, (x, y) in [-1, 1]: the centres of the first and the last cell are -1 and 1.
    """
    return torch.rand(maps, count, 2, generator=generator) * 2 - 1


def sample_positions(maps: Tensor, positions: Tensor) -> Tensor:
    """Values between cells, bilinear.

    Args:
        maps: (B, C, h, w) float.
        positions: (B, P, 2) float, (x, y) in [-1, 1], as from ``draw_positions``.

    Returns:
        (B, C, P) float.

    Raises:
        ShapeError: Batch sizes differ, or positions are not pairs.
    """
    if positions.ndim != 3 or positions.shape[0] != maps.shape[0] or positions.shape[2] != 2:
        raise ShapeError(
            f"positions must be ({maps.shape[0]}, P, 2) for {tuple(maps.shape)} maps. Got: {tuple(positions.shape)}"
        )
    sampled = functional.grid_sample(
        maps, positions[:, None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled[:, :, 0]


def draw_derangements(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Permutations that leave no element where it is.

    Each walks once around a random circle of all elements, so every other element is equally likely to stand
    in an element's place.

    Args:
        size: Elements, at least 2.
        count: Permutations, independent of each other.
        generator: CPU generator.

    Returns:
        (count, size) int64.

    Raises:
        ShapeError: One element has no derangement.
    """
    if size < 2:
        raise ShapeError(f"a derangement needs at least 2 elements, the crops of a batch. Got: {size}")
    circles = torch.rand(count, size, generator=generator).argsort(1)
    return torch.empty_like(circles).scatter_(1, circles, circles.roll(-1, 1))


def pair_up(anchors: Tensor, neighbours: Tensor, strangers: Tensor, derangements: Tensor) -> Tensor:
    """What each anchor is compared with: itself, its neighbour, strangers.

    Args:
        anchors: (B, C, P) float, sampled values of the anchors.
        neighbours: (B, C, P) float, of their neighbours.
        strangers: (B, C, P) float, of the anchors again, at other positions.
        derangements: (n, B) int64: anchor i meets the stranger ``derangements[:, i]``.

    Returns:
        (2 + n, B, C, P) float.
    """
    return torch.cat([anchors[None], neighbours[None], strangers[derangements]])


def cosine_correlations(left: Tensor, right: Tensor) -> Tensor:
    """Cosines between all positions of paired maps, as one batched product.

    Args:
        left: (B, C, P) float.
        right: (M, B, C, Q) float.

    Returns:
        (M, B, P, Q) float; 0 where a vector has no length.
    """
    return paired_products(functional.normalize(left, dim=1), functional.normalize(right, dim=2))


def paired_products(left: Tensor, right: Tensor) -> Tensor:
    """What ``cosine_correlations`` gives for vectors that have unit length already."""
    M, B, C, Q = right.shape
    columns = right.permute(1, 2, 0, 3).reshape(B, C, M * Q)
    return (left.mT @ columns).reshape(B, -1, M, Q).permute(2, 0, 1, 3)


def centre_correlations(correlations: Tensor) -> Tensor:
    """Subtract the mean of each position of an anchor, keeping the mean over all anchors.

    Args:
        correlations: (M, B, P, Q) float.

    Returns:
        The same shape. Positions that resemble everything, as in a large plain area, count no more than others.
    """
    # Rows have mean zero then, so nothing else is needed to restore the mean of a term.
    return correlations - correlations.mean(3, keepdim=True) + correlations.mean((1, 2, 3), keepdim=True)


def correspondence_losses(correlations: Correlations, shifts: Tensor, clamp_high: float = 1.0) -> Tensor:
    """Loss of each kind of pair: codes are drawn together where features agree by more than the shift.

    Args:
        correlations: Features, centred or not, and codes.
        shifts: (M,) float.
        clamp_high: Code correlations are clamped to [0, clamp_high].

    Returns:
        (M,) float, ``-mean((features - shift) * clamp(codes))``.
    """
    follow = correlations.features - shifts[:, None, None, None]
    return -(follow * correlations.codes.clamp(0, clamp_high)).mean((1, 2, 3))


def measure_shifts(correlations: Tensor, shares: Tensor) -> Tensor:
    """Shifts that a wanted share of feature correlations lies below.

    Args:
        correlations: (M, n) float, feature correlations of each kind of pair, centred where training centres.
        shares: (M,) float in [0, 1].

    Returns:
        (M,) float.
    """
    ordered = correlations.sort(1).values
    # torch.quantile refuses more than 2^24 values.
    places = (shares * (correlations.shape[1] - 1)).round().long()
    return ordered.gather(1, places.to(ordered.device)[:, None])[:, 0]
