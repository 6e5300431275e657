from __future__ import annotations

import numpy as np
import pytest

from gestalt.errors import DataError
from gestalt.network.records import ImageTarget
from gestalt.panoptic import VOID, Vocabulary
from gestalt.training.batch import collate
from gestalt.training.sample import TrainingSample, mask_box, sample_from_pseudo_label

VOCABULARY = Vocabulary(things=(3, 1), stuff=(0, 2))


def label(semantic: list[list[int]], instance: list[list[int]], *, ignore: bool = False) -> TrainingSample:
    maps = np.array(semantic, np.uint8), np.array(instance, np.uint16)
    image = np.zeros((*maps[0].shape, 3), np.uint8)
    return sample_from_pseudo_label(image, *maps, VOCABULARY, ignore_uncovered_things=ignore, name="frame")


def sample_to_target(sample: TrainingSample, min_object_px: int) -> ImageTarget:
    (target,) = collate([sample], min_object_px).targets
    return target


def test_things_become_zero_and_stuff_its_place_in_the_order() -> None:
    sample = label([[0, 2, 3, 1, VOID]], [[0, 0, 1, 2, 0]])
    assert sample.semantic.tolist() == [[1, 2, 0, 0, VOID]]
    assert sample.classes == (0, 1)


def test_uncovered_things_stay_thing_or_become_void_as_the_switch_says() -> None:
    semantic, instance = [[3, 3, 1, 0]], [[1, 1, 0, 0]]
    assert label(semantic, instance).semantic.tolist() == [[0, 0, 0, 1]]
    assert label(semantic, instance, ignore=True).semantic.tolist() == [[0, 0, VOID, 1]]


def test_an_instance_whose_majority_is_stuff_is_no_object_and_its_area_is_void() -> None:
    sample = label([[2, 2, 3, 0, 3]], [[7, 7, 7, 0, 9]])
    assert sample.semantic.tolist() == [[VOID, VOID, VOID, 1, 0]]
    assert sample.instance.tolist() == [[0, 0, 0, 0, 1]]
    assert sample.classes == (0,)


def test_the_class_of_an_object_is_its_majority_and_void_does_not_vote() -> None:
    sample = label([[VOID, VOID, VOID, 1, 1, 3]], [[1, 1, 1, 1, 1, 1]])
    assert sample.classes == (1,)
    assert sample.semantic.tolist() == [[0, 0, 0, 0, 0, 0]]


def test_an_object_of_class_zero_is_handled_like_any_other() -> None:
    vocabulary = Vocabulary(things=(0,), stuff=(1,))
    maps = np.array([[0, 1]], np.uint8), np.array([[5, 0]], np.uint16)
    sample = sample_from_pseudo_label(
        np.zeros((1, 2, 3), np.uint8), *maps, vocabulary, ignore_uncovered_things=False, name="frame"
    )
    assert sample.classes == (0,)
    assert sample.semantic.tolist() == [[0, 1]]


def test_ids_above_255_stay_apart() -> None:
    sample = label([[3, 3, 1, 1]], [[256, 256, 512, 512]])
    assert sample.instance.tolist() == [[1, 1, 2, 2]]
    assert sample.classes == (0, 1)


def test_labels_of_another_size_than_the_image_are_refused() -> None:
    maps = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint16)
    with pytest.raises(DataError, match=r"day/7: image \(2, 4\), semantic \(4, 4\).*dvc repro pseudo_labels"):
        sample_from_pseudo_label(
            np.zeros((2, 4, 3), np.uint8), *maps, VOCABULARY, ignore_uncovered_things=False, name="day/7"
        )


def test_a_class_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match=r"frame: pseudo-classes \[17\] are not in the vocabulary of 4"):
        label([[0, 17]], [[0, 0]])


def test_an_object_one_pixel_wide_has_a_box_of_width_one() -> None:
    target = sample_to_target(label([[0, 3, 0], [0, 3, 0]], [[0, 1, 0], [0, 1, 0]]), 1)
    assert target.boxes.tolist() == [[1, 0, 2, 2]]
    assert target.masks[0].sum() == 2


def test_small_objects_leave_the_list_and_their_pixels_are_void() -> None:
    target = sample_to_target(label([[3, 1, 1, 1, 0]], [[1, 2, 2, 2, 0]]), 2)
    assert target.classes.tolist() == [1]
    assert target.semantic.tolist() == [[VOID, 0, 0, 0, 1]]


def test_boxes_are_tight_and_exclusive() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    mask[7, 4] = True
    x0, y0, x1, y1 = mask_box(mask)
    assert (x0, y0, x1, y1) == (3, 2, 9, 8)
