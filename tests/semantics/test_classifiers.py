"""Classifiers of interpolated vectors, which never interpolate a vector."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gestalt.runtime import torch_generator
from gestalt.semantics.classifiers import (
    NearestCentre,
    NearestDirection,
    interpolated_squared_length,
    to_pixels,
)

DIMENSION, N_CLASSES = 7, 5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(seed, *shape), dtype=torch.float64)


def test_nearest_centre_equals_distances_of_interpolated_vectors() -> None:
    vectors, centres = random(2, DIMENSION, 4, 6), random(N_CLASSES, DIMENSION)
    pixels = to_pixels(vectors, 8, 30, 45)
    squared = (pixels[:, None] - centres[None, :, :, None, None]).square().sum(2)
    expected = functional.log_softmax(-squared / 0.7, 1)
    found = NearestCentre(centres, 0.7).log_prob(vectors, 8, 30, 45)
    torch.testing.assert_close(found, expected)


def test_nearest_direction_equals_cosines_of_interpolated_vectors() -> None:
    vectors = random(2, DIMENSION, 4, 6)
    centres = functional.normalize(random(N_CLASSES, DIMENSION), dim=1)
    pixels = functional.normalize(to_pixels(vectors, 8, 30, 45), dim=1)
    expected = functional.log_softmax(2 * torch.einsum("kd,bdhw->bkhw", centres, pixels), 1)
    found = NearestDirection(centres, 2.0).log_prob(vectors, 8, 30, 45)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 30, 45, dtype=torch.float64))


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), cell_px=st.integers(1, 9), more=st.integers(-3, 3))
@settings(max_examples=60, deadline=None)
def test_the_squared_length_is_that_of_interpolated_vectors(
    rows: int, columns: int, cell_px: int, more: int
) -> None:
    vectors = random(1, 3, rows, columns, seed=cell_px)
    height, width = max(rows * cell_px + more, 1), max(columns * cell_px - more, 1)
    expected = to_pixels(vectors, cell_px, height, width).square().sum(1, keepdim=True)
    torch.testing.assert_close(interpolated_squared_length(vectors, cell_px, height, width), expected)


def test_a_vector_without_direction_is_as_likely_in_every_pseudo_class() -> None:
    centres = functional.normalize(random(N_CLASSES, DIMENSION), dim=1)
    nothing = torch.zeros(1, DIMENSION, 2, 2, dtype=torch.float64)
    found = NearestDirection(centres, 2.0).log_prob(nothing, 4, 8, 8)
    torch.testing.assert_close(found.exp(), torch.full_like(found, 1 / N_CLASSES))


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_directions_do_not_depend_on_length(factor: float) -> None:
    centres = functional.normalize(random(N_CLASSES, DIMENSION), dim=1)
    vectors = random(1, DIMENSION, 3, 3)
    classifier = NearestDirection(centres, 2.0)
    torch.testing.assert_close(
        classifier.log_prob(vectors, 4, 12, 12), classifier.log_prob(factor * vectors, 4, 12, 12)
    )
