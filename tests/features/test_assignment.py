"""Vectors and their nearest centres."""

import pytest
import torch

from gestalt.features import assignment, vector_blocks
from gestalt.features.assignment import assign, farthest_vectors, nearest_centre
from gestalt.features.vector_blocks import VectorBlocks
from gestalt.runtime import torch_generator


def exact_distances(vectors: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return (vectors[:, None].double() - centres.double()).square().sum(-1)


def test_sums_sizes_and_inertia_of_several_sets_equal_brute_force() -> None:
    generator = torch_generator(0)
    vectors, centres = torch.randn(70, 3, generator=generator), torch.randn(4, 6, 3, generator=generator)
    found = assign(VectorBlocks(vectors), centres)
    for run in range(4):
        distance, index = exact_distances(vectors, centres[run]).min(1)
        belongs = torch.nn.functional.one_hot(index, 6)
        torch.testing.assert_close(
            found.sums[run], belongs.T.double() @ vectors.double(), atol=1e-5, rtol=1e-5
        )
        assert torch.equal(found.sizes[run], belongs.sum(0))
        assert float(found.inertia[run]) == pytest.approx(float(distance.mean()), rel=1e-6)


def test_small_blocks_and_tiles_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch_generator(1)
    vectors, centres = torch.randn(501, 8, generator=generator), torch.randn(3, 5, 8, generator=generator)
    whole, nearest = assign(VectorBlocks(vectors), centres), nearest_centre(vectors, centres[0])
    monkeypatch.setattr(vector_blocks, "BLOCK", 100)
    monkeypatch.setattr(assignment, "CPU_DISTANCES", 15 * 9)
    parts, nearest_parts = assign(VectorBlocks(vectors), centres), nearest_centre(vectors, centres[0])
    torch.testing.assert_close(parts.sums, whole.sums, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(parts.inertia, whole.inertia, rtol=1e-6, atol=0)
    assert torch.equal(parts.sizes, whole.sizes)
    assert torch.equal(nearest_parts[0], nearest[0])


def test_a_gpu_adds_up_as_a_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch_generator(4)
    vectors, centres = torch.randn(90, 4, generator=generator), torch.randn(3, 5, 4, generator=generator)
    here = assign(VectorBlocks(vectors), centres)
    monkeypatch.setattr(assignment, "_add_rows", assignment._add_by_product)
    torch.testing.assert_close(assign(VectorBlocks(vectors), centres).sums, here.sums, atol=1e-5, rtol=1e-5)


def test_many_vectors_of_one_value_sum_up_without_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_blocks, "BLOCK", 1000)
    n, value = 300_000, 0.1
    found = assign(VectorBlocks(torch.full((n, 1), value)), torch.zeros(1, 1, 1))
    # One sum in single precision would be off by a share of about 1e-3.
    assert float(found.sums) == pytest.approx(float(torch.tensor(value)) * n, rel=3e-5)


def test_the_first_of_equally_near_centres_wins() -> None:
    index, _ = nearest_centre(torch.zeros(3, 2), torch.tensor([[1.0, 0], [0, 1], [0, 1]]))
    assert index.tolist() == [0, 0, 0]


def test_no_vector_has_no_centre() -> None:
    index, distance = nearest_centre(torch.zeros(0, 2), torch.zeros(3, 2))
    assert index.shape == distance.shape == (0,)


def test_new_places_are_far_from_centres_and_from_each_other() -> None:
    # By distance to the centre alone, the two at 10 would come first.
    vectors = torch.tensor([[0.0], [1.0], [9.9], [10.0], [-6.0], [-6.0]])
    assert farthest_vectors(VectorBlocks(vectors), torch.zeros(1, 1), 2).flatten().tolist() == [10.0, -6.0]


def test_fewer_places_come_back_where_the_rest_coincides() -> None:
    vectors = torch.tensor([[0.3, 0.1]]).repeat(50, 1)
    vectors[7] = 5.0
    found = farthest_vectors(VectorBlocks(vectors), vectors[:1].clone(), 4)
    assert found.tolist() == [[5.0, 5.0]]
    assert farthest_vectors(VectorBlocks(vectors[8:]), vectors[:1], 4).shape == (0, 2)


def test_the_farthest_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_blocks, "BLOCK", 16)
    monkeypatch.setattr(assignment, "CANDIDATES", 4)
    vectors = torch.randn(100, 3, generator=torch_generator(2))
    (farthest,) = farthest_vectors(VectorBlocks(vectors), torch.zeros(1, 3), 1)
    assert torch.equal(farthest, vectors[vectors.norm(dim=1).argmax()])
