"""K-means by mini-batches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.features.assignment import assign
from gestalt.features.kmeans import MINI_BATCH, Clustering, fit_kmeans, nearest_centre
from gestalt.features.mini_batch import MiniBatch, draw_rows, refine_by_batches
from gestalt.features.vector_blocks import VectorBlocks, Vectors
from gestalt.runtime import torch_generator

SMALL = dataclasses.replace(MINI_BATCH, above=1000, sample=4096, size=1024, run=8)


def planted(n: int = 24_000, dimension: int = 6, kinds: int = 9) -> torch.Tensor:
    """Overlapping clusters one after the other, as rows of a file are sorted by image."""
    generator = torch_generator(3, "planted")
    centres = 2 * torch.randn(kinds, dimension, generator=generator)
    return centres.repeat_interleave(n // kinds + 1, 0)[:n] + torch.randn(n, dimension, generator=generator)


def cluster(
    vectors: Vectors, mini_batch: MiniBatch | None, *, n_clusters: int = 9, spherical: bool = False
) -> Clustering:
    return fit_kmeans(
        vectors, n_clusters, restarts=4, max_steps=60, generator=torch_generator(0), spherical=spherical,
        mini_batch=mini_batch,
    )  # fmt: skip


def test_inertia_comes_within_two_percent_of_that_of_all_vectors() -> None:
    vectors = planted()
    full, quick = cluster(vectors, None), cluster(vectors, SMALL)
    assert quick.inertia <= 1.02 * full.inertia
    index, distance = nearest_centre(vectors, quick.centres)
    assert quick.inertia == pytest.approx(float(distance.mean()), rel=1e-5)
    assert torch.equal(quick.sizes, torch.bincount(index, minlength=9))
    assert SMALL.window < quick.n_steps < SMALL.max_steps


def test_a_mapped_file_gives_the_bytes_of_the_tensor(tmp_path: Path) -> None:
    vectors = planted(4000)
    np.save(tmp_path / "vectors.npy", vectors.numpy())
    mapped = cluster(np.load(tmp_path / "vectors.npy", mmap_mode="r"), SMALL)
    assert torch.equal(mapped.centres, cluster(vectors, SMALL).centres)


def test_batches_are_for_many_vectors_only() -> None:
    vectors = planted(3000)
    few = cluster(vectors, dataclasses.replace(SMALL, above=3000))
    assert torch.equal(few.centres, cluster(vectors, None).centres)
    assert not torch.equal(few.centres, cluster(vectors, dataclasses.replace(SMALL, above=2999)).centres)


def test_spherical_centres_stay_at_unit_length_and_hold_their_blobs() -> None:
    vectors = torch.nn.functional.normalize(planted(), dim=1)
    full, quick = cluster(vectors, None, spherical=True), cluster(vectors, SMALL, spherical=True)
    torch.testing.assert_close(quick.centres.norm(dim=1), torch.ones(9))
    assert quick.inertia <= 1.02 * full.inertia


def test_a_cluster_without_vectors_is_placed_anew() -> None:
    vectors = VectorBlocks(planted(6000, dimension=2, kinds=2))
    start = torch.tensor([[0.0, 0.0], [900.0, 900.0], [-900.0, 900.0]])
    centres, n_steps = refine_by_batches(
        vectors, start, torch.full((3,), 100), SMALL, torch_generator(1), spherical=False
    )
    assert int(assign(vectors, centres[None]).sizes.min()) > 0
    # The window in which it was placed anew is not the last one.
    assert n_steps >= 2 * SMALL.window


def test_batches_are_drawn_in_runs_from_everywhere() -> None:
    rows = draw_rows(VectorBlocks(torch.arange(1000.0)[:, None]), 4000, 8, torch_generator(0)).flatten()
    assert (rows.reshape(-1, 8).diff(dim=1) == 1).all()
    assert float(rows.min()) < 20
    assert float(rows.max()) > 980
    few = draw_rows(VectorBlocks(torch.arange(3.0)[:, None]), 5, 8, torch_generator(0)).flatten()
    assert few.tolist() == [0, 1, 2, 0, 1, 2]


def test_constant_vectors_end_with_empty_clusters_on_record() -> None:
    found = cluster(torch.ones(3000, 2), SMALL, n_clusters=3)
    assert found.inertia == 0
    assert found.n_empty == 2
    assert torch.isfinite(found.centres).all()
