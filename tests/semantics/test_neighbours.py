"""Nearest neighbours against scikit-learn, in blocks, groups left out."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from gestalt.errors import DataError, ShapeError
from gestalt.semantics.neighbours import NeighbourIndex, find_neighbours


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [4096, 8, 5])
def test_they_are_those_of_scikit_learn(block: int) -> None:
    queries, candidates = vectors(23), vectors(41, 1)
    found = find_neighbours(
        queries,
        candidates,
        6,
        query_groups=torch.arange(23),
        candidate_groups=torch.full((41,), -1),
        block=block,
    )
    reference = NearestNeighbors(n_neighbors=6, metric="cosine").fit(candidates.numpy())
    distances, indices = reference.kneighbors(queries.numpy())
    assert found.indices.tolist() == indices.tolist()
    torch.testing.assert_close(found.similarities, torch.from_numpy(1 - distances))


@pytest.mark.parametrize("block", [4096, 4])
def test_a_group_is_no_neighbour_of_its_own(block: int) -> None:
    points = vectors(20)
    groups = torch.arange(20) // 5
    found = find_neighbours(points, points, 15, query_groups=groups, candidate_groups=groups, block=block)
    assert (groups[found.indices] != groups[:, None]).all()
    alone = find_neighbours(
        points, points, 19, query_groups=torch.arange(20), candidate_groups=torch.arange(20), block=block
    )
    assert (alone.indices.sort(1).values != torch.arange(20)[:, None]).all()
    assert (alone.similarities.diff(dim=1) <= 0).all()


def test_lengths_do_not_matter() -> None:
    points, groups = vectors(12), torch.arange(12)
    scaled = points * torch.rand(12, 1, generator=torch.Generator().manual_seed(2)).add(0.1)
    plain, other = (
        find_neighbours(values, values, 3, query_groups=groups, candidate_groups=groups).indices
        for values in (points, scaled)
    )
    assert torch.equal(plain, other)


def test_missing_neighbours_are_marked_and_never_drawn() -> None:
    groups = torch.tensor([0, 0, 0, 1])
    found = find_neighbours(vectors(4), vectors(4), 3, query_groups=groups, candidate_groups=groups)
    assert found.indices[:3].tolist() == [[3, -1, -1]] * 3
    drawn = found.draw(torch.zeros(100, dtype=torch.int64), 7, torch.Generator().manual_seed(0))
    assert (drawn == 3).all()


def test_positives_come_from_the_first_ranks_alike() -> None:
    index = NeighbourIndex(torch.tensor([[4, 9, 2, 7]]), torch.zeros(1, 4))
    drawn = index.draw(torch.zeros(3000, dtype=torch.int64), 3, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=10)
    assert counts[7] == 0
    assert (counts[[4, 9, 2]] - 1000).abs().max() < 120


def test_bad_input_is_named() -> None:
    points = vectors(4)
    with pytest.raises(DataError, match="no other crop"):
        find_neighbours(points, points, 2, query_groups=torch.zeros(4), candidate_groups=torch.zeros(4))
    with pytest.raises(DataError, match="NaN"):
        find_neighbours(
            points * torch.nan, points, 2, query_groups=torch.arange(4), candidate_groups=torch.arange(4)
        )
    with pytest.raises(ShapeError, match=r"\(4, 7\), \(4, 3\)"):
        find_neighbours(
            points, points[:, :3], 2, query_groups=torch.arange(4), candidate_groups=torch.arange(4)
        )
    with pytest.raises(ShapeError, match="group"):
        find_neighbours(points, points, 2, query_groups=torch.arange(3), candidate_groups=torch.arange(4))
