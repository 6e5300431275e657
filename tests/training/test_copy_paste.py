from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.config.training import PasteSettings
from gestalt.network.merge import PaintedInstance
from gestalt.network.records import ImageTarget
from gestalt.training.batch import collate
from gestalt.training.copy_paste import (
    PasteCandidate,
    PredictionQueue,
    label_candidates,
    novel_candidates,
    paste_objects,
)
from gestalt.training.sample import THING_LABEL, TrainingSample


@pytest.fixture
def settings() -> PasteSettings:
    embedded: PasteSettings = default_settings("self_training").copy_paste
    return dataclasses.replace(embedded, min_objects=3, max_objects=3, scale_low=1.0, scale_high=1.0)


def sample_to_target(sample: TrainingSample, min_object_px: int) -> ImageTarget:
    (target,) = collate([sample], min_object_px).targets
    return target


def plain_sample() -> TrainingSample:
    image = np.random.default_rng(0).integers(0, 100, (40, 60, 3), dtype=np.uint8)
    semantic = np.full((40, 60), 2, np.uint8)
    instance = np.zeros((40, 60), np.uint16)
    semantic[5:15, 5:20], instance[5:15, 5:20] = 0, 1
    return TrainingSample(image, semantic, instance, (0,))


def disc(thing_class: int = 1) -> PasteCandidate:
    rows, columns = np.mgrid[:13, :13]
    image = np.random.default_rng(9).integers(150, 256, (13, 13, 3), dtype=np.uint8)
    return PasteCandidate(image, (rows - 6) ** 2 + (columns - 6) ** 2 <= 36, thing_class)


@pytest.mark.parametrize("seed", range(6))
def test_pasted_pixels_are_those_of_the_source_and_nothing_else_changes(
    seed: int, settings: PasteSettings
) -> None:
    sample, candidate = plain_sample(), disc()
    pasted = paste_objects(sample, [candidate], np.random.default_rng(seed), settings)
    is_new = pasted.instance > 1
    assert (pasted.image[~is_new] == sample.image[~is_new]).all()
    assert (pasted.semantic[is_new] == THING_LABEL).all()
    assert (pasted.semantic[~is_new] == sample.semantic[~is_new]).all()
    top_object = pasted.instance == 4  # the last one is covered by nobody
    crop = pasted.image[top_object]
    source = candidate.image[candidate.mask]
    mirrored = candidate.image[:, ::-1][candidate.mask[:, ::-1]]
    assert (crop == source).all() or (crop == mirrored).all()


def test_objects_grow_by_the_pasted_ones_without_those_that_vanished(settings: PasteSettings) -> None:
    sample = plain_sample()
    for seed in range(20):
        pasted = paste_objects(sample, [disc()], np.random.default_rng(seed), settings)
        areas = np.bincount(pasted.instance.ravel(), minlength=5)[1:]
        target = sample_to_target(pasted, 1)
        assert len(target.boxes) == 4 - int((areas == 0).sum())
        assert (target.masks.sum(0) <= 1).all()


def test_a_fully_covered_object_is_removed_and_a_half_covered_one_gets_a_tight_box(
    settings: PasteSettings,
) -> None:
    one = dataclasses.replace(settings, min_objects=1, max_objects=1)
    whole = PasteCandidate(np.full((40, 60, 3), 200, np.uint8), np.ones((40, 60), bool), 1)
    target = sample_to_target(paste_objects(plain_sample(), [whole], np.random.default_rng(0), one), 1)
    assert target.classes.tolist() == [1]
    assert target.boxes.tolist() == [[0, 0, 60, 40]]
    right = PasteCandidate(np.full((40, 60, 3), 200, np.uint8), np.tile(np.arange(60) >= 12, (40, 1)), 1)
    for seed in range(10):
        pasted = paste_objects(plain_sample(), [right], np.random.default_rng(seed), one)
        if pasted.instance[0, 0] == 0:  # not mirrored: columns 12.. are covered
            assert sample_to_target(pasted, 1).boxes[0].tolist() == [5, 5, 12, 15]
            return
    pytest.fail("the object was mirrored ten times")


def test_class_and_crop_stay_together_when_small_objects_are_skipped() -> None:
    sample = plain_sample()
    sample.instance[30:33, 30:33] = 2  # too small
    sample.instance[20:38, 40:58] = 3
    both = TrainingSample(sample.image, sample.semantic, sample.instance, (0, 5, 7))
    found = label_candidates([both], min_side_px=8)
    assert [(entry.thing_class, entry.mask.shape) for entry in found] == [(0, (10, 15)), (7, (18, 18))]
    assert (found[1].image == sample.image[20:38, 40:58]).all()


def test_no_candidate_leaves_the_sample_as_it_is(settings: PasteSettings) -> None:
    sample = plain_sample()
    assert paste_objects(sample, [], np.random.default_rng(0), settings) is sample


def test_an_object_larger_than_the_image_is_shrunk_into_it(settings: PasteSettings) -> None:
    huge = PasteCandidate(np.full((200, 50, 3), 200, np.uint8), np.ones((200, 50), bool), 1)
    one = dataclasses.replace(settings, min_objects=1, max_objects=1, scale_low=1.5, scale_high=1.5)
    pasted = paste_objects(plain_sample(), [huge], np.random.default_rng(0), one)
    assert (pasted.instance == 2).sum() == 40 * 10


def test_only_objects_that_no_label_knows_are_novel() -> None:
    sample = plain_sample()
    predicted = np.zeros((40, 60), np.uint16)
    predicted[6:15, 5:20] = 1  # the labelled one again
    predicted[20:38, 30:50] = 2
    predicted[0:3, 50:53] = 3  # too small
    objects = [PaintedInstance(0, 0.9, 135), PaintedInstance(1, 0.8, 360), PaintedInstance(1, 0.8, 9)]
    (found,) = novel_candidates(sample, predicted, objects, novel_iou=0.5, min_side_px=5)
    assert found.thing_class == 1
    assert (found.image == sample.image[20:38, 30:50]).all()


def test_a_queue_forgets_the_oldest_and_survives_saving() -> None:
    queue = PredictionQueue(2)
    queue.extend(disc(number) for number in range(3))
    assert [entry.thing_class for entry in queue.candidates()] == [1, 2]
    restored = PredictionQueue(2)
    restored.load_state_dict(queue.state_dict())
    for ours, theirs in zip(restored.candidates(), queue.candidates(), strict=True):
        assert (ours.image == theirs.image).all()
        assert (ours.mask == theirs.mask).all()
        assert ours.thing_class == theirs.thing_class
