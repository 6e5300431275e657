"""Small images for the losses of the first steps."""

from __future__ import annotations

import pytest
import torch

from gestalt.config.optical_flow import CoarseStartSettings
from gestalt.matching.coarse_start import (
    mean_lengths,
    shrink_displacements,
    shrink_factor,
    shrink_images,
    shrink_positions,
)


def test_images_grow_to_their_full_size_and_stay() -> None:
    settings = CoarseStartSettings(levels=2, steps_per_level=10, rest_weight=0.0)
    assert [shrink_factor(step, settings) for step in (0, 9, 10, 19, 20, 1000)] == [4, 4, 2, 2, 1, 1]
    published = CoarseStartSettings(levels=0, steps_per_level=1, rest_weight=0.0)
    assert [shrink_factor(step, published) for step in (0, 1, 1000)] == [1, 1, 1]


def test_a_displacement_leads_to_the_same_place_of_a_smaller_image() -> None:
    """An image of its own x coordinates says where a position lies."""
    x = torch.arange(32.0).expand(1, 1, 8, 32)
    small = shrink_images(x, 4)[0, 0, 0]
    assert small.tolist() == [1.5 + 4 * column for column in range(8)]
    places = shrink_positions(torch.tensor([1.5, 5.5, 13.5]), 4)
    assert small[places.long()].tolist() == [1.5, 5.5, 13.5]
    field = torch.full((1, 2, 8, 32), 8.0)
    assert torch.equal(shrink_displacements(field, 4), torch.full((1, 2, 2, 8), 2.0))


@pytest.mark.parametrize("shrink", [shrink_images, shrink_displacements])
def test_a_factor_of_one_changes_no_bit(shrink: object) -> None:
    values = torch.rand(2, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert callable(shrink)
    assert torch.equal(shrink(values, 1), values)
    assert torch.equal(shrink_positions(values, 1), values)


def test_the_pull_towards_rest_is_as_strong_at_any_length_and_none_at_rest() -> None:
    field = torch.zeros(1, 2, 2, 2)
    field[:, :, 0, 0] = torch.tensor([3.0, -4.0])
    field.requires_grad_()
    lengths = mean_lengths([field, 10 * field])
    assert lengths.tolist() == pytest.approx([5 / 4, 50 / 4], rel=0.01)
    lengths[0].backward()
    assert field.grad is not None
    assert field.grad[0, :, 0, 0].tolist() == pytest.approx([0.6 / 4, -0.8 / 4], rel=0.01)
    assert float(field.grad[0, :, 1].abs().max()) == 0
