"""Points in space and the choice among them, against a plain greedy loop, and the published slips."""

import math

import pytest
import torch

from gestalt.errors import ShapeError
from gestalt.semantics.correspondence import sample_positions
from gestalt.semantics.farthest_points import (
    back_project,
    back_project_as_published,
    cells_to_positions,
    cells_to_positions_as_published,
    farthest_points,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def greedy(points: torch.Tensor, first: int, count: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        best, farthest = -1, -1.0
        for candidate in range(len(points)):
            nearest = min(math.dist(points[candidate].tolist(), points[other].tolist()) for other in chosen)
            if candidate not in chosen and nearest > farthest:
                best, farthest = candidate, nearest
        chosen.append(best)
    return chosen


def test_a_batch_is_chosen_as_one_set_after_the_other_would_be() -> None:
    points = torch.randn(3, 30, 3, generator=generator())
    chosen = farthest_points(points, torch.ones(3, 30, dtype=torch.bool), 8, generator(1))
    for number in range(3):
        assert chosen[number].tolist() == greedy(points[number], int(chosen[number, 0]), 8)


def test_points_are_distinct_even_where_all_coincide() -> None:
    chosen = farthest_points(torch.zeros(2, 9, 3), torch.ones(2, 9, dtype=torch.bool), 9, generator())
    assert (chosen.sort(1).values == torch.arange(9)).all()


def test_both_depths_of_a_scene_are_covered() -> None:
    nearness = torch.full((1, 6, 8), 1 / 5)
    nearness[:, :2, :2] = 1 / 50
    points = back_project(nearness, torch.tensor([8.0]), torch.tensor([[3.5, 2.5]]))
    chosen = farthest_points(points, torch.ones(1, 48, dtype=torch.bool), 6, generator())
    depths = points[0, chosen[0], 2]
    assert set(depths.round().tolist()) == {5, 50}


def test_unknown_cells_come_last() -> None:
    points = torch.randn(2, 12, 3, generator=generator())
    known = torch.arange(12)[None].expand(2, 12) < torch.tensor([[5], [12]])
    chosen = farthest_points(points, known, 8, generator())
    assert sorted(chosen[0, :5].tolist()) == [0, 1, 2, 3, 4]
    assert (chosen[0, 5:] >= 5).all()
    assert len(set(chosen[0].tolist())) == 8
    nothing = farthest_points(points, torch.zeros(2, 12, dtype=torch.bool), 12, generator())
    assert (nothing.sort(1).values == torch.arange(12)).all()


def test_more_points_than_cells_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"10 positions.*9 cells"):
        farthest_points(torch.zeros(1, 9, 3), torch.ones(1, 9, dtype=torch.bool), 10, generator())


def test_cells_are_lifted_with_the_camera() -> None:
    nearness = torch.tensor([[[0.5, 0.0, 0.1]]])
    points = back_project(nearness, torch.tensor([4.0]), torch.tensor([[1.0, -2.0]]))
    torch.testing.assert_close(points[0], torch.tensor([[-0.5, 1.0, 2.0], [0, 0, 0], [2.5, 5.0, 10.0]]))


def test_positions_of_cells_point_at_their_own_values_on_a_grid_that_is_not_square() -> None:
    maps = torch.arange(15.0).reshape(1, 1, 3, 5)
    cells = torch.randperm(15, generator=generator())[None]
    assert sample_positions(maps, cells_to_positions(cells, 3, 5))[0, 0].round().tolist() == cells[0].tolist()
    line = torch.arange(4)[None]
    values = sample_positions(torch.arange(4.0).reshape(1, 1, 4, 1), cells_to_positions(line, 4, 1))
    assert values.flatten().tolist() == pytest.approx([0, 1, 2, 3])


def test_published_positions_are_transposed() -> None:
    cells = torch.tensor([[3 * 8 + 1]])
    assert cells_to_positions_as_published(cells, 4, 8).tolist() == [[[3 / 4 * 2 - 1, 1 / 8 * 2 - 1]]]
    x, y = cells_to_positions(cells, 4, 8)[0, 0].tolist()
    assert (x, y) == pytest.approx((1 / 7 * 2 - 1, 1.0))


def test_published_points_have_a_field_of_view_of_an_angle_mistaken_for_radians() -> None:
    points = back_project_as_published(torch.full((1, 2, 4), 1 / 30)).reshape(2, 4, 3)
    # From the left border to the centre is half the width: 2 tan(45 rad) / 2 at depth 1, not tan(45 degrees) = 1.
    assert float(-points[0, 0, 0]) == pytest.approx(math.tan(45), abs=1e-5)
    assert float(points[0, 0, 2]) == pytest.approx(-5)
    ours = back_project(torch.full((1, 2, 4), 1.0), torch.tensor([2.0]), torch.tensor([[2.0, 1.0]]))
    assert float(-ours[0, 0, 0]) == pytest.approx(1)
