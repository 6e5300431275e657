"""Occlusion by range map and by forward and backward displacements."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gestalt.config.optical_flow import OcclusionSettings
from gestalt.config.presets import default_settings
from gestalt.matching.occlusion import is_consistent, range_map, sample_batch, visibility
from gestalt.matching.warping import sample


@pytest.fixture(scope="module")
def by_range() -> OcclusionSettings:
    occlusion: OcclusionSettings = default_settings("optical_flow", "paper").occlusion
    return dataclasses.replace(occlusion, method="range_map", start_step=0)


def shift(x: float, y: float = 0.0) -> torch.Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, 6, 8).clone()


def test_a_zero_displacement_lands_once_everywhere() -> None:
    assert torch.equal(range_map(torch.zeros(2, 2, 5, 7)), torch.ones(2, 5, 7))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_whole_displacements_sum_to_the_pixels_that_stay_inside(seed: int) -> None:
    optical_flow = torch.randint(-5, 6, (2, 2, 6, 8), generator=torch.Generator().manual_seed(seed)).float()
    y, x = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    to_x, to_y = x + optical_flow[:, 0], y + optical_flow[:, 1]
    inside = (to_x >= 0) & (to_x < 8) & (to_y >= 0) & (to_y < 6)
    counts = range_map(optical_flow)
    assert torch.equal(counts.sum((1, 2)), inside.sum((1, 2)).float())
    expected = torch.zeros(2, 6, 8)
    for image, row, column in inside.nonzero().tolist():
        expected[image, int(to_y[image, row, column]), int(to_x[image, row, column])] += 1
    assert torch.equal(counts, expected)


def test_half_a_pixel_is_shared_by_two() -> None:
    counts = range_map(shift(0.5))[0]
    assert torch.equal(counts[:, 1:], torch.ones(6, 7))
    assert torch.equal(counts[:, 0], torch.full((6,), 0.5))


def test_the_batch_is_sampled_as_each_image_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, 6, 8, generator=generator)
    positions = torch.rand(3, 2, 4, 5, generator=generator) * 9 - 1
    positions[0, :, 0, 0] = torch.nan
    positions[1, :, 0, 0] = torch.tensor([7.0, 5.0])  # the last pixel
    samples, inside = sample_batch(images, positions)
    for index in range(3):
        alone, alone_inside = sample(images[index], positions[index])
        assert torch.equal(samples[index], alone)
        assert torch.equal(inside[index], alone_inside)


def test_there_and_back_is_consistent_and_chance_is_not() -> None:
    values = {"share": 0.01, "constant_px2": 0.5}
    there = is_consistent(shift(2, 1), shift(-2, -1), **values)[0]
    assert bool(there[:5, :6].all())
    assert not bool(there[5].any() | there[:, 6:].any())
    assert float(is_consistent(shift(2, 1), shift(2, 1), **values).sum()) == 0
    # 0.745^2 = 0.5550 < 0.5 + 0.01 (2^2 + 1.255^2) = 0.5558, but 0.75^2 = 0.5625 > 0.5556.
    assert bool(is_consistent(shift(2), shift(-1.255), **values)[0, 0, 0])
    assert not bool(is_consistent(shift(2), shift(-1.25), **values)[0, 0, 0])


def test_what_no_reverse_displacement_reaches_is_occluded(by_range: OcclusionSettings) -> None:
    backward = shift(0)
    backward[0, 0, :, 3] = 1.0  # column 3 of the other image lies at 4 here: nothing lands on 3
    seen = visibility(shift(0), backward, by_range, step=0)[0]
    assert torch.equal(seen[:, 3], torch.zeros(6))
    assert float(seen.sum()) == 6 * 7


def test_what_leaves_the_crop_is_not_occluded(by_range: OcclusionSettings) -> None:
    for method in ("range_map", "forward_backward"):
        own = dataclasses.replace(by_range, method=method)
        assert float(visibility(shift(3), shift(-3), own, step=0).min()) == 1
    # The same displacement without its reverse: only what leaves stays visible.
    blocked = dataclasses.replace(by_range, method="forward_backward")
    seen = visibility(shift(3), shift(3), blocked, step=0)[0]
    assert torch.equal(seen, (torch.arange(8) > 4).float().expand(6, 8))


def test_before_its_start_everything_is_visible(by_range: OcclusionSettings) -> None:
    late = dataclasses.replace(by_range, start_step=10)
    backward = shift(0)
    backward[0, 0, :, 3] = 1.0
    assert float(visibility(shift(0), backward, late, step=9).min()) == 1
    assert float(visibility(shift(0), backward, late, step=10).min()) == 0


def test_visibility_has_no_gradient(by_range: OcclusionSettings) -> None:
    forward = shift(0.5).requires_grad_()
    assert not visibility(forward, forward, by_range, step=0).requires_grad
