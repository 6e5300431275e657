"""Vectors and their nearest centres, block by block, so that memory does not grow with the number of vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.errors import DataError
from gestalt.features.vector_blocks import VectorBlocks, Vectors

# Distances held at once: what fits into the cache of a core, and what keeps a GPU busy.
CPU_DISTANCES, GPU_DISTANCES = 2**19, 2**26
# The vectors farthest from all centres, among which new centres are looked for.
CANDIDATES = 1024
# Vectors nearer to a centre than this share of their squared length coincide with it but for rounding.
COINCIDENT_SHARE = 1e-10
# Of a vector of unit length in half precision.
LONGEST_UNIT = 1.01


@dataclass(frozen=True, eq=False)
class Assignment:
    """Vectors given to the nearest of K centres, for each of R sets of centres.

    Attributes:
        sums: (R, K, D) float64, of the vectors of each centre.
        sizes: (R, K) int64, their number.
        inertia: (R,) float64 on the CPU, mean squared distance of a vector to its centre.
    """

    sums: Tensor
    sizes: Tensor
    inertia: Tensor


def assign(vectors: VectorBlocks, centres: Tensor) -> Assignment:
    """Compare all vectors with several sets of centres in one pass.

    Args:
        vectors: n of them, D each.
        centres: (R, K, D) float32 on the device of the vectors.

    Raises:
        DataError: A vector is not finite.
    """
    R, K, D = centres.shape
    sums = torch.zeros(R, K, D, dtype=torch.float64, device=centres.device)
    sizes = torch.zeros(R * K, dtype=torch.int64, device=centres.device)
    total = torch.zeros(R, dtype=torch.float64, device=centres.device)
    for block in vectors:
        # A block adds up in single precision and the blocks in double: rounding does not grow with n.
        block_sums = torch.zeros(R, K, D, device=centres.device)
        distance = torch.empty(R, len(block), device=centres.device)
        for rows in _tiles(len(block), R * K, centres.device):
            index, distance[:, rows] = _nearest(block[rows], centres)
            _add_rows(block_sums, index, block[rows])
            numbers = index + K * torch.arange(R, device=index.device)[:, None]
            sizes += torch.bincount(numbers.flatten(), minlength=R * K)
        sums += block_sums
        total += torch.stack([row.sum(dtype=torch.float64) for row in distance])
    return Assignment(sums, sizes.view(R, K), (total / len(vectors)).cpu())


def nearest_centre(vectors: Vectors, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each vector.

    Args:
        vectors: (n, D) float; an array may be mapped from a file.
        centres: (K, D) float32; where they lie, arrays are compared with them.

    Returns:
        Index (n,) int64 of the nearest centre, the first of equally near ones, and the squared Euclidean
        distance (n,) float32 to it.

    Raises:
        ShapeError: ``vectors`` is not (n, D) float.
        DataError: A vector is not finite.
    """
    found = [
        _nearest(block[rows], centres[None])
        for block in VectorBlocks(vectors, centres.device)
        for rows in _tiles(len(block), len(centres), centres.device)
    ]
    if not found:
        return torch.zeros(0, dtype=torch.int64, device=centres.device), centres.new_zeros(0)
    return torch.cat([index[0] for index, _ in found]), torch.cat([distance[0] for _, distance in found])


def farthest_vectors(vectors: VectorBlocks, centres: Tensor, count: int) -> Tensor:
    """Vectors far from all centres and from each other, where empty clusters can start anew.

    Args:
        vectors: n of them, D each.
        centres: (K, D) float32 on their device.
        count: How many are wanted.

    Returns:
        (m, D) float32 with m <= count: each is the candidate farthest from the centres and from those before
        it; fewer than wanted where all others coincide with one of these.
    """
    candidates, far = centres.new_zeros(0, centres.shape[1]), centres.new_zeros(0)
    for block in vectors:
        _, distance = nearest_centre(block, centres)
        far, order = torch.cat([far, distance]).sort(descending=True, stable=True)
        candidates = torch.cat([candidates, block])[order[: max(CANDIDATES, count)]]
        far = far[: len(candidates)]
    # Differences, not the rule of `_nearest`, whose rounding hides that two vectors are the same.
    exact = torch.cdist(candidates, centres, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()
    coincident = COINCIDENT_SHARE * candidates.square().sum(1)
    chosen: list[int] = []
    while len(chosen) < count:
        exact[exact <= coincident] = 0
        best = int(exact.argmax())
        if float(exact[best]) <= 0:
            break
        chosen.append(best)
        exact = torch.minimum(exact, (candidates - candidates[best]).square().sum(1))
    return candidates[chosen]


def _nearest(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index and squared distance, (R, b) each, of the nearest of each set of centres (R, K, D)."""
    R, K, D = centres.shape
    flat = centres.reshape(R * K, D)
    # |x - c|^2 / 2 without |x|^2 / 2, which all centres share: one product of matrices for all sets.
    half = torch.addmm(flat.square().sum(1) / 2, rows, flat.T, alpha=-1).view(-1, R, K)
    smallest, index = half.min(2)
    distance = rows.square().sum(1)[:, None] + 2 * smallest
    return index.T, distance.clamp(min=0).T


def _add_rows(sums: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add (b, D) rows to those of ``sums`` (R, K, D) that ``index`` (R, b) names, in place."""
    if rows.device.type == "cpu":
        for own_sums, own_index in zip(sums, index):
            own_sums.index_add_(0, own_index, rows)
    else:
        _add_by_product(sums, index, rows)


def _add_by_product(sums: Tensor, index: Tensor, rows: Tensor) -> None:
    """As ``_add_rows``, by a product of matrices: on a GPU, ``index_add_`` adds in another order each time."""
    R, K, _ = sums.shape
    belongs = torch.zeros(R, K, len(rows), device=rows.device).scatter_(1, index[:, None], 1.0)
    sums += belongs @ rows


def _tiles(n_rows: int, n_centres: int, device: torch.device) -> list[slice]:
    budget = CPU_DISTANCES if device.type == "cpu" else GPU_DISTANCES
    side = max(budget // n_centres, 1)
    return [slice(first, first + side) for first in range(0, n_rows, side)]


def check_unit_length(vectors: VectorBlocks) -> None:
    """Raise if a vector of the first block is longer than one; zero vectors and half precision pass.

    Raises:
        DataError: One is.
    """
    longest = float(next(iter(vectors)).norm(dim=1).amax())
    if longest > LONGEST_UNIT:
        raise DataError(
            f"spherical k-means needs vectors of unit length, one has length {longest:.3g}; "
            "normalise them with torch.nn.functional.normalize(vectors, dim=1)"
        )
