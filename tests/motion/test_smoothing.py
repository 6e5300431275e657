"""Averages over neighbours, against plain loops and independent filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from gestalt.motion.smoothing import GuidedFilter, box_mean, keep_edges, smooth_costs


@pytest.mark.parametrize(("radius_y", "radius_x"), [(0, 0), (1, 0), (2, 3), (20, 20)])
def test_a_box_mean_counts_what_lies_inside(radius_y: int, radius_x: int) -> None:
    planes = torch.rand(2, 3, 7, 11, generator=torch.Generator().manual_seed(0))
    found = box_mean(planes, radius_y, radius_x)
    assert found.dtype == planes.dtype
    for y in range(7):
        for x in range(11):
            window = planes[
                ..., max(0, y - radius_y) : y + radius_y + 1, max(0, x - radius_x) : x + radius_x + 1
            ]
            assert torch.allclose(found[..., y, x], window.mean((-1, -2)), atol=1e-6)


def test_a_box_mean_is_scipys_inside_the_image() -> None:
    plane = torch.rand(30, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = ndimage.uniform_filter(plane.numpy(), (5, 7))
    assert np.allclose(box_mean(plane, 2, 3).numpy()[2:-2, 3:-3], expected[2:-2, 3:-3])


def test_noise_is_averaged_away_and_a_step_stays() -> None:
    clean = torch.full((40, 60), 10.0)
    clean[:, 30:] = 60.0
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    known = torch.ones(clean.shape, dtype=torch.bool)
    known[5, 5], noisy[5, 5] = False, -7.0
    smooth = keep_edges(noisy, known, 1.0, 3)
    assert float(smooth[5, 5]) == -7.0
    flat = torch.zeros(clean.shape, dtype=torch.bool)
    flat[10:30, 6:20] = True
    assert float((smooth - clean)[flat].std()) < 0.35
    assert float((smooth - clean)[:, 29:31].abs().max()) < 5.0


def test_a_guided_filter_keeps_what_its_guide_explains() -> None:
    guide = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(3))
    planes = torch.stack([guide[0] * 3 - guide[2] + 5, torch.full((24, 32), 2.0)])
    found = GuidedFilter(guide, torch.ones(24, 32), 4, 1e-8)(planes)
    assert torch.allclose(found, planes, atol=2e-3)


def test_pixels_without_weight_take_the_value_of_their_neighbours() -> None:
    planes = torch.full((1, 16, 16), 3.0)
    weight = torch.ones(16, 16)
    planes[0, 8, 8], weight[8, 8] = 1000.0, 0.0
    found = smooth_costs(planes, weight, None, guided_radius=0, eps=1e-4, box_radius=2)
    assert float((found[0, 8, 8] - 3).abs()) < 0.1
