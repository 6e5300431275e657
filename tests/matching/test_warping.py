"""The one warp."""

from __future__ import annotations

import pytest
import torch

from gestalt.errors import ShapeError
from gestalt.matching.warping import warp


def test_a_zero_optical_flow_returns_the_input_exactly() -> None:
    image = torch.rand(3, 17, 23)
    for nearest in (False, True):
        warped, inside = warp(image, torch.zeros(2, 17, 23), nearest=nearest)
        assert torch.equal(warped, image)
        assert bool(inside.all())


def test_a_whole_number_optical_flow_is_an_array_shift() -> None:
    image = torch.rand(1, 12, 15)
    optical_flow = torch.zeros(2, 12, 15)
    optical_flow[0], optical_flow[1] = 3, -2
    for nearest in (False, True):
        warped, inside = warp(image, optical_flow, nearest=nearest)
        assert torch.equal(warped[:, 2:, :12], image[:, :10, 3:])
        assert torch.equal(
            inside,
            torch.zeros(12, 15, dtype=torch.bool).index_fill_(0, torch.arange(2, 12), True)
            & (torch.arange(15) < 12),
        )
        assert float(warped[:, ~inside].abs().max()) == 0


def test_half_a_pixel_is_the_mean_of_neighbours() -> None:
    image = torch.arange(5.0).expand(1, 4, 5).clone()
    optical_flow = torch.zeros(2, 4, 5)
    optical_flow[0] = 0.5
    warped, inside = warp(image, optical_flow)
    assert torch.allclose(warped[0, :, :4], image[0, :, :4] + 0.5)
    assert not bool(inside[:, 4].any())


def test_unknown_optical_flow_leads_outside() -> None:
    optical_flow = torch.zeros(2, 4, 5)
    optical_flow[0, 1, 2] = torch.nan
    _, inside = warp(torch.ones(1, 4, 5), optical_flow)
    assert not bool(inside[1, 2])
    assert int(inside.sum()) == 19


def test_different_sizes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 4, 5\) and \(2, 4, 6\)"):
        warp(torch.ones(1, 4, 5), torch.zeros(2, 4, 6))
