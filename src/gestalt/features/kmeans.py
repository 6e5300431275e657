"""Lloyd's k-means in torch: k-means++ seeds, restarts, empty clusters re-seeded, Euclidean or spherical."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.errors import DataError, ShapeError

# k-means++ looks at this many vectors: seeding costs as much as Lloyd's steps otherwise and gains nothing.
SEEDING_VECTORS = 5000
# Lloyd stops when the objective falls by less than this share.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Clustering:
    """Result of ``fit_kmeans``.

    Attributes:
        centres: (K, D) float.
        inertia: Mean squared distance of a vector to its centre.
        sizes: (K,) int64, vectors of each cluster.
        n_steps: Lloyd steps of the best restart.
    """

    centres: Tensor
    inertia: float
    sizes: Tensor
    n_steps: int


def fit_kmeans(
    vectors: Tensor,
    n_clusters: int,
    *,
    restarts: int,
    max_steps: int,
    generator: torch.Generator,
    spherical: bool = False,
) -> Clustering:
    """The best of ``restarts`` runs.

    Args:
        vectors: (n, D) float; of unit length if ``spherical``.
        n_clusters: K.
        restarts: Independent starts; the one with the smallest inertia wins, the earlier one on a tie.
        max_steps: Lloyd steps of a start at most.
        generator: CPU generator; the only source of chance.
        spherical: Centres are kept at unit length, so that the nearest centre has the largest cosine.

    Raises:
        ShapeError: ``vectors`` is not (n, D) float.
        DataError: There are fewer vectors than clusters, or a vector is not finite.
    """
    if vectors.ndim != 2 or not vectors.is_floating_point():
        raise ShapeError(f"vectors must be (n, D) float. Got: {tuple(vectors.shape)} {vectors.dtype}")
    if len(vectors) < n_clusters:
        raise DataError(f"{n_clusters} clusters need at least as many vectors. Got: {len(vectors)}")
    if not bool(torch.isfinite(vectors).all()):
        raise DataError("vectors hold NaN or infinity: the features or the disparity behind them are broken")
    if restarts < 1:
        raise DataError(f"k-means needs at least one restart. Got: {restarts}")
    runs = [_run(vectors, n_clusters, max_steps, generator, spherical) for _ in range(restarts)]
    return min(runs, key=lambda run: run.inertia)


def nearest_centre(vectors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index (n,) of the nearest centre and squared Euclidean distance (n,) to it."""
    half = torch.addmm(centres.square().sum(1) / 2, vectors, centres.T, alpha=-1)
    smallest, index = half.min(1)
    return index, (vectors.square().sum(1) + 2 * smallest).clamp(min=0)


def _run(
    vectors: Tensor, n_clusters: int, max_steps: int, generator: torch.Generator, spherical: bool
) -> Clustering:
    centres = _seed(vectors, n_clusters, generator)
    index, distance = nearest_centre(vectors, centres)
    inertia = float(distance.mean(dtype=torch.float64))
    step = 0
    for step in range(1, max_steps + 1):  # noqa: B007
        centres = _move(vectors, index, distance, n_clusters, spherical)
        index, distance = nearest_centre(vectors, centres)
        before, inertia = inertia, float(distance.mean(dtype=torch.float64))
        if before - inertia <= TOLERANCE * before:
            break
    return Clustering(centres, inertia, torch.bincount(index, minlength=n_clusters), step)


def _seed(vectors: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    n_seeding = max(min(SEEDING_VECTORS, len(vectors)), n_clusters)
    subset = vectors[torch.randperm(len(vectors), generator=generator)[:n_seeding]]
    chosen = [int(torch.randint(n_seeding, (1,), generator=generator))]
    distance = (subset - subset[chosen[0]]).square().sum(1)
    for _ in range(n_clusters - 1):
        # Where all vectors coincide with a centre any will do; multinomial refuses all-zero weights.
        weights = distance if float(distance.max()) > 0 else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        distance = torch.minimum(distance, (subset - subset[chosen[-1]]).square().sum(1))
    return subset[chosen]


def _move(vectors: Tensor, index: Tensor, distance: Tensor, n_clusters: int, spherical: bool) -> Tensor:
    sizes = torch.bincount(index, minlength=n_clusters)
    centres = torch.zeros(n_clusters, vectors.shape[1]).index_add_(0, index, vectors)
    centres /= sizes.clamp(min=1)[:, None]
    empty = torch.nonzero(sizes == 0).flatten()
    if len(empty):
        # The vectors that fit worst found new clusters.
        centres[empty] = vectors[distance.argsort(descending=True, stable=True)[: len(empty)]]
    if spherical:
        centres = torch.nn.functional.normalize(centres, dim=1)
    return centres
