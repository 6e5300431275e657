from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from gestalt.config.presets import default_settings
from gestalt.config.training import PhotometricSettings
from gestalt.training.photometry import ColourChange, change_colours, draw_colour_change


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def settings() -> PhotometricSettings:
    paper: PhotometricSettings = default_settings("guided", "paper").augmentation.photometric
    return paper


def test_no_change_keeps_every_bit_and_a_change_is_of_its_own_image_only(images: torch.Tensor) -> None:
    before = images.clone()
    assert torch.equal(change_colours(images, [ColourChange()] * 3), images)
    changed = change_colours(
        images, [ColourChange(), ColourChange(1.0, 0.7, 1.3, 0.8, 0.1, True), ColourChange()]
    )
    assert torch.equal(images, before)
    assert torch.equal(changed[[0, 2]], images[[0, 2]])
    assert not torch.allclose(changed[1], images[1], atol=0.05)


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_is_torchvisions_with_a_kernel_of_seven(images: torch.Tensor, sigma: float) -> None:
    expected = reference.gaussian_blur(images, [7, 7], [sigma, sigma])
    torch.testing.assert_close(change_colours(images, [ColourChange(sigma)] * 3), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "adjust", "factor"),
    [
        (ColourChange(brightness=1.3), reference.adjust_brightness, 1.3),
        (ColourChange(contrast=0.6), reference.adjust_contrast, 0.6),
        (ColourChange(saturation=1.4), reference.adjust_saturation, 1.4),
        (ColourChange(turn=-0.1), reference.adjust_hue, -0.1),
    ],
)
def test_each_jitter_is_torchvisions(
    images: torch.Tensor, change: ColourChange, adjust: object, factor: float
) -> None:
    expected = adjust(images, factor)  # type: ignore[operator]
    torch.testing.assert_close(change_colours(images, [change] * 3), expected, atol=2e-5, rtol=0)


def test_half_a_turn_of_the_hue_makes_red_cyan() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    hue, lightness, saturation = colorsys.rgb_to_hls(
        *change_colours(red, [ColourChange(turn=0.5)])[0, :, 0, 0]
    )
    assert (hue, lightness, saturation) == pytest.approx((0.5, 0.5, 1.0))


def test_a_grey_image_has_equal_channels(images: torch.Tensor) -> None:
    grey = change_colours(images, [ColourChange(is_grey=True)] * 3)
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    torch.testing.assert_close(grey, reference.rgb_to_grayscale(images, 3), atol=1e-5, rtol=0)


def test_images_of_a_few_pixels_are_blurred_too() -> None:
    tiny = torch.full((1, 3, 2, 1), 0.4)
    torch.testing.assert_close(change_colours(tiny, [ColourChange(1.0)]), tiny)


def test_chances_are_those_of_the_settings(settings: PhotometricSettings) -> None:
    generator = np.random.default_rng(0)
    changes = [draw_colour_change(generator, settings) for _ in range(2000)]
    assert all(0.1 <= change.sigma_px <= 2.0 for change in changes)  # CUPS always blurs
    assert np.mean([change.is_jittered for change in changes]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([change.is_grey for change in changes]) == pytest.approx(0.2, abs=0.03)
    jittered = [change for change in changes if change.is_jittered]
    assert min(change.brightness for change in jittered) == pytest.approx(0.6, abs=0.01)
    assert max(change.saturation for change in jittered) == pytest.approx(1.4, abs=0.01)
    assert max(abs(change.turn) for change in jittered) == pytest.approx(0.1, abs=0.01)


def test_later_draws_do_not_depend_on_what_happened_to_the_colours(settings: PhotometricSettings) -> None:
    quiet = dataclasses.replace(settings, blur_prob=0.0, colour_prob=0.0, grey_prob=0.0)
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    draw_colour_change(first, settings)
    assert draw_colour_change(second, quiet) == ColourChange()
    assert first.random() == second.random()
