import dataclasses
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gestalt.data import conversion
from gestalt.data.conversion import convert_truth
from gestalt.data.ground_truth import dataset_of, find_frames, find_ground_truth
from gestalt.data.images import read_image, read_png, write_png
from gestalt.data.renumbering import renumber_objects
from gestalt.errors import ConfigError, DataError
from tests.data.truth import frame_of, panoptic, random_truth
from tests.data.video import SAMPLES, needs_samples


def assert_equal_truth(frames, others):
    assert [frame.frame_id for frame in frames] == [frame.frame_id for frame in others]
    for one, other in zip(frames, others, strict=True):
        expected, found = one.read(), other.read()
        np.testing.assert_array_equal(found.semantic_map, expected.semantic_map)
        np.testing.assert_array_equal(found.instance_map, expected.instance_map)


def bdd_frames(n=3):
    generator = np.random.default_rng(1)
    return [frame_of(f"f{number}", random_truth(generator, "bdd")) for number in range(n)]


def test_a_chain_through_all_forms_of_bdd_loses_nothing(tmp_path):
    frames = bdd_frames()
    found = frames
    for step, form in enumerate(["bdd", "bdd_scalabel", "coco_panoptic", "bdd"]):
        out = tmp_path / str(step)
        done = convert_truth(found, out, form, "bdd" if step == 0 else dataset_of(tmp_path / str(step - 1)))
        assert (done.n_frames, done.is_verified, done.n_images) == (3, True, 0)
        found = find_ground_truth(out)
    assert_equal_truth(frames, found)


@needs_samples
def test_the_real_cityscapes_frames_come_back_byte_for_byte_from_coco(tmp_path):
    frames = find_frames("cityscapes", SAMPLES / "cityscapes", {"split": "train"})[:1]
    convert_truth(frames, tmp_path / "coco", "coco_panoptic", "cityscapes", images="link")
    back = find_ground_truth(tmp_path / "coco")
    assert os.path.samefile(frames[0].image, back[0].image)
    convert_truth(back, tmp_path / "city", "cityscapes", "cityscapes", images="copy", verify=False)
    again = find_ground_truth(tmp_path / "city")
    for one, other in zip(frames, again, strict=True):
        np.testing.assert_array_equal(read_png(one.annotation), read_png(other.annotation))
        labels = [Path(str(frame.annotation).replace("instanceIds", "labelIds")) for frame in (one, other)]
        np.testing.assert_array_equal(read_png(labels[0]), read_png(labels[1]))
        assert one.image.read_bytes() == other.image.read_bytes()


@needs_samples
@pytest.mark.parametrize("form", ["bdd_scalabel", "coco_panoptic"])
def test_the_real_bitmasks_come_back_pixel_by_pixel(tmp_path, form):
    frames = find_frames("bdd", SAMPLES / "bdd100k", {"split": "val"})
    convert_truth(frames, tmp_path / "out", form, "bdd")
    convert_truth(find_ground_truth(tmp_path / "out"), tmp_path / "bdd", "bdd", "bdd")
    for frame, back in zip(frames, find_ground_truth(tmp_path / "bdd"), strict=True):
        np.testing.assert_array_equal(read_png(frame.annotation), read_png(back.annotation))


def test_images_keep_their_kind_and_those_inside_other_files_become_png(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    write_png(tmp_path / "a.png", pixels)
    frames = [
        dataclasses.replace(frame_of("a", panoptic([[7, 7, 7, 7]] * 2)), image=tmp_path / "a.png"),
        dataclasses.replace(frame_of("b", panoptic([[7, 7, 7, 7]] * 2)), read_image=partial(np.copy, pixels)),
        frame_of("c", panoptic([[7, 7, 7, 7]] * 2)),
    ]
    for form in ("bdd", "bdd_scalabel", "cityscapes", "coco_panoptic"):
        done = convert_truth(frames, tmp_path / form, form, "bdd", images="copy")
        assert (done.n_images, done.without_image) == (2, ("c",))
        images = {frame.frame_id: frame.image for frame in find_ground_truth(tmp_path / form)}
        for name in "ab":
            assert images[name].suffix == ".png"
            np.testing.assert_array_equal(read_image(images[name]), pixels)
        assert not images["c"].exists()


def test_a_form_that_reads_differently_is_caught_and_nothing_stays(tmp_path, monkeypatch):
    write = conversion.truth_writer("bdd")

    def lose_an_object(frames, out, dataset):
        write([frames[0], frame_of("f1", panoptic([[35, 35]], [[4, 4]])), *frames[2:]], out, dataset)

    monkeypatch.setattr(conversion, "truth_writer", lambda form: lose_an_object)
    frames = [bdd_frames()[0], frame_of("f1", panoptic([[35, 35]], [[4, 5]])), bdd_frames()[2]]
    message = "frame f1 is not the same.*1 pixels have another instance, such as row 0, column 1: 5 became 4"
    with pytest.raises(DataError, match=message):
        convert_truth(frames, tmp_path / "out", "bdd", "bdd")
    assert list(tmp_path.iterdir()) == []
    assert not convert_truth(frames, tmp_path / "out", "bdd", "bdd", verify=False).is_verified


def test_classes_of_another_data_set_are_named_before_any_work(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"the form bdd holds the classes of bdd\. Got ground truth with raw ids of cityscapes",
    ):
        convert_truth([frame_of("a", panoptic([[7]]))], tmp_path / "out", "bdd", "cityscapes")
    with pytest.raises(ConfigError, match="--images must be one of none, link, copy"):
        convert_truth([frame_of("a", panoptic([[7]]))], tmp_path / "out", "bdd", "bdd", images="move")


def test_sequences_that_a_form_has_no_place_for_are_told(tmp_path):
    frames = [frame_of("f4", panoptic([[7]]), sequence="v", number=4)]
    assert not convert_truth(frames, tmp_path / "a", "bdd", "bdd").keeps_sequences
    assert convert_truth(frames, tmp_path / "b", "coco_panoptic", "bdd").keeps_sequences


def test_objects_get_numbers_of_their_class_that_last_over_a_sequence():
    frames = [
        frame_of("b", panoptic([[26, 26, 24, 7]], [[9, 70, 80, 0]]), sequence="v", number=2),
        frame_of("a", panoptic([[26, 24, 7, 7]], [[70, 80, 0, 0]]), sequence="v", number=1),
        frame_of("c", panoptic([[26, 24]], [[1, 2]])),
        frame_of("d", panoptic([[26, 24]], [[26017, 24003]])),
    ]
    expected = [[[26001, 26000, 24000, 0]], [[26000, 24000, 0, 0]], [[26000, 24000]], [[26017, 24003]]]
    renumbered = renumber_objects(frames)
    assert [frame.read().instance_map.tolist() for frame in renumbered] == expected
    for before, after in zip(frames, renumbered, strict=True):
        np.testing.assert_array_equal(before.read().semantic_map, after.read().semantic_map)
        assert (before.frame_id, before.sequence) == (after.frame_id, after.sequence)


def test_renumbered_objects_fit_the_form_of_cityscapes(tmp_path):
    frames = bdd_frames()
    with pytest.raises(DataError, match="--renumber"):
        convert_truth(frames, tmp_path / "out", "cityscapes", "bdd")
    convert_truth(renumber_objects(frames), tmp_path / "out", "cityscapes", "bdd")
    assert dataset_of(tmp_path / "out") == "bdd"
    for frame, back in zip(frames, find_ground_truth(tmp_path / "out"), strict=True):
        before, after = frame.read(), back.read()
        pairs = np.unique(np.stack([before.instance_map, after.instance_map], -1).reshape(-1, 2), axis=0)
        # One new number for each old one, and no number twice.
        assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) > 3


def test_more_than_1000_objects_of_a_class_have_no_room():
    instances = np.arange(1, 1002).reshape(1, -1)
    with pytest.raises(DataError, match=r"frame a: .*Got: object 1001 of class 26"):
        renumber_objects([frame_of("a", panoptic(np.full_like(instances, 26), instances))])
    assert len(renumber_objects([frame_of("a", panoptic([[26] * 1000], instances[:, :1000]))])) == 1
