from __future__ import annotations

import numpy as np
import pytest

from gestalt.training.augmentation import draw_window, flip, flip_and_crop, jitter_size, resize
from gestalt.training.sample import TrainingSample


def coded_sample() -> TrainingSample:
    """An image whose colour says which label its pixel has."""
    generator = np.random.default_rng(0)
    semantic = np.kron(generator.integers(0, 5, (8, 16)), np.ones((12, 12))).astype(np.uint8)
    instance = (semantic == 0).astype(np.uint16)
    image = np.repeat((semantic * 50)[..., None], 3, -1)
    return TrainingSample(image, semantic, instance, (1,))


def test_mirroring_twice_changes_nothing() -> None:
    sample = coded_sample()
    twice = flip(flip(sample))
    assert (twice.image == sample.image).all()
    assert (twice.semantic == sample.semantic).all()
    assert not (flip(sample).semantic == sample.semantic).all()


@pytest.mark.parametrize("seed", range(5))
def test_crops_keep_the_size_and_labels_stay_on_their_pixels(seed: int) -> None:
    sample = coded_sample()
    cropped = flip_and_crop(sample, np.random.default_rng(seed), flip_prob=0.5, area_low=0.3, area_high=0.8)
    assert cropped.size == sample.size
    agrees = np.abs(cropped.image[..., 0].astype(int) - 50 * cropped.semantic.astype(int)) <= 25
    assert agrees.mean() > 0.9
    assert ((cropped.instance > 0) == (cropped.semantic == 0)).all()


def test_a_crop_of_the_whole_image_changes_nothing() -> None:
    sample = coded_sample()
    whole = flip_and_crop(sample, np.random.default_rng(0), flip_prob=0.0, area_low=1.0, area_high=1.0)
    assert (whole.image == sample.image).all()


def test_resized_labels_hold_old_values_only() -> None:
    smaller = resize(coded_sample(), (40, 70))
    assert smaller.image.shape == (40, 70, 3)
    assert smaller.instance.dtype == np.uint16
    assert set(np.unique(smaller.semantic)) <= set(range(5))


@pytest.mark.parametrize(("size", "expected"), [((192, 384), 256), ((368, 1240), 416), ((640, 1280), 256)])
def test_jittered_widths_keep_the_aspect_in_steps_of_32(size: tuple[int, int], expected: int) -> None:
    assert jitter_size(size, [128], np.random.default_rng(0)) == (128, expected)


def test_jitter_takes_every_height_of_the_list() -> None:
    generator = np.random.default_rng(0)
    assert {jitter_size((64, 128), [64, 96, 128], generator)[0] for _ in range(50)} == {64, 96, 128}


def test_a_window_has_its_share_of_both_sides_and_lies_inside() -> None:
    generator = np.random.default_rng(0)
    windows = [draw_window((100, 200), 0.5, generator) for _ in range(200)]
    assert {(window.height, window.width) for window in windows} == {(50, 100)}
    assert {window.top for window in windows} <= set(range(51))
    assert max(window.left for window in windows) > 90
    assert max(window.left + window.width for window in windows) <= 200
