"""The eigen-solver against the dense generalised problem it stands for."""

import numpy as np
import pytest
from scipy.linalg import eigh

from gestalt.baselines.patch_graph import PatchGraph, normalized_cut


def blobs(seed: int, sizes: tuple[int, ...] = (40, 25, 15), noise: float = 0.5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((len(sizes), 8))
    points = np.repeat(centres, sizes, axis=0)
    return points + noise * generator.standard_normal(points.shape)


@pytest.mark.parametrize("seed", range(6))
def test_the_vector_is_the_second_of_the_dense_generalised_problem(seed: int) -> None:
    graph = PatchGraph.from_features(blobs(seed), tau=0.3, weak_edge=1e-3)
    affinity = np.where(graph.alike > 0, 1.0, 1e-3)
    degrees = np.diag(affinity.sum(1))
    values, vectors = eigh(degrees - affinity, degrees)
    cut = normalized_cut(graph, np.random.default_rng(0), tolerance=1e-6)
    assert cut is not None
    assert cut.affinity == pytest.approx(1 - values[1], abs=1e-4)
    assert values[2] - values[1] > 1e-3, "the example has no gap, the vector would be arbitrary"
    cosine = vectors[:, 1] @ cut.vector / np.linalg.norm(vectors[:, 1]) / np.linalg.norm(cut.vector)
    assert abs(cosine) > 0.999


def test_the_strongest_entry_is_positive_and_the_start_does_not_matter() -> None:
    graph = PatchGraph.from_features(blobs(1), tau=0.3, weak_edge=1e-5)
    cuts = [normalized_cut(graph, np.random.default_rng(seed), tolerance=1e-6) for seed in range(3)]
    for cut in cuts:
        assert cut is not None
        assert cut.vector[np.abs(cut.vector).argmax()] > 0
        assert np.allclose(cut.vector, cuts[0].vector, atol=1e-3 * np.abs(cut.vector).max())


def test_products_with_implicit_weak_edges_equal_the_matrix() -> None:
    graph = PatchGraph.from_features(blobs(2), tau=0.3, weak_edge=0.05)
    affinity = np.where(graph.alike > 0, 1.0, 0.05)
    vector = np.random.default_rng(0).standard_normal(len(affinity))
    assert np.allclose(graph.weigh(vector), affinity @ vector, atol=1e-4)


def test_removing_nodes_is_building_the_graph_of_the_others() -> None:
    features = blobs(3)
    removed = np.random.default_rng(0).random(len(features)) < 0.3
    without = PatchGraph.from_features(features, 0.3, 1e-5).without(removed)
    assert np.array_equal(without.alike, PatchGraph.from_features(features[~removed], 0.3, 1e-5).alike)


def test_a_patch_without_features_is_like_no_other() -> None:
    graph = PatchGraph.from_features(np.vstack([np.zeros(4), np.ones((3, 4))]), tau=0.1, weak_edge=1e-5)
    assert not graph.alike[0].any()
    assert graph.alike[1:, 1:].all()


def test_a_graph_of_three_patches_has_no_cut() -> None:
    graph = PatchGraph.from_features(np.eye(3), tau=0.1, weak_edge=1e-5)
    assert normalized_cut(graph, np.random.default_rng(0), tolerance=1e-3) is None
