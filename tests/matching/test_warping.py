"""The one warp."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gestalt.errors import ShapeError
from gestalt.matching.warping import sample, warp


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


def test_values_between_pixels_are_those_of_an_independent_bilinear_sampler() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 9, 13, generator=generator)
    positions = torch.rand(2, 7, 11, generator=generator) * torch.tensor([12.0, 8.0])[:, None, None]
    # The last row and column have no neighbour beyond.
    positions[:, 0, 0], positions[:, 0, 1] = torch.tensor([12.0, 8.0]), torch.tensor([12.0, 3.5])
    found, inside = sample(image, positions)
    grid = positions.permute(1, 2, 0) / torch.tensor([12.0, 8.0]) * 2 - 1
    expected = functional.grid_sample(image[None], grid[None], align_corners=True)[0]
    assert bool(inside.all())
    assert torch.allclose(found, expected, atol=1e-5)
    nearest, _ = sample(image, positions, nearest=True)
    column, row = (positions + 0.5).long()
    assert torch.equal(nearest, image[:, row, column])


def test_unknown_optical_flow_leads_outside() -> None:
    optical_flow = torch.zeros(2, 4, 5)
    optical_flow[0, 1, 2] = torch.nan
    _, inside = warp(torch.ones(1, 4, 5), optical_flow)
    assert not bool(inside[1, 2])
    assert int(inside.sum()) == 19


def test_different_sizes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 4, 5\) and \(2, 4, 6\)"):
        warp(torch.ones(1, 4, 5), torch.zeros(2, 4, 6))
