import numpy as np
import pytest
import torch

from gestalt.network.panoptic_model import COLOUR_MEAN, COLOUR_STD
from gestalt.panoptic import VOID
from gestalt.training.augmentation import resize
from gestalt.training.sample import TrainingSample
from gestalt.training.zoom import PADDING_COLOUR, cut_window, fit_and_zoom, scale_to_rows


@pytest.fixture
def sample() -> TrainingSample:
    """Every pixel is another one, so that places can be recognised."""
    numbers = np.arange(8 * 12).reshape(8, 12)
    image = np.repeat(numbers[..., None], 3, -1).astype(np.uint8)
    return TrainingSample(image, numbers.astype(np.uint8), (numbers % 3).astype(np.uint16), (0, 1))


def zoom(sample: TrainingSample, size: tuple[int, int], factor: float, seed: int = 0) -> TrainingSample:
    generator = np.random.default_rng(seed)
    return fit_and_zoom(sample, size, generator, scale_low=factor, scale_high=factor)


def test_the_factor_one_at_the_images_own_size_changes_nothing(sample: TrainingSample) -> None:
    window = zoom(sample, sample.size, 1.0)
    assert np.array_equal(window.image, sample.image)
    assert np.array_equal(window.semantic, sample.semantic)
    assert np.array_equal(window.instance, sample.instance)
    assert window.classes == sample.classes


@pytest.mark.parametrize("seed", range(5))
def test_a_large_image_is_cut_at_a_place_of_its_own(sample: TrainingSample, seed: int) -> None:
    window, large = zoom(sample, sample.size, 2.0, seed), resize(sample, (16, 24))
    places = [
        (top, left)
        for top in range(9)
        for left in range(13)
        if np.array_equal(large.image[top : top + 8, left : left + 12], window.image)
        and np.array_equal(large.semantic[top : top + 8, left : left + 12], window.semantic)
        and np.array_equal(large.instance[top : top + 8, left : left + 12], window.instance)
    ]
    assert len(places) == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_small_image_lies_whole_in_void(sample: TrainingSample, seed: int) -> None:
    window, small = zoom(sample, sample.size, 0.5, seed), resize(sample, (4, 6))
    is_void = window.semantic == VOID
    assert (~is_void).sum() == 4 * 6
    rows, columns = np.nonzero(~is_void)
    inside = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.array_equal(window.image[inside], small.image)
    assert np.array_equal(window.semantic[inside], small.semantic)
    assert (window.image[is_void] == PADDING_COLOUR).all()
    assert not window.instance[is_void].any()


def test_places_differ(sample: TrainingSample) -> None:
    assert len({zoom(sample, sample.size, 2.0, seed).image.tobytes() for seed in range(20)}) > 10


def test_images_of_other_sizes_and_aspects_fill_the_rows_of_the_window(sample: TrainingSample) -> None:
    window = zoom(sample, (16, 16), 1.0)
    assert window.size == (16, 16)
    assert (window.semantic != VOID).all()
    narrow = zoom(sample, (16, 30), 1.0)
    assert (narrow.semantic != VOID).any(1).all()
    assert (narrow.semantic != VOID).any(0).sum() == 24


def test_a_window_by_hand() -> None:
    ones = np.ones((2, 2), np.uint8)
    sample = TrainingSample(
        np.full((2, 2, 3), 9, np.uint8), np.array([[1, 2], [3, 4]], np.uint8), ones.astype(np.uint16), (0,)
    )
    window = cut_window(sample, (1, -1), (3, 2))
    assert window.semantic.tolist() == [[255, 255], [2, 255], [4, 255]]
    assert window.instance.tolist() == [[0, 0], [1, 0], [1, 0]]
    assert window.image[1, 0].tolist() == [9, 9, 9]


def test_padding_is_what_the_network_pads_with() -> None:
    colour = torch.tensor(PADDING_COLOUR) / 255
    normalised = (colour - torch.tensor(COLOUR_MEAN)) / torch.tensor(COLOUR_STD)
    assert normalised.abs().max() < 0.5 / 255 / min(COLOUR_STD) + 1e-6


def test_rows_are_what_was_asked_for(sample: TrainingSample) -> None:
    assert scale_to_rows(sample, 4).size == (4, 6)
    assert scale_to_rows(sample, 8) is sample
