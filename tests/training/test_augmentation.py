from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.training.augmentation import change_colours, flip, flip_and_crop, jitter_size, resize
from gestalt.training.sample import TrainingSample

QUIET = {"blur_prob": 0.0, "colour_prob": 0.0, "grey_prob": 0.0}


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


def test_colours_stay_when_no_change_is_drawn() -> None:
    settings = dataclasses.replace(default_settings("guided").augmentation.photometric, **QUIET)
    image = coded_sample().image
    assert (change_colours(image, np.random.default_rng(0), settings) == image).all()


def test_a_grey_image_has_equal_channels() -> None:
    settings = dataclasses.replace(
        default_settings("guided").augmentation.photometric, **QUIET | {"grey_prob": 1.0}
    )
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey = change_colours(image, np.random.default_rng(0), settings)
    assert (grey == grey[..., :1]).all()


def test_a_full_turn_of_the_hue_changes_nothing_and_half_a_turn_swaps_red_for_cyan() -> None:
    settings = dataclasses.replace(
        default_settings("guided").augmentation.photometric,
        **QUIET | {"colour_prob": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    )
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    changed = change_colours(image, np.random.default_rng(0), settings)
    assert np.abs(changed.astype(int) - image).max() <= 1


def test_later_draws_do_not_depend_on_what_happened_to_the_colours() -> None:
    settings = default_settings("guided").augmentation.photometric
    image = coded_sample().image
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    change_colours(image, first, settings)
    change_colours(image, second, dataclasses.replace(settings, **QUIET))
    assert first.random() == second.random()
