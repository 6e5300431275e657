"""Which motion explains the images at t+1: both views are asked, and areas without texture do not count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.matching.warping import pixel_grid
from gestalt.motion.boundary import Photometry, photometric_gain

HEIGHT, WIDTH = 40, 80
# Optical flow of the whole scene and its disparity, pixels.
SHIFT, DISPARITY = 3, 5


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor, Tensor]:
    """Left at t, left and right at t+1, of a textured plane that moves sideways."""
    noise = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    left = functional.avg_pool2d(noise, 3, 1, 1)[0]
    left = (left - left.min()) / (left.max() - left.min())
    left_next = left.roll(SHIFT, 2)
    return left, left_next, left_next.roll(-DISPARITY, 2)


def targets(shift: float, disparity: float) -> Tensor:
    """(H, W, 3): where a motion takes every pixel."""
    x, y = pixel_grid(HEIGHT, WIDTH)
    return torch.stack([x + shift, y, torch.full_like(x, disparity)], -1)


def inside(error: Tensor) -> Tensor:
    return error[:, 15:-15]


def test_the_true_motion_has_no_error_in_either_view(images: tuple[Tensor, ...]) -> None:
    error = Photometry.of(*images).error(targets(SHIFT, DISPARITY))
    assert float(inside(error).abs().max()) < 1e-5
    assert bool(error[:, WIDTH - SHIFT :].isnan().all())


def test_the_right_view_sees_a_wrong_depth_that_the_left_one_does_not(images: tuple[Tensor, ...]) -> None:
    left, left_next, _ = images
    wrong = targets(SHIFT, DISPARITY + 4)
    alone = Photometry.of(left, left_next).error(wrong)
    both = Photometry.of(*images).error(wrong)
    assert float(inside(alone).abs().max()) < 1e-5
    assert float(inside(both).mean()) > 0.2


def test_where_the_right_view_sees_nothing_the_left_one_decides(images: tuple[Tensor, ...]) -> None:
    error = Photometry.of(*images).error(targets(SHIFT, 3 * WIDTH))
    assert float(inside(error).abs().max()) < 1e-5


def test_an_area_without_texture_is_no_gain() -> None:
    mask = torch.ones(10, 10, dtype=torch.bool)
    faint = torch.stack([torch.full((10, 10), 0.004), torch.full((10, 10), 0.001)])
    clear = torch.stack([torch.full((10, 10), 0.4), torch.full((10, 10), 0.1)])
    assert photometric_gain(faint, mask) < 0.15
    assert photometric_gain(clear, mask) > 0.7
    assert photometric_gain(clear, ~mask) == 0
