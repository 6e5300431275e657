"""Noise estimate, forward-backward test, depth edges."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings
from gestalt.motion.consistency import assess, consistent, depth_edges
from gestalt.motion.geometry import Camera
from gestalt.motion.noise import Noise, estimate_noise, gaussian_std


@pytest.fixture(scope="module")
def paper() -> MotionSettings:
    loaded = default_settings("motion", "paper")
    assert isinstance(loaded, MotionSettings)
    return loaded


@pytest.mark.parametrize("estimator", ["truncated", "median"])
@pytest.mark.parametrize("std", [2.5, 4.0, 6.0])
def test_a_known_deviation_is_recovered_within_fifteen_percent(
    std: float, estimator: str, paper: MotionSettings
) -> None:
    residuals = std * 2**0.5 * torch.randn(40000, generator=torch.Generator().manual_seed(3))
    found = gaussian_std(residuals, dataclasses.replace(paper.noise, estimator=estimator))
    assert found == pytest.approx(std, rel=0.15)


def test_the_truncation_is_corrected_up_to_the_upper_bound(paper: MotionSettings) -> None:
    residuals = 9.0 * 2**0.5 * torch.randn(40000, generator=torch.Generator().manual_seed(3))
    assert gaussian_std(residuals, paper.noise) == pytest.approx(9.0, rel=0.15)


def test_bounds_and_too_few_residuals(paper: MotionSettings) -> None:
    assert gaussian_std(torch.zeros(1000), paper.noise) == 2.0
    assert gaussian_std(torch.full((1000,), torch.nan), paper.noise) == 2.0
    mostly_unknown = torch.full((1000,), torch.nan)
    mostly_unknown[:50] = 9.0
    assert gaussian_std(mostly_unknown, paper.noise) == 2.0


def test_a_few_gross_errors_do_not_move_the_median_estimate(settings: MotionSettings) -> None:
    residuals = 2**0.5 * torch.randn(40000, generator=torch.Generator().manual_seed(3))
    residuals[::10] = 8.0
    found = gaussian_std(residuals, dataclasses.replace(settings.noise, estimator="median"))
    assert found == pytest.approx(1.0, rel=0.2)
    truncated = gaussian_std(residuals, dataclasses.replace(settings.noise, estimator="truncated"))
    assert truncated > 1.5


def test_what_came_without_a_reverse_direction_gets_the_set_noise(settings: MotionSettings) -> None:
    noise = estimate_noise(torch.randn(2, 20, 30), None, torch.rand(20, 30) * 10, None, settings.noise)
    given = settings.noise.unknown_std_px
    assert (noise.x, noise.y, noise.disparity) == (given, given, given)


def test_inverse_optical_flows_agree_everywhere_inside(paper: MotionSettings) -> None:
    forward = torch.zeros(2, 30, 40)
    forward[0] = 4.25
    agree = consistent(forward, -forward, paper.reliability)
    assert bool(agree[:, :35].all())
    assert not bool(agree[:, 36:].any())


def test_random_optical_flow_does_not_agree(paper: MotionSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    forward, backward = (20 * torch.randn(2, 30, 40, generator=generator) for _ in range(2))
    assert float(consistent(forward, backward, paper.reliability).float().mean()) < 0.05


def test_expected_noise_widens_the_test(paper: MotionSettings, settings: MotionSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    forward, backward = (torch.randn(2, 60, 80, generator=generator) for _ in range(2))
    inside = slice(5, 55), slice(5, 75)
    published = consistent(forward, backward, paper.reliability)[inside].float().mean()
    ours = consistent(forward, backward, settings.reliability, variance=4.0)[inside].float().mean()
    assert float(published) < 0.3
    assert float(ours) > 0.95


def test_a_jump_in_depth_is_an_edge_and_a_hole_or_a_slope_is_none(paper: MotionSettings) -> None:
    disparity = torch.full((30, 40), 10.0)
    disparity[:, 20:] = 20.0
    disparity[10:14, 5:9] = 0.0
    edges = depth_edges(disparity, paper.reliability, 0.0)
    assert bool(edges[:, 19:21].all())
    assert not bool(edges[:, :14].any())
    assert not bool(edges[:, 26:].any())
    slope = torch.linspace(30, 60, 200).expand(50, 200)
    assert not bool(depth_edges(slope, paper.reliability, 0.0).any())


def test_the_margin_of_edges_follows_the_setting(paper: MotionSettings) -> None:
    disparity = torch.full((30, 40), 10.0)
    disparity[:, 20:] = 20.0
    narrow = dataclasses.replace(paper.reliability, edge_margin_px=0)
    thin, wide = depth_edges(disparity, narrow, 0.0), depth_edges(disparity, paper.reliability, 0.0)
    grown = functional.max_pool2d(thin.float()[None, None], 5, 1, 2)[0, 0] > 0
    assert torch.equal(wide, grown)


def test_the_second_disparity_is_read_between_pixels_of_a_surface_and_not_across_a_jump(
    settings: MotionSettings,
) -> None:
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    slanted = 10 + 0.4 * rows
    stepped = torch.where(columns < 20, slanted, slanted + 15)
    forward = torch.stack([torch.full_like(rows, 0.25), torch.full_like(rows, 0.4)])
    found = assess(
        forward,
        None,
        slanted,
        stepped,
        None,
        None,
        None,
        torch.ones(30, 40, dtype=torch.bool),
        Noise(0.1, 0.1, 0.1),
        Camera(400.0, 400.0, 20.0, 15.0, 0.5),
        settings.reliability,
    ).disparity_next
    between = 10 + 0.4 * (rows + 0.4)
    assert torch.allclose(found[2:-3, 2:17], between[2:-3, 2:17], atol=1e-4)
    # Column 19 points between the surfaces, and the nearest pixel belongs to the first.
    assert torch.allclose(found[2:-3, 19], slanted[2:-3, 19], atol=1e-4)
