"""Lloyd's k-means."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from gestalt.errors import DataError, ShapeError
from gestalt.features.kmeans import fit_kmeans, nearest_centre
from gestalt.runtime import torch_generator


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


def test_spherical_centres_have_unit_length() -> None:
    vectors = torch.nn.functional.normalize(blobs(), dim=1)
    centres = cluster(vectors, 6, spherical=True)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(6))


def test_the_seed_alone_decides() -> None:
    vectors = torch.randn(400, 6, generator=torch_generator(7))
    assert torch.equal(cluster(vectors, 9, seed=1), cluster(vectors, 9, seed=1))
    assert not torch.equal(cluster(vectors, 9, seed=1), cluster(vectors, 9, seed=2))


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        (torch.zeros(3, 2), DataError, "5 clusters need at least as many vectors. Got: 3"),
        (torch.full((9, 2), np.nan), DataError, "NaN"),
        (torch.zeros(9), ShapeError, r"vectors must be \(n, D\) float"),
    ],
)
def test_bad_vectors_are_refused(vectors: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit_kmeans(vectors, 5, restarts=1, max_steps=5, generator=torch_generator(0))
