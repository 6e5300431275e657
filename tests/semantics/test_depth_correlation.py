"""Depth as a target: its scale, where it is sampled, and what the published code makes of it."""

import math

import pytest
import torch

from gestalt.semantics.correspondence import draw_positions
from gestalt.semantics.depth_correlation import (
    decayed,
    decayed_side,
    decayed_side_as_published,
    depth_correlations,
    depth_loss,
    normalize_channel,
    resize_to_grid,
    sample_depth,
    sample_depth_as_published,
    scale_depth,
)

# Depths 2, 4, 8 m, and one that is unknown.
NEARNESS = torch.tensor([[[1 / 2, 1 / 4], [1 / 8, 0.0]]])


def test_depth_runs_from_zero_to_one_over_what_is_known() -> None:
    torch.testing.assert_close(scale_depth(NEARNESS, "log"), torch.tensor([[[0.0, 0.5], [1.0, 0.0]]]))
    torch.testing.assert_close(scale_depth(NEARNESS, "inverse"), torch.tensor([[[1.0, 1 / 3], [0.0, 0.0]]]))


@pytest.mark.parametrize("scale", ["log", "inverse"])
def test_a_map_of_one_depth_or_of_none_is_zero(scale: str) -> None:
    assert (scale_depth(torch.full((2, 3, 3), 0.1), scale) == 0).all()
    assert (scale_depth(torch.zeros(2, 3, 3), scale) == 0).all()


@pytest.mark.parametrize("scale", ["log", "inverse"])
def test_units_do_not_matter(scale: str) -> None:
    torch.testing.assert_close(scale_depth(NEARNESS, scale), scale_depth(NEARNESS * 1000, scale))


def test_correlations_by_hand() -> None:
    depth = torch.tensor([[0.0, 0.5, 1.0]])
    assert depth_correlations(depth, "difference")[0].tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
    assert depth_correlations(depth, "product")[0].tolist() == [[0, 0, 0], [0, 0.25, 0.5], [0, 0.5, 1]]


def test_depth_is_sampled_between_known_cells_only() -> None:
    depth, known = torch.tensor([[[0.2, 0.6, 0.9]]]), torch.tensor([[[True, True, False]]])
    positions = torch.tensor([[[-0.5, 0.0], [0.4, 0.0], [0.6, 0.0], [1.0, 0.0]]])
    values, is_known = sample_depth(depth, known, positions)
    assert is_known.tolist() == [[True, True, False, False]]
    # At 0.4 the unknown cell has 0.4 of the weight: its depth does not leak in.
    torch.testing.assert_close(values, torch.tensor([[0.4, 0.6, 0.0, 0.0]]))


def test_the_loss_is_a_mean_over_known_pairs() -> None:
    correlations = depth_correlations(torch.tensor([[0.0, 1.0, 0.5]]), "difference")
    known = torch.tensor([[True, True, False]])
    codes = torch.tensor([[[1.0, 0.5, 9.0], [-0.5, 1.0, 9.0], [9.0, 9.0, 9.0]]])
    # (1 - .3) 1, (0 - .3) .5, negative: nothing, (1 - .3) 1.
    assert float(depth_loss(correlations, known, codes, 0.3)) == pytest.approx(-(0.7 - 0.15 + 0.7) / 4)
    assert float(depth_loss(correlations, torch.zeros_like(known), codes, 0.3)) == 0


def test_published_depth_is_one_wherever_it_is_positive() -> None:
    values, known = sample_depth_as_published(scale_depth(NEARNESS, "log"), 3)
    assert known.all()
    assert values[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert normalize_channel(torch.tensor([[0.0, 1e-3, 0.7]])).tolist() == [[0, 1, 1]]


def test_published_depth_lies_on_a_regular_grid_wherever_codes_are_sampled() -> None:
    depth = torch.arange(12.0).reshape(1, 3, 4)
    assert resize_to_grid(depth, 2).tolist() == [[0, 3, 8, 11]]
    positions = draw_positions(1, 4, torch.Generator().manual_seed(0))
    ours, _ = sample_depth(depth, torch.ones(1, 3, 4, dtype=torch.bool), positions)
    assert not torch.allclose(ours, resize_to_grid(depth, 2))


def test_decays_by_hand() -> None:
    assert decayed(0.5, 0.8, 399, 400) == 0.5
    assert decayed(0.5, 0.8, 800, 400) == pytest.approx(0.32)
    assert [decayed_side(11, 0.9, step, 1000) for step in (0, 999, 1000, 2000, 10**6)] == [11, 11, 9, 8, 2]
    assert decayed_side(10, 0.9, 1000, 1000) == 9
    assert [decayed_side_as_published(11, 0.9, step, 1000) for step in (0, 999, 1000)] == [9, 9, 8]


def test_a_pair_of_one_depth_attracts_and_of_two_repels() -> None:
    codes = torch.full((1, 2, 2), 0.5).requires_grad_()
    targets = depth_correlations(torch.tensor([[0.0, 1.0]]), "difference")
    depth_loss(targets, torch.ones(1, 2, dtype=torch.bool), codes, 0.5).backward()
    assert codes.grad is not None
    assert codes.grad[0].sign().tolist() == [[-1, 1], [1, -1]]
    assert math.isfinite(float(codes.grad.sum()))
