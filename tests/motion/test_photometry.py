"""Which motion explains the images at t+1: both views are asked, and areas without texture do not count."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from gestalt.matching.warping import pixel_grid, sample
from gestalt.motion.geometry import Camera
from gestalt.motion.photometry import (
    NO_IMAGES,
    PhotometricVerdict,
    Photometry,
    compare_errors,
    contest,
)

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
    assert compare_errors(faint, mask).gain < 0.15
    assert compare_errors(clear, mask).gain > 0.7
    assert compare_errors(clear, ~mask).gain == 0
    assert compare_errors(clear, ~mask).significance == 0


def test_significance_is_the_paired_statistic_and_grows_with_the_area() -> None:
    errors = 0.3 + 0.1 * torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(1))
    errors[0] += 0.02
    whole = torch.ones(30, 40, dtype=torch.bool)
    part = whole.clone()
    part[:, 10:] = False
    expected = stats.ttest_rel(errors[0].flatten(), errors[1].flatten()).statistic
    found = compare_errors(errors, whole)
    # A share of 6 % is no limit that anybody would set, yet 1200 pixels agree on it.
    assert found.gain < 0.1
    assert found.significance == pytest.approx(expected, rel=0.05)
    assert found.significance > 1.5 * compare_errors(errors, part).significance
    assert compare_errors(errors.flip(0), whole).significance == pytest.approx(-found.significance)


def test_verdicts_say_which_limit_they_miss_and_nothing_without_images() -> None:
    mask = torch.ones(10, 10, dtype=torch.bool)
    ramp = torch.linspace(0, 0.1, 100).view(10, 10)
    verdict = compare_errors(torch.stack([0.3 + ramp, 0.2 + 0.5 * ramp]), mask)
    assert verdict.failure(0.1, 6) == ""
    assert "gain" in verdict.failure(0.9, 6)
    assert "significance" in verdict.failure(0.1, 1000)
    assert compare_errors(None, mask) is NO_IMAGES
    assert NO_IMAGES.failure(1, 1000) == ""


# A camera that stands: what stands stays where it is, and disparity decides where the right image sees it.
CAMERA = Camera(100.0, 100.0, WIDTH / 2, HEIGHT / 2, 0.5)


def wide_texture(seed: int) -> Tensor:
    """(3, HEIGHT, 3 WIDTH) float in [0, 1]: it reaches a width beyond either side of the images."""
    noise = torch.rand(1, 3, HEIGHT, 3 * WIDTH, generator=torch.Generator().manual_seed(seed))
    soft = functional.avg_pool2d(noise, 5, 1, 2)[0]
    return (soft - soft.min()) / (soft.max() - soft.min())


def views(motion_px: float, disparity: float, disparity_next: float) -> tuple[Tensor, ...]:
    """Left at t, left and right at t+1, right at t, of a plane that moves to the right."""
    wide = wide_texture(seed=2)

    def seen(shift: float) -> Tensor:
        x, y = pixel_grid(HEIGHT, WIDTH)
        return sample(wide, torch.stack([x + WIDTH - shift, y]))[0]

    return seen(0), seen(motion_px), seen(motion_px - disparity_next), seen(-disparity)


def ask(
    images: tuple[Tensor, ...], disparity: float, sideways_m: tuple[float, float], slack_px: float
) -> PhotometricVerdict:
    """Which of two sideways motions against the camera, the standing scene's or the object's?"""
    motions = torch.eye(4).repeat(2, 1, 1)
    motions[:, 0, 3] = torch.tensor(sideways_m)
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[10:30, 25:50] = True
    return contest(
        Photometry.of(*images),
        pixel_grid(HEIGHT, WIDTH),
        torch.full((HEIGHT, WIDTH), disparity),
        motions,
        CAMERA,
        mask,
        slack_px,
    )


def test_what_really_moves_wins_whatever_depth_the_standing_scene_may_choose() -> None:
    # Disparity 5 px at focal length 100 px and baseline 0.5 m is 10 m, where 0.2 m are 2 px.
    for slack_px in (0.0, 2.0):
        verdict = ask(views(2.0, 5.0, 5.0), 5.0, (0.0, 0.2), slack_px)
        assert verdict.gain > 0.4
        assert verdict.significance > 6


def test_the_right_images_tell_a_motion_from_another_depth() -> None:
    # The camera moves 0.5 m to the right, the object 0.2 m: it passes by 3 px, as what stands farther away, at 3 px of
    # disparity, does.
    images = views(-3.0, 5.0, 5.0)
    asked = (-0.5, -0.3)
    assert ask(images, 5.0, asked, 2.0).gain > 0.3
    assert ask(images[:3], 5.0, asked, 2.0).gain > 0.3
    assert ask(images[:2], 5.0, asked, 0.0).gain > 0.3
    # One camera cannot know.
    assert abs(ask(images[:2], 5.0, asked, 2.0).gain) < 0.05


def test_a_wrong_depth_does_not_pass_for_a_motion() -> None:
    # The camera drives 1 m ahead towards a plane at 10 m. Its disparity is measured 1 px too small, 12.5 m, so the
    # plane grows faster than that depth lets expect: as if it came towards the camera.
    ahead = torch.eye(4)
    ahead[2, 3] = -1.0
    coming = ahead.clone()
    coming[2, 3] = -1.25
    wide = wide_texture(seed=3)
    x, y = pixel_grid(HEIGHT, WIDTH)

    def seen(scale: float, shift: float) -> Tensor:
        """The plane magnified about the principal point, then moved to the right."""
        across = (x - shift - CAMERA.center_x) / scale + CAMERA.center_x + WIDTH
        return sample(wide, torch.stack([across, (y - CAMERA.center_y) / scale + CAMERA.center_y]))[0]

    growth = 10 / 9
    images = seen(1, 0), seen(growth, 0), seen(growth, -50 / 9), seen(1, -5)
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[5:15, 5:25] = True
    verdicts = [
        contest(
            Photometry.of(*images),
            pixel_grid(HEIGHT, WIDTH),
            torch.full((HEIGHT, WIDTH), 4.0),
            torch.stack([ahead, coming]),
            CAMERA,
            mask,
            slack_px,
        )
        for slack_px in (0.0, 2.0)
    ]
    assert verdicts[0].gain > 0.1
    assert verdicts[1].gain < 0.05
