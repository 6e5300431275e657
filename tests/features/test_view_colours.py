"""Colour changes of crops against torchvision and scipy, and their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from gestalt.data.colours import turn_hue
from gestalt.features.distillation_training import SETTINGS as EMBEDDED
from gestalt.features.distillation_training import read_settings
from gestalt.features.view_colours import blur, change_view_colours, draw_colours

SETTINGS = read_settings(EMBEDDED.with_name("paper.yaml"), []).colour
NOTHING = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
ORDER = (0, 1, 2, 3)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.manual_seed(0))


def test_no_change_changes_nothing(images: torch.Tensor) -> None:
    table = torch.tensor([NOTHING] * 4)
    torch.testing.assert_close(change_view_colours(images, table, ORDER), images, atol=2e-6, rtol=0)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_jitter_is_that_of_torchvision_in_any_order(images: torch.Tensor, order: tuple[int, ...]) -> None:
    from torchvision.transforms.v2 import functional as published

    steps = (
        published.adjust_brightness,
        published.adjust_contrast,
        published.adjust_saturation,
        published.adjust_hue,
    )
    factors = torch.tensor([[1.3, 0.7, 1.15, 0.08], [0.6, 1.4, 0.8, -0.1], [1.0, 1.2, 1.0, 0.5], NOTHING[:4]])
    table = torch.cat([factors, torch.zeros(4, 3)], 1)
    expected = []
    for image, own in zip(images, factors.tolist(), strict=True):
        changed = image[None]
        for number in order:
            changed = steps[number](changed, own[number])
        expected.append(changed)
    torch.testing.assert_close(
        change_view_colours(images, table, order), torch.cat(expected), atol=5e-5, rtol=0
    )


def test_hue_turned_by_the_whole_circle_or_of_grey_stays(images: torch.Tensor) -> None:
    whole = torch.ones(4, 1, 1, 1)
    torch.testing.assert_close(turn_hue(images, whole), images, atol=2e-6, rtol=0)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(turn_hue(grey, 0.3 * whole), grey)
    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    torch.testing.assert_close(turn_hue(red, whole[:1] / 3).flatten(), torch.tensor([0.0, 1.0, 0.0]))


def test_grey_and_inverted_are_applied_to_their_own_images_only(images: torch.Tensor) -> None:
    table = torch.tensor([NOTHING] * 4)
    table[1, 4], table[2, 6] = 1, 1
    found = change_view_colours(images, table, ORDER)
    torch.testing.assert_close(found[[0, 3]], images[[0, 3]], atol=2e-6, rtol=0)
    weights = torch.tensor([0.2989, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(found[1], (images[1] * weights).sum(0).expand(3, -1, -1), atol=2e-6, rtol=0)
    inverted = torch.where(images[2] >= 0.5, 1 - images[2], images[2])
    torch.testing.assert_close(found[2], inverted, atol=2e-6, rtol=0)


def test_blur_is_a_gaussian_of_each_image_with_weights_of_the_inside_alone(images: torch.Tensor) -> None:
    sigmas = torch.tensor([0.0, 0.5, 1.0, 2.0])
    found = blur(images, sigmas)
    assert torch.equal(found[0], images[0])
    for index in range(1, 4):
        image, sigma = images[index].double().numpy(), [0, float(sigmas[index]), float(sigmas[index])]
        kwargs = {"mode": "constant", "truncate": 30}
        inside = ndimage.gaussian_filter(np.ones_like(image), sigma, **kwargs)
        expected = ndimage.gaussian_filter(image, sigma, **kwargs) / inside
        torch.testing.assert_close(found[index].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_probabilities_and_ranges_are_those_of_the_settings() -> None:
    n = 20000
    tables = draw_colours(SETTINGS, 2, 3, n, np.random.default_rng(0))
    assert tables[0].values.shape == (2, n, 7)
    assert tables[1].values.shape == (3, n, 7)
    assert sorted(tables[0].order) == [0, 1, 2, 3]
    assert tables[0].order == tables[1].order
    values = np.concatenate([table.values for table in tables])
    for column, width in ((0, 0.4), (1, 0.4), (2, 0.2), (3, 0.1)):
        changes = values[..., column] - (0 if column == 3 else 1)
        assert np.abs(changes).max() == pytest.approx(width, rel=0.01)
        assert (changes != 0).mean() == pytest.approx(0.8, abs=0.01)
    assert values[..., 4].mean() == pytest.approx(0.2, abs=0.01)
    blurred = (values[..., 5] > 0).mean(1)
    np.testing.assert_allclose(blurred, [1.0, 0.1, 0.5, 0.5, 0.5], atol=0.015)
    sigmas = values[..., 5][values[..., 5] > 0]
    assert sigmas.min() == pytest.approx(SETTINGS.blur_low_px, abs=0.01)
    assert sigmas.max() == pytest.approx(SETTINGS.blur_high_px, abs=0.01)
    np.testing.assert_allclose(values[..., 6].mean(1), [0, 0.2, 0, 0, 0], atol=0.01)
