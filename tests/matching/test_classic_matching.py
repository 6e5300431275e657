"""Matching of textured planes with known motion and disparity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gestalt.config.motion import MotionSettings
from gestalt.errors import ShapeError
from gestalt.matching.dense_inverse_search import DenseInverseSearch
from gestalt.matching.semi_global_matching import SemiGlobalMatching


def textured(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(generator.standard_normal((height, width, 3)), (1.2, 1.2, 0))
    return np.uint8(np.clip(128 + 110 * noise / np.abs(noise).max() * 2, 0, 255))


@pytest.fixture(scope="module")
def wide() -> np.ndarray:
    return textured(96, 260)


def test_a_shifted_plane_has_its_disparity_in_both_views(wide: np.ndarray, settings: MotionSettings) -> None:
    left, right = wide[:, 20:220], wide[:, 32:232]
    matcher = SemiGlobalMatching(settings.semi_global_matching)
    for found in (matcher.left(left, right), matcher.right(left, right)):
        inside = found[10:-10, 30:-30]
        assert np.mean(inside > 0) > 0.95
        assert abs(np.median(inside[inside > 0]) - 12) < 0.25


def test_disparity_is_never_negative_and_swapped_views_do_not_match(
    wide: np.ndarray, settings: MotionSettings
) -> None:
    left, right = wide[:, 20:220], wide[:, 32:232]
    swapped = SemiGlobalMatching(settings.semi_global_matching).left(right, left)
    assert swapped.min() >= 0
    good = SemiGlobalMatching(settings.semi_global_matching).left(left, right)
    assert np.mean(np.abs(swapped[:, 30:-30] - 12) < 1) < 0.5 < np.mean(np.abs(good[:, 30:-30] - 12) < 1)


def test_sub_pixel_disparity(wide: np.ndarray, settings: MotionSettings) -> None:
    shifted = ndimage.shift(wide.astype(np.float32), (0, -9.5, 0), order=3, mode="nearest")
    found = SemiGlobalMatching(settings.semi_global_matching).left(wide, np.uint8(np.clip(shifted, 0, 255)))
    inside = found[10:-10, 30:-30]
    assert abs(np.median(inside[inside > 0]) - 9.5) < 0.3


def test_pairs_of_different_size_are_refused(wide: np.ndarray, settings: MotionSettings) -> None:
    with pytest.raises(ShapeError, match="one size"):
        SemiGlobalMatching(settings.semi_global_matching).left(wide, wide[:, :-1])


def test_optical_flow_of_a_shifted_image(wide: np.ndarray, settings: MotionSettings) -> None:
    first, second = wide[4:90, 20:220], wide[2:88, 15:215]
    found = DenseInverseSearch(settings.dense_inverse_search)(first, second)
    assert found.shape == (2, 86, 200)
    inside = found[:, 12:-12, 12:-12]
    assert np.abs(np.median(inside, axis=(1, 2)) - [5, 2]).max() < 0.1


def test_tiny_images_are_measured_all_the_same(settings: MotionSettings) -> None:
    image = textured(12, 10)
    assert DenseInverseSearch(settings.dense_inverse_search)(image, image).shape == (2, 12, 10)
