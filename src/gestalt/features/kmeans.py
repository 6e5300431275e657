"""K-means in torch: k-means++ seeds, restarts side by side, empty clusters re-seeded, Euclidean or spherical.

Lloyd's steps over all vectors, or mini-batches where there are too many of them (``gestalt.features.mini_batch``).
Everything happens on the device of the vectors, in blocks; chance comes from a CPU generator, so that draws are
the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import DataError
from gestalt.features.assignment import (
    Assignment,
    assign,
    check_unit_length,
    farthest_vectors,
    nearest_centre,
)
from gestalt.features.mini_batch import MINI_BATCH, MiniBatch, draw_rows, refine_by_batches
from gestalt.features.vector_blocks import VectorBlocks, Vectors

__all__ = ["MINI_BATCH", "Clustering", "MiniBatch", "fit_kmeans", "nearest_centre"]

# k-means++ looks at this many vectors, or this many per cluster if that is more: seeding costs as much as Lloyd's
# steps otherwise and gains nothing.
SEEDING_VECTORS, SEEDING_VECTORS_PER_CLUSTER = 5000, 20
# Lloyd stops when the objective falls by less than this share.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Clustering:
    """Result of ``fit_kmeans``.

    Attributes:
        centres: (K, D) float32, on the device of the vectors.
        inertia: Mean squared distance of a vector to its centre.
        sizes: (K,) int64, vectors of each cluster; 0 only where fewer than K distinct vectors exist, or steps ran
            out before a cluster was filled again.
        n_steps: Lloyd steps of the best restart, or mini-batches.
    """

    centres: Tensor
    inertia: float
    sizes: Tensor
    n_steps: int

    @property
    def n_empty(self) -> int:
        """Clusters that hold no vector."""
        return int((self.sizes == 0).sum())


def fit_kmeans(
    vectors: Vectors,
    n_clusters: int,
    *,
    restarts: int,
    max_steps: int,
    generator: torch.Generator,
    spherical: bool = False,
    seed_trials: int = 1,
    mini_batch: MiniBatch | None = MINI_BATCH,
    device: torch.device | str = "cpu",
) -> Clustering:
    """The best of ``restarts`` runs.

    Args:
        vectors: (n, D) float; of unit length if ``spherical``. An array may be mapped from a file and larger than
            the memory.
        n_clusters: K.
        restarts: Independent starts; the one with the smallest inertia wins, the earlier one on a tie.
        max_steps: Lloyd steps of a start at most; mini-batches have a limit of their own.
        generator: CPU generator; the only source of chance.
        spherical: Centres are kept at unit length, so that the nearest centre has the largest cosine.
        seed_trials: Vectors that k-means++ draws for each seed, of which it takes the one that leaves the smallest
            inertia. 1 is the plain method; about 2 + log K is the greedy one, whose optima are 1 to 4 % better in
            ``benchmarks/kmeans.py``.
        mini_batch: How more than ``mini_batch.above`` vectors are clustered; None takes Lloyd's steps whatever
            their number.
        device: Where an array is computed; a tensor stays where it is.

    Raises:
        ShapeError: ``vectors`` is not (n, D) float.
        DataError: There are fewer vectors than clusters, or a vector is not finite, or not of unit length where
            it has to be.
    """
    blocks = VectorBlocks(vectors, torch.device(device))
    if n_clusters < 1:
        raise DataError(f"k-means needs at least one cluster. Got: {n_clusters}")
    if len(blocks) < n_clusters:
        raise DataError(f"{n_clusters} clusters need at least as many vectors. Got: {len(blocks)}")
    if restarts < 1 or seed_trials < 1:
        raise DataError(f"k-means needs at least one restart and seed trial. Got: {restarts}, {seed_trials}")
    if spherical:
        check_unit_length(blocks)
    seeds = torch.stack([_seed(blocks, n_clusters, seed_trials, generator) for _ in range(restarts)])
    if mini_batch is None or len(blocks) <= mini_batch.above:
        return _best(_run_lloyd(blocks, seeds, max_steps, spherical))
    sample = VectorBlocks(draw_rows(blocks, mini_batch.sample, mini_batch.run, generator))
    start = _best(_run_lloyd(sample, seeds, max_steps, spherical))
    centres, n_steps = refine_by_batches(blocks, start.centres, start.sizes, mini_batch, generator, spherical)
    return _clustering(centres[None], assign(blocks, centres[None]), 0, n_steps)


def _best(runs: Sequence[Clustering]) -> Clustering:
    return min(runs, key=lambda run: run.inertia)


def _run_lloyd(vectors: VectorBlocks, centres: Tensor, max_steps: int, spherical: bool) -> list[Clustering]:
    """Lloyd's steps of all restarts at once; one that has converged takes part no more.

    Args:
        vectors: n of them, D each.
        centres: (R, K, D) float32, the seeds.
        max_steps: Of each restart.
        spherical: Centres are kept at unit length.
    """
    found = assign(vectors, centres)
    results = {run: _clustering(centres, found, run, 0) for run in range(len(centres))}
    active = list(range(len(centres)))
    for step in range(1, max_steps + 1):
        centres, is_reseeded = _move(vectors, centres, found, spherical)
        before, found = found.inertia, assign(vectors, centres)
        for place, run in enumerate(active):
            results[run] = _clustering(centres, found, place, step)
        # A cluster that was filled again needs another step to gather its vectors.
        going_on = (before - found.inertia > TOLERANCE * before) | is_reseeded
        if not bool(going_on.any()):
            break
        active = [run for run, goes_on in zip(active, going_on.tolist()) if goes_on]
        kept = going_on.nonzero().flatten()
        centres, found = centres[kept.to(centres.device)], _choose(found, kept)
    return [results[run] for run in sorted(results)]


def _clustering(centres: Tensor, found: Assignment, place: int, n_steps: int) -> Clustering:
    return Clustering(centres[place], float(found.inertia[place]), found.sizes[place], n_steps)


def _choose(found: Assignment, kept: Tensor) -> Assignment:
    own = kept.to(found.sums.device)
    return Assignment(found.sums[own], found.sizes[own], found.inertia[kept])


def _move(
    vectors: VectorBlocks, centres: Tensor, found: Assignment, spherical: bool
) -> tuple[Tensor, Tensor]:
    """Means of the vectors of each centre, (R, K, D), and which restarts had a cluster filled again, (R,) bool.

    An empty cluster starts anew at the vector that fits worst; where all vectors coincide with a centre, it keeps
    the centre that it had.
    """
    means = (found.sums / found.sizes.clamp(min=1)[..., None]).float()
    moved = torch.where((found.sizes > 0)[..., None], means, centres)
    is_reseeded = torch.zeros(len(centres), dtype=torch.bool)
    for run in (found.sizes == 0).any(1).nonzero().flatten().tolist():
        empty = (found.sizes[run] == 0).nonzero().flatten()
        fresh = farthest_vectors(vectors, centres[run], len(empty))
        moved[run, empty[: len(fresh)]] = fresh
        is_reseeded[run] = len(fresh) > 0
    return (functional.normalize(moved, dim=2) if spherical else moved), is_reseeded


def _seed(vectors: VectorBlocks, n_clusters: int, trials: int, generator: torch.Generator) -> Tensor:
    """(K, D) vectors chosen by k-means++: far ones are likelier.

    Source: Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding" (SODA 2007), which also proposes
    to draw several vectors at each step and keep the best.
    """
    n = len(vectors)
    n_seeding = min(max(SEEDING_VECTORS, SEEDING_VECTORS_PER_CLUSTER * n_clusters), n)
    # A permutation of very many numbers would take more memory than the blocks.
    drawn = (
        torch.randperm(n, generator=generator)[:n_seeding]
        if n <= MINI_BATCH.above
        else torch.randint(n, (n_seeding,), generator=generator)
    )
    subset = vectors.rows(drawn)
    chosen = [int(torch.randint(n_seeding, (1,), generator=generator))]
    distance = (subset - subset[chosen[0]]).square().sum(1)
    for _ in range(n_clusters - 1):
        # Where all vectors coincide with a centre any will do; multinomial refuses all-zero weights.
        weights = distance if float(distance.max()) > 0 else torch.ones_like(distance)
        drawn = torch.multinomial(weights.cpu(), trials, replacement=trials > 1, generator=generator)
        left = [torch.minimum(distance, (subset - subset[trial]).square().sum(1)) for trial in drawn.tolist()]
        best = int(torch.stack(left).sum(1).argmin())
        chosen.append(int(drawn[best]))
        distance = left[best]
    return subset[chosen]
