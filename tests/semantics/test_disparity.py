"""Holes and depth of disparity maps."""

import numpy as np
import pytest

from gestalt.errors import ShapeError
from gestalt.semantics.disparity import disparity_to_depth, fill_disparity, is_measured


def test_depth_is_focal_length_times_baseline_over_disparity() -> None:
    disparity = np.array([[10.0, 20.0]], np.float32)
    np.testing.assert_allclose(disparity_to_depth(disparity, 400.0, 0.5, 200.0), [[20.0, 10.0]])


@pytest.mark.parametrize("missing", [0.0, -3.0, 0.4, np.nan, np.inf])
def test_pixels_without_a_match_count_as_far(missing: float) -> None:
    depth = disparity_to_depth(np.array([[missing, 4.0]], np.float32), 400.0, 0.5, 150.0)
    np.testing.assert_allclose(depth, [[150.0, 50.0]])


def test_scaling_the_image_leaves_depth_unchanged() -> None:
    disparity = np.random.default_rng(0).uniform(2, 30, (5, 6)).astype(np.float32)
    half = disparity_to_depth(disparity / 2, 200.0, 0.5, 500.0)
    np.testing.assert_allclose(half, disparity_to_depth(disparity, 400.0, 0.5, 500.0), rtol=1e-6)


def test_a_hole_takes_the_farther_of_its_two_neighbours() -> None:
    row = np.array([[0, 9, 0, 0, 3, 0]], np.float32)
    np.testing.assert_array_equal(fill_disparity(row), [[9, 9, 3, 3, 3, 3]])


def test_rows_without_a_match_take_the_nearest_row_that_has_one() -> None:
    column = np.array([[0], [0], [5], [0], [0], [0], [8]], np.float32)
    np.testing.assert_array_equal(fill_disparity(column)[:, 0], [5, 5, 5, 5, 5, 8, 8])


def test_filling_leaves_measured_pixels_alone_and_no_hole() -> None:
    generator = np.random.default_rng(1)
    disparity = generator.uniform(1, 60, (20, 30)).astype(np.float32)
    disparity[generator.random((20, 30)) < 0.6] = 0
    filled = fill_disparity(disparity)
    measured = is_measured(disparity)
    np.testing.assert_array_equal(filled[measured], disparity[measured])
    assert filled.min() > 0
    np.testing.assert_array_equal(fill_disparity(filled), filled)


def test_filling_equals_a_loop_over_pixels() -> None:
    generator = np.random.default_rng(2)
    disparity = generator.integers(0, 4, (12, 15)).astype(np.float32) * (generator.random((12, 15)) < 0.5)
    disparity[:, 0] = np.maximum(disparity[:, 0], 1)
    expected = disparity.copy()
    for y, x in zip(*np.nonzero(disparity == 0)):
        left = [disparity[y, i] for i in range(x, -1, -1) if disparity[y, i] > 0][:1]
        right = [disparity[y, i] for i in range(x, 15) if disparity[y, i] > 0][:1]
        expected[y, x] = min(left + right)
    np.testing.assert_array_equal(fill_disparity(disparity), expected)


def test_an_empty_map_stays_empty() -> None:
    assert not fill_disparity(np.zeros((4, 5), np.float32)).any()


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"disparity must be \(H, W\) float"):
        is_measured(np.zeros((4, 5), np.uint16))
