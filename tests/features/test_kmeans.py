"""Lloyd's k-means."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from gestalt.errors import DataError, ShapeError
from gestalt.features.kmeans import fit_kmeans, nearest_centre
from gestalt.runtime import choose_device, torch_generator


def blobs(n_blobs: int = 6, per_blob: int = 200, dimension: int = 5, spread: float = 0.1) -> torch.Tensor:
    generator = torch_generator(1, "blobs")
    centres = 3 * torch.randn(n_blobs, dimension, generator=generator)
    noise = spread * torch.randn(n_blobs, per_blob, dimension, generator=generator)
    return (centres[:, None] + noise).reshape(-1, dimension)


def cluster(vectors: torch.Tensor, n_clusters: int, seed: int = 0, **options: bool) -> torch.Tensor:
    return fit_kmeans(
        vectors, n_clusters, restarts=10, max_steps=100, generator=torch_generator(seed), **options
    ).centres


def test_separated_blobs_are_found_exactly() -> None:
    vectors = blobs()
    index, _ = nearest_centre(vectors, cluster(vectors, 6))
    by_blob = index.reshape(6, -1)
    assert (by_blob == by_blob[:, :1]).all()
    assert len(by_blob[:, 0].unique()) == 6


def test_objective_is_as_good_as_that_of_scikit_learn() -> None:
    vectors = torch.randn(3000, 8, generator=torch_generator(2))
    ours = fit_kmeans(vectors, 20, restarts=10, max_steps=100, generator=torch_generator(0))
    theirs = KMeans(20, n_init=10, random_state=0).fit(vectors.numpy())
    assert ours.inertia <= 1.01 * theirs.inertia_ / len(vectors)
    _, distance = nearest_centre(vectors, ours.centres)
    assert ours.inertia == pytest.approx(float(distance.mean()), rel=1e-5)


def test_lloyd_steps_equal_those_of_scikit_learn() -> None:
    vectors = torch.randn(2000, 8, generator=torch_generator(6))
    settings = {"restarts": 1, "generator": torch_generator(0)}
    seeds = fit_kmeans(vectors, 12, max_steps=0, **settings).centres
    for n_steps in (1, 4, 9):
        ours = fit_kmeans(vectors, 12, max_steps=n_steps, restarts=1, generator=torch_generator(0))
        theirs = KMeans(12, init=seeds.numpy(), n_init=1, max_iter=n_steps, tol=0).fit(vectors.numpy())
        assert ours.n_steps == n_steps
        torch.testing.assert_close(
            ours.centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-4, rtol=1e-4
        )


def test_restarts_side_by_side_equal_restarts_one_after_the_other() -> None:
    vectors = torch.randn(900, 4, generator=torch_generator(8))
    together = fit_kmeans(vectors, 7, restarts=5, max_steps=80, generator=torch_generator(9))
    generator = torch_generator(9)
    alone = [fit_kmeans(vectors, 7, restarts=1, max_steps=80, generator=generator) for _ in range(5)]
    best = min(alone, key=lambda run: run.inertia)
    assert torch.equal(together.centres, best.centres)
    assert together.n_steps == best.n_steps


def test_seeds_that_are_the_best_of_several_start_better() -> None:
    vectors = blobs(n_blobs=30, per_blob=40)
    inertia = {
        trials: [
            fit_kmeans(
                vectors, 30, restarts=1, max_steps=0, generator=torch_generator(seed), seed_trials=trials
            ).inertia
            for seed in range(5)
        ]
        for trials in (1, 5)
    }
    assert np.mean(inertia[5]) < np.mean(inertia[1])


def test_more_restarts_never_end_worse() -> None:
    vectors = torch.randn(500, 4, generator=torch_generator(3))
    runs = [
        fit_kmeans(vectors, 12, restarts=restarts, max_steps=50, generator=torch_generator(5)).inertia
        for restarts in (1, 3, 8)
    ]
    assert runs[0] >= runs[1] >= runs[2]


def test_assignment_and_distance_equal_brute_force() -> None:
    vectors, centres = torch.randn(50, 3), torch.randn(7, 3)
    index, distance = nearest_centre(vectors, centres)
    exact = (vectors[:, None] - centres[None]).square().sum(-1)
    torch.testing.assert_close(distance, exact.min(1).values, atol=1e-5, rtol=1e-5)
    assert (index == exact.argmin(1)).all()


def test_no_cluster_stays_empty_although_most_vectors_coincide() -> None:
    vectors = torch.cat([torch.zeros(200, 2), torch.randn(9, 2, generator=torch_generator(0)) + 5])
    result = fit_kmeans(vectors, 8, restarts=1, max_steps=50, generator=torch_generator(4))
    assert int(result.sizes.min()) > 0
    assert int(result.sizes.sum()) == len(vectors)


def test_constant_vectors_give_a_result_and_no_nan() -> None:
    result = fit_kmeans(torch.ones(40, 3), 5, restarts=2, max_steps=5, generator=torch_generator(0))
    assert torch.isfinite(result.centres).all()
    assert result.inertia == 0
    assert result.n_empty == 4


def test_fewer_distinct_vectors_than_clusters_are_on_record() -> None:
    vectors = torch.tensor([[0.1, 0.7], [0.3, 0.2], [5.0, 1.0]]).repeat(100, 1)
    result = fit_kmeans(vectors, 5, restarts=3, max_steps=20, generator=torch_generator(0))
    assert result.n_empty == 2
    assert sorted(result.sizes.tolist()) == [0, 0, 100, 100, 100]
    assert result.inertia == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(result.centres).all()


def test_an_empty_cluster_gathers_vectors_before_steps_end() -> None:
    # Nearly all vectors coincide, so seeds are duplicates; three far groups are left for re-seeded clusters.
    groups = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]]).repeat_interleave(3, 0)
    vectors = torch.cat([torch.zeros(9000, 2), groups + torch.tensor([[0.0], [0.1], [0.2]]).repeat(3, 1)])
    result = fit_kmeans(vectors, 4, restarts=1, max_steps=50, generator=torch_generator(1))
    assert sorted(result.sizes.tolist()) == [3, 3, 3, 9000]


def test_spherical_centres_have_unit_length() -> None:
    vectors = torch.nn.functional.normalize(blobs(), dim=1)
    centres = cluster(vectors, 6, spherical=True)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(6))
    assert torch.equal(nearest_centre(vectors, centres)[0], (vectors @ centres.T).argmax(1))


def test_spherical_clusters_need_unit_length() -> None:
    with pytest.raises(DataError, match=r"unit length, one has length .* normalise them"):
        cluster(blobs(), 6, spherical=True)


def test_a_mapped_file_gives_the_bytes_of_the_tensor(tmp_path: Path) -> None:
    vectors = torch.randn(700, 5, generator=torch_generator(2)).half()
    np.save(tmp_path / "vectors.npy", vectors.numpy())
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    settings = {"restarts": 2, "max_steps": 20}
    ours = fit_kmeans(mapped, 6, generator=torch_generator(0), **settings)
    assert torch.equal(ours.centres, fit_kmeans(vectors, 6, generator=torch_generator(0), **settings).centres)
    assert ours.centres.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_and_ends_at_the_same_centres() -> None:
    device = choose_device("auto")
    vectors = blobs()
    here = fit_kmeans(vectors, 6, restarts=4, max_steps=60, generator=torch_generator(0))
    there = [
        fit_kmeans(vectors.to(device), 6, restarts=4, max_steps=60, generator=torch_generator(0))
        for _ in range(2)
    ]
    assert torch.equal(there[0].centres, there[1].centres)
    torch.testing.assert_close(there[0].centres.cpu(), here.centres, atol=1e-4, rtol=1e-4)


def test_the_seed_alone_decides() -> None:
    vectors = torch.randn(400, 6, generator=torch_generator(7))
    assert torch.equal(cluster(vectors, 9, seed=1), cluster(vectors, 9, seed=1))
    assert not torch.equal(cluster(vectors, 9, seed=1), cluster(vectors, 9, seed=2))


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        (torch.zeros(3, 2), DataError, "5 clusters need at least as many vectors. Got: 3"),
        (torch.full((9, 2), np.nan), DataError, "NaN"),
        (torch.zeros(0, 2), DataError, "Got: 0"),
        (torch.zeros(9), ShapeError, r"vectors must be \(n, D\) float"),
    ],
)
def test_bad_vectors_are_refused(vectors: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit_kmeans(vectors, 5, restarts=1, max_steps=5, generator=torch_generator(0))
