"""KITTI-STEP: its colours become classes and tracks, and what is written is read again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.data.adapters.kitti_step import read_panoptic_map
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import write_png
from gestalt.data.writers import truth_writer
from gestalt.data.writers.kitti_step import to_step_colours
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap
from tests.data.test_mots import assert_same_truth
from tests.data.video import write_source

# Road, a group of cars, cars 1 and 300 (256 + 44), persons 1 and 1000, void, and a rider, who has no track.
COLOURS = [
    [[0, 0, 0], [13, 0, 0], [13, 0, 1], [13, 1, 44]],
    [[11, 0, 1], [11, 3, 232], [255, 0, 0], [12, 0, 0]],
]


def write_map(root, colours, name="0002/000000.png", split="val", **options):
    write_png(root / "panoptic_maps" / split / name, np.array(colours, np.uint8))
    return write_source(root, "kitti_step", **options)


@pytest.mark.parametrize("image", ["images/val/0002/000000.png", "training/image_02/0002/000000.png"])
def test_colours_become_classes_and_tracks(tmp_path, image):
    folder = write_map(tmp_path, COLOURS)
    (tmp_path / image).parent.mkdir(parents=True)
    (tmp_path / image).touch()
    (frame,) = find_ground_truth(folder)
    assert (frame.frame_id, frame.sequence, frame.number) == ("0002_000000", "0002", 0)
    assert frame.image == tmp_path / image
    found = read_ground_truth(frame, "kitti_step19", dataset_of(folder))
    np.testing.assert_array_equal(found.semantic_map, [[0, 13, 13, 13], [11, 11, VOID, 12]])
    # Numbers of tracks in KITTI-MOTS begin with 0; car 1 and person 1 are two objects.
    np.testing.assert_array_equal(found.instance_map, [[0, 0, 13000, 13299], [11000, 11999, 0, 0]])


def test_one_split_is_read(tmp_path):
    for split in ("train", "val"):
        write_map(tmp_path, COLOURS, f"{split}/000003.png", split)
    assert [frame.frame_id for frame in find_ground_truth(tmp_path)] == ["val_000003"]
    write_source(tmp_path, "kitti_step", split="train")
    assert [frame.frame_id for frame in find_ground_truth(tmp_path)] == ["train_000003"]


def test_void_has_no_instance(tmp_path):
    write_png(tmp_path / "a.png", np.array([[[255, 7, 7], [13, 0, 1]]], np.uint8))
    np.testing.assert_array_equal(read_panoptic_map(tmp_path / "a.png").instance_map, [[0, 13000]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), np.uint8), r"must be an 8-bit RGB PNG .* Got: uint8 \(2, 2\)"),
        (np.zeros((2, 2, 3), np.uint16), r"must be an 8-bit RGB PNG .* Got: uint16"),
        (np.zeros((2, 2, 4), np.uint8), r"must be an 8-bit RGB PNG .* Got: uint8 \(2, 2, 4\)"),
        (np.array([[[13, 3, 233]]], np.uint8), "at most 1000 instances, numbered from 1. Got: 1001"),
        (np.array([[[66, 0, 1]]], np.uint8), "class 66 cannot have instances"),
    ],
)
def test_what_is_no_map_of_the_form_is_refused(tmp_path, array, message):
    write_png(tmp_path / "a.png", array)
    with pytest.raises(DataError, match=rf"a\.png.*{message}"):
        read_panoptic_map(tmp_path / "a.png")


@given(st.integers(0, 2**32))
def test_colours_follow_from_the_map(seed):
    generator = np.random.default_rng(seed)
    semantic = generator.choice(np.array([0, 11, 13, VOID], np.uint8), (5, 7))
    number = np.where(np.isin(semantic, (11, 13)), generator.integers(0, 1001, (5, 7)), 0)
    instance = np.where(number > 0, semantic.astype(np.int64) * 1000 + number - 1, 0)
    colours = to_step_colours(PanopticMap(semantic, instance.astype(np.uint16))).astype(int)
    np.testing.assert_array_equal(colours[..., 0], semantic)
    np.testing.assert_array_equal(colours[..., 1] * 256 + colours[..., 2], number)


def test_what_is_written_is_read_again(tmp_path):
    source = find_ground_truth(write_map(tmp_path / "source", COLOURS))
    truth_writer("kitti_step")(source, tmp_path / "out", "kitti_step")
    assert_same_truth(source, find_ground_truth(write_source(tmp_path / "out", "kitti_step")))


def test_ids_of_another_data_set_are_held_too(tmp_path):
    ids = np.array([[0, 1000, 2999, 10000]], np.uint16)
    write_png(tmp_path / "source/instances/0002/000007.png", ids)
    source = find_ground_truth(write_source(tmp_path / "source", "mots"))
    truth_writer("kitti_step")(source, tmp_path / "out", "mots")
    folder = write_source(tmp_path / "out", "kitti_step", raw_ids="mots")
    assert dataset_of(folder) == "mots"
    assert_same_truth(source, find_ground_truth(folder))


def test_objects_with_other_names_are_refused(tmp_path):
    (frame,) = find_ground_truth(write_map(tmp_path / "source", COLOURS))
    maps = PanopticMap(np.full((1, 1), 13, np.uint8), np.full((1, 1), 5, np.uint16))
    with pytest.raises(
        DataError, match=r"frame 0002_000000 .* class 13 is called 13000 to 13999\. Got: 5; --renumber"
    ):
        truth_writer("kitti_step")([replace(frame, read=lambda: maps)], tmp_path / "out", "kitti_step")
    with pytest.raises(DataError, match="belongs to no sequence"):
        truth_writer("kitti_step")([replace(frame, sequence="")], tmp_path / "out", "kitti_step")
    with pytest.raises(DataError, match="are both frame 0002_000000"):
        truth_writer("kitti_step")([frame, replace(frame)], tmp_path / "out", "kitti_step")
    assert not (tmp_path / "out").exists()
