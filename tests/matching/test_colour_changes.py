"""Photometric augmentation."""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import torch

from gestalt.config.optical_flow import ColourSettings
from gestalt.config.presets import default_settings
from gestalt.matching.colour_changes import (
    ColourChange,
    Rectangle,
    change_colours,
    draw_colour_changes,
    draw_rectangles,
    erase,
)


@pytest.fixture(scope="module")
def colour() -> ColourSettings:
    settings: ColourSettings = default_settings("optical_flow", "paper").colour
    return settings


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 6, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("hue", "saturation"), [(0.1, 1.0), (-0.15, 1.3), (0.5, 0.6), (0.0, 1.4)])
def test_hue_and_saturation_are_those_of_the_standard_library(hue: float, saturation: float) -> None:
    image = images(1)
    image[0, :, 0, 0], image[0, :, 0, 1] = 0.0, 0.5  # black and grey have no hue
    changed = change_colours(image, [ColourChange(hue=hue, saturation=saturation)])
    for row in range(6):
        for column in range(7):
            h, s, v = colorsys.rgb_to_hsv(*image[0, :, row, column].tolist())
            expected = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), v)
            assert np.allclose(changed[0, :, row, column], expected, atol=1e-5)


def test_contrast_stretches_around_the_mean_and_brightness_is_added() -> None:
    image = 0.4 + 0.1 * images(1)
    stretched = change_colours(image, [ColourChange(contrast=1.4)])
    assert torch.allclose(stretched.mean((2, 3)), image.mean((2, 3)), atol=1e-6)
    assert torch.allclose(stretched.std((2, 3)), 1.4 * image.std((2, 3)), atol=1e-5)
    assert torch.allclose(change_colours(image, [ColourChange(brightness=0.2)]), image + 0.2, atol=1e-6)
    assert float(change_colours(image, [ColourChange(brightness=1.0)]).max()) == 1


def test_an_image_without_a_change_keeps_its_bits() -> None:
    both = images()
    changed = change_colours(both, [ColourChange(), ColourChange(hue=0.1)])
    assert torch.equal(changed[0], both[0])
    assert not torch.allclose(changed[1], both[1], atol=0.01)


def test_one_pair_in_five_is_changed_and_its_images_differently(colour: ColourSettings) -> None:
    drawn = [draw_colour_changes(colour, np.random.default_rng(seed)) for seed in range(1000)]
    changed = [pair for pair in drawn if pair != (ColourChange(), ColourChange())]
    assert 150 < len(changed) < 250
    assert all(first != second for first, second in changed)
    assert all(abs(first.hue) <= 0.159 and 0.6 <= second.contrast <= 1.4 for first, second in changed)
    joint = dataclasses.replace(colour, separate_prob=0.0, joint_prob=1.0)
    assert all(
        first == second
        for first, second in (draw_colour_changes(joint, np.random.default_rng(s)) for s in range(9))
    )


def test_rectangles_are_as_large_as_allowed_and_inside(colour: ColourSettings) -> None:
    drawn = [draw_rectangles((296, 696), colour, np.random.default_rng(seed)) for seed in range(400)]
    assert 150 < sum(bool(own) for own in drawn) < 250
    assert {len(own) for own in drawn} == {0, 1, 2, 3}
    parts = [part for own in drawn for part in own]
    assert all(0 <= part.top < part.bottom <= 296 and 0 <= part.left < part.right <= 696 for part in parts)
    whole = [part.bottom - part.top for part in parts if part.top > 0 and part.bottom < 296]
    assert (min(whole), max(whole)) >= (50, 90)
    assert max(whole) <= 100


def test_erased_pixels_have_the_mean_colour() -> None:
    both = images()
    erased = erase(both, [(), (Rectangle(1, 3, 2, 6),)])
    assert torch.equal(erased[0], both[0])
    assert torch.allclose(erased[1, :, 1:3, 2:6], both[1].mean((1, 2))[:, None, None].expand(3, 2, 4))
    kept = torch.ones(6, 7, dtype=torch.bool)
    kept[1:3, 2:6] = False
    assert torch.equal(erased[1][:, kept], both[1][:, kept])
