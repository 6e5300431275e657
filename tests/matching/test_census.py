"""The photometric loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gestalt.config.optical_flow import CensusSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ShapeError
from gestalt.matching.census import census_distance, census_transform, photometric_losses


@pytest.fixture(scope="module")
def census() -> CensusSettings:
    settings: CensusSettings = default_settings("optical_flow", "paper").census
    return settings


def loss(first: torch.Tensor, second: torch.Tensor, census: CensusSettings) -> torch.Tensor:
    visible = torch.ones(first.shape[0], *first.shape[2:])
    return photometric_losses(census_transform(first, census), second, visible, census).mean()


def test_equal_images_have_no_loss_nor_has_another_brightness(census: CensusSettings) -> None:
    image = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 0.5
    assert float(loss(image, image, census)) == 0
    assert float(loss(image, image + 0.3, census)) < 1e-6
    assert float(loss(image, image.flip(3), census)) > 1


def test_one_bright_pixel_as_computed_by_hand(census: CensusSettings) -> None:
    black, dotted = torch.zeros(1, 3, 15, 15), torch.zeros(1, 3, 15, 15)
    dotted[0, :, 7, 7] = 1 / 255  # one grey level
    e = 1 / np.sqrt(0.81 + 1)
    soft = e**2 / (0.1 + e**2)
    distance = census_distance(census_transform(black, census), census_transform(dotted, census), census)[0]
    assert np.isclose(float(distance[7, 7]), 48 * soft, rtol=1e-4)
    assert np.isclose(float(distance[5, 9]), soft, rtol=1e-4)
    assert float(distance[3, 7]) == 0
    # Of the 9 x 9 pixels that have a whole neighbourhood, 48 see the pixel once and one sees it in all directions.
    expected = (48 * ((soft + 0.01) ** 0.4 - 0.01**0.4) + (48 * soft + 0.01) ** 0.4 - 0.01**0.4) / 81
    assert np.isclose(float(loss(black, dotted, census)), expected, rtol=1e-4)


def test_only_visible_pixels_count_and_the_mean_is_over_them(census: CensusSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.rand(1, 3, 16, 20, generator=generator),
        torch.rand(1, 3, 16, 20, generator=generator),
    )
    half = torch.zeros(1, 16, 20)
    half[:, :, 10:] = 1
    pattern = census_transform(first, census)
    changed = second.clone()
    changed[..., :6] = 0
    with_half = photometric_losses(pattern, second, half, census)
    assert torch.equal(with_half, photometric_losses(pattern, changed, half, census))
    assert torch.allclose(with_half, photometric_losses(pattern, second, half / 2, census))
    assert float(photometric_losses(pattern, second, torch.zeros(1, 16, 20), census)) == 0


def test_no_gradient_flows_through_the_mask(census: CensusSettings) -> None:
    first = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    visible = torch.full((1, 12, 12), 0.5, requires_grad=True)
    second = first.flip(2).requires_grad_()
    photometric_losses(census_transform(first, census), second, visible, census).sum().backward()
    assert visible.grad is None
    assert second.grad is not None
    assert float(second.grad.abs().sum()) > 0


def test_predictions_of_the_same_images_are_judged_each_alone(census: CensusSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    first, warped = (
        torch.rand(2, 3, 12, 12, generator=generator),
        torch.rand(3, 2, 3, 12, 12, generator=generator),
    )
    visible = torch.rand(3, 2, 12, 12, generator=generator)
    pattern = census_transform(first, census)
    together = photometric_losses(pattern, warped.flatten(0, 1), visible.flatten(0, 1), census).reshape(3, 2)
    for n in range(3):
        for index in range(2):
            one = slice(index, index + 1)
            alone = photometric_losses(pattern[one], warped[n, one], visible[n, one], census)
            assert torch.allclose(together[n, index], alone[0])


def test_even_neighbourhoods_and_grey_images_are_refused(census: CensusSettings) -> None:
    with pytest.raises(ShapeError, match="odd"):
        census_transform(torch.zeros(1, 3, 9, 9), dataclasses.replace(census, patch_px=4))
    with pytest.raises(ShapeError, match=r"\(1, 1, 9, 9\)"):
        census_transform(torch.zeros(1, 1, 9, 9), census)
