"""Colour, texture, position."""

import cv2
import numpy as np
import pytest
import torch

from gestalt.features.gaussian import blur
from gestalt.features.handmade import (
    COLOUR_CHANNELS,
    TEXTURE_CHANNELS,
    colour_channels,
    position_channel,
    rgb_to_lab,
    texture_channels,
)
from gestalt.runtime import torch_generator


def test_lab_equals_that_of_opencv() -> None:
    image = torch.rand(1, 3, 12, 17, generator=torch_generator(0))
    theirs = cv2.cvtColor(image[0].permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2LAB) / 100
    np.testing.assert_allclose(rgb_to_lab(image)[0].permute(1, 2, 0).numpy(), theirs, atol=5e-3)


def test_grey_has_no_colour() -> None:
    lab = rgb_to_lab(torch.full((1, 3, 4, 4), 0.3))
    assert float(lab[:, 1:].abs().max()) < 1e-3


def test_blur_keeps_constants_up_to_the_border() -> None:
    torch.testing.assert_close(blur(torch.full((2, 5, 7), 3.0), 2.0), torch.full((2, 5, 7), 3.0))


def test_blur_equals_opencv_away_from_the_border() -> None:
    grid = torch.rand(40, 60, generator=torch_generator(0))
    theirs = cv2.GaussianBlur(grid.numpy(), (31, 31), 2.0)
    np.testing.assert_allclose(blur(grid, 2.0)[16:-16, 16:-16], theirs[16:-16, 16:-16], atol=1e-5)


def test_channels_have_the_announced_number_and_a_cell_for_four_pixels() -> None:
    lab = rgb_to_lab(torch.rand(2, 3, 16, 24, generator=torch_generator(0)))
    assert colour_channels(lab).shape == (2, COLOUR_CHANNELS, 4, 6)
    assert texture_channels(lab).shape == (2, TEXTURE_CHANNELS, 4, 6)


def test_stripes_have_most_energy_across_them() -> None:
    lab = torch.zeros(1, 3, 32, 32)
    lab[:, 0] = (torch.arange(32) // 2 % 2).float()  # columns alternate: the gradient is horizontal
    energy = texture_channels(lab)[0, 2:6, 4, 4]
    assert int(energy.argmax()) == 0
    assert int(energy.argmin()) == 2
    turned = texture_channels(lab.transpose(-1, -2))[0, 2:6, 4, 4]
    assert int(turned.argmax()) == 2


def test_texture_ignores_a_change_of_brightness() -> None:
    lab = torch.rand(1, 3, 16, 16, generator=torch_generator(3)) * 0.5
    torch.testing.assert_close(texture_channels(lab), texture_channels(lab + 0.2), atol=1e-3, rtol=1e-3)


def test_position_ascends_from_top_to_bottom() -> None:
    rows = position_channel(2, 8, 3)
    assert rows.shape == (2, 1, 8, 3)
    assert (rows.diff(dim=2) > 0).all()
    assert float(rows.mean()) == pytest.approx(0, abs=1e-6)
