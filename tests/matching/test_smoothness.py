"""The smoothness of displacements."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gestalt.config.optical_flow import SmoothnessSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError, ShapeError
from gestalt.matching.smoothness import smoothness_losses, soft_absolute
from gestalt.matching.warping import pixel_grid


@pytest.fixture(scope="module")
def second_order() -> SmoothnessSettings:
    settings: SmoothnessSettings = default_settings("optical_flow", "paper").smoothness
    return settings


@pytest.fixture(scope="module")
def first_order(second_order: SmoothnessSettings) -> SmoothnessSettings:
    return dataclasses.replace(second_order, order=1)


def affine() -> torch.Tensor:
    x, y = pixel_grid(10, 12)
    return torch.stack([1 + 0.5 * x - 0.25 * y, 2 - 0.125 * x + y])[None]


def test_the_second_order_lets_planes_be_and_the_first_only_what_is_constant(
    first_order: SmoothnessSettings, second_order: SmoothnessSettings
) -> None:
    image = torch.zeros(1, 3, 10, 12)
    constant = torch.full((1, 2, 10, 12), 3.0)
    assert float(smoothness_losses(constant, image, first_order)) == 0
    assert float(smoothness_losses(affine(), image, second_order)) == 0
    # Mean of |0.5| and |0.125| along x, of |0.25| and |1| along y.
    assert np.isclose(float(smoothness_losses(affine(), image, first_order)), (0.3125 + 0.625) / 2, atol=2e-3)


def test_a_bend_as_computed_by_hand(second_order: SmoothnessSettings) -> None:
    optical_flow = torch.zeros(1, 2, 4, 6)
    optical_flow[0, 0, :, 3:] = 1.0  # second differences of 1 and -1 at two of four places along x
    rho = np.sqrt(1 + 0.001**2) - 0.001
    found = float(smoothness_losses(optical_flow, torch.zeros(1, 3, 4, 6), second_order))
    assert np.isclose(found, 0.5 * rho * 2 / 4 / 2, rtol=1e-4)  # half of the channels are bent


def test_an_edge_of_the_image_frees_the_motion(second_order: SmoothnessSettings) -> None:
    optical_flow, image = torch.zeros(1, 2, 4, 6), torch.zeros(1, 3, 4, 6)
    optical_flow[0, 0, :, 3:] = 1.0
    flat = float(smoothness_losses(optical_flow, image, second_order))
    image[..., 3:] = 0.02
    assert np.isclose(
        float(smoothness_losses(optical_flow, image, second_order)), flat * np.exp(-3), rtol=1e-3
    )


def test_predictions_of_the_same_images_are_judged_each_alone(second_order: SmoothnessSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 6, 8, generator=generator) * 0.02
    found = torch.randn(3, 2, 2, 6, 8, generator=generator)
    together = smoothness_losses(found.flatten(0, 1), images, second_order).reshape(3, 2)
    for n in range(3):
        for index in range(2):
            alone = smoothness_losses(found[n, index : index + 1], images[index : index + 1], second_order)
            assert torch.allclose(together[n, index], alone[0])


def test_softness_only_matters_near_zero() -> None:
    value = torch.tensor([0.0, 1e-4, -2.0])
    assert torch.allclose(soft_absolute(value, 0.001), torch.tensor([0.0, 5e-6, 1.999]), atol=1e-6)


def test_other_orders_and_sizes_are_refused(second_order: SmoothnessSettings) -> None:
    with pytest.raises(ConfigError, match="1 or 2"):
        smoothness_losses(affine(), torch.zeros(1, 3, 10, 12), dataclasses.replace(second_order, order=3))
    with pytest.raises(ShapeError, match="smoothness needs"):
        smoothness_losses(affine(), torch.zeros(1, 3, 10, 11), second_order)
