import json
import pickle
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.adapters.bdd import read_bitmask
from gestalt.data.adapters.cityscapes import read_instance_ids
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import read_png, write_png
from gestalt.data.records import GroundTruthFrame
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import VOID, ids_to_rgb
from tests.data.video import SAMPLES, needs_samples, write_source


def truth_of(path, read=read_instance_ids):
    return GroundTruthFrame("f", path, path, partial(read, path))


def write_ids(path, rows):
    write_png(path, np.array(rows, np.uint16))


def test_cityscapes_form_becomes_classes_and_instances(tmp_path):
    write_ids(
        tmp_path / "gtFine/val/x/x_000000_000019_gtFine_instanceIds.png",
        [[7, 24000, 24001, 26], [3, 29005, 23, 9]],
    )
    (frame,) = find_ground_truth(write_source(tmp_path, "cityscapes"))
    assert frame.frame_id == "x_000000_000019"
    assert frame.image == tmp_path / "leftImg8bit/val/x/x_000000_000019_leftImg8bit.png"
    fine = read_ground_truth(frame, "cityscapes27", "cityscapes")
    np.testing.assert_array_equal(fine.semantic_map, [[0, 17, 17, 19], [VOID, 22, 16, 2]])
    np.testing.assert_array_equal(fine.instance_map, [[0, 24000, 24001, 0], [0, 29005, 0, 0]])
    coarse = read_ground_truth(frame, "cityscapes19", "cityscapes")
    # The caravan is void among the 19, and void has no instance.
    np.testing.assert_array_equal(coarse.semantic_map, [[0, 11, 11, 13], [VOID, VOID, 10, VOID]])
    np.testing.assert_array_equal(coarse.instance_map, [[0, 24000, 24001, 0], [0, 0, 0, 0]])


def test_all_splits_are_read_unless_one_is_named(tmp_path):
    for split in ("train", "val"):
        write_ids(tmp_path / f"gtFine/{split}/x/x_{split}_gtFine_instanceIds.png", [[7]])
    assert len(find_ground_truth(write_source(tmp_path, "cityscapes"))) == 2
    assert len(find_ground_truth(write_source(tmp_path, "cityscapes", split="val"))) == 1


def test_kitti_panoptic_uses_cityscapes_ids(tmp_path):
    write_ids(tmp_path / "instances" / "000001_10.png", [[7, 26001]])
    folder = write_source(tmp_path, "kitti_panoptic")
    (frame,) = find_ground_truth(folder)
    assert frame.image == tmp_path / "images" / "000001_10.png"
    found = read_ground_truth(frame, "cityscapes19", dataset_of(folder))
    np.testing.assert_array_equal(found.semantic_map, [[0, 13]])
    np.testing.assert_array_equal(found.instance_map, [[0, 26001]])


def test_bdd_bitmasks_have_instances_on_things_only(tmp_path):
    # Category, attributes, instance high, instance low.
    mask = np.array([[[7, 0, 0, 7], [31, 4, 1, 2], [35, 0, 0, 9], [0, 0, 0, 0]]], np.uint8)
    write_png(tmp_path / "labels/pan_seg/bitmasks/val/a.png", mask)
    folder = write_source(tmp_path, "bdd")
    (frame,) = find_ground_truth(folder)
    assert frame.image == tmp_path / "images/10k/val/a.jpg"
    found = read_ground_truth(frame, "cityscapes19", dataset_of(folder))
    np.testing.assert_array_equal(found.semantic_map, [[0, 11, 13, VOID]])
    np.testing.assert_array_equal(found.instance_map, [[0, 258, 9, 0]])


def test_waymo_instances_are_class_and_number(tmp_path):
    write_png(tmp_path / "semantic/f.png", np.array([[2, 2, 9, 9, 20, 0]], np.uint8))
    write_ids(tmp_path / "instance/f.png", [[1, 0, 1, 2, 0, 4]])
    folder = write_source(tmp_path, "waymo")
    (frame,) = find_ground_truth(folder)
    assert frame.image == tmp_path / "images/f.jpg"
    found = read_ground_truth(frame, "cityscapes19", dataset_of(folder))
    np.testing.assert_array_equal(found.semantic_map, [[13, 13, 11, 11, 0, VOID]])
    np.testing.assert_array_equal(found.instance_map, [[2001, 0, 9001, 9002, 0, 0]])
    write_png(tmp_path / "images/f.png", np.zeros((1, 6, 3), np.uint8))
    assert find_ground_truth(folder)[0].image == tmp_path / "images/f.png"


def test_waymo_where_every_pixel_has_an_instance(tmp_path):
    write_png(tmp_path / "semantic/f.png", np.array([[2, 9]], np.uint8))
    write_ids(tmp_path / "instance/f.png", [[5, 5]])
    (frame,) = find_ground_truth(write_source(tmp_path, "waymo"))
    np.testing.assert_array_equal(frame.read().instance_map, [[2005, 9005]])


def test_waymo_maps_must_fit_together(tmp_path):
    write_png(tmp_path / "semantic/f.png", np.array([[2, 9]], np.uint8))
    write_ids(tmp_path / "instance/f.png", [[5]])
    (frame,) = find_ground_truth(write_source(tmp_path, "waymo"))
    with pytest.raises(DataError, match=r"one channel and one size\. Got: \(1, 2\) and \(1, 1\)"):
        frame.read()


def write_coco(root, ids, segments, **options):
    write_png(root / "panoptic/a.png", ids_to_rgb(np.array(ids)))
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 7, "isthing": 0}, {"id": 26, "isthing": 1}],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    return write_source(root, "coco_panoptic", **options)


@pytest.mark.parametrize("crowd_is_void", [False, True])
def test_coco_segments_become_classes_and_instances(tmp_path, crowd_is_void):
    segments = [
        {"id": 300, "category_id": 26, "iscrowd": 0},
        {"id": 70000, "category_id": 26, "iscrowd": 1},
        {"id": 5, "category_id": 7, "iscrowd": 0},
    ]
    folder = write_coco(tmp_path, [[300, 70000, 5, 0]], segments, crowd_is_void=crowd_is_void)
    (frame,) = find_ground_truth(folder)
    assert frame.image == tmp_path / "images/a.jpg"
    found = read_ground_truth(frame, "cityscapes19", dataset_of(folder))
    np.testing.assert_array_equal(found.semantic_map, [[13, VOID if crowd_is_void else 13, 0, VOID]])
    np.testing.assert_array_equal(found.instance_map, [[300, 0, 0, 0]])


def test_coco_files_that_do_not_fit_together_say_so(tmp_path):
    (frame,) = find_ground_truth(write_coco(tmp_path, [[1, 2]], [{"id": 1, "category_id": 7}]))
    with pytest.raises(DataError, match="holds segment 2, which the JSON does not list"):
        frame.read()
    folder = write_coco(tmp_path, [[1, 1]], [{"id": 1, "category_id": 700}])
    with pytest.raises(
        DataError, match=r"every category must stand in `categories`\. Got: 700, such as in a\.png"
    ):
        find_ground_truth(folder)
    (tmp_path / "panoptic.json").write_text("{}")
    with pytest.raises(DataError, match="is not in COCO panoptic form"):
        find_ground_truth(tmp_path)
    (tmp_path / "panoptic.json").unlink()
    with pytest.raises(DataError, match=r"panoptic\.json does not exist"):
        find_ground_truth(tmp_path)


def test_wrong_forms_are_refused(tmp_path):
    write_png(tmp_path / "rgb.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"rgb\.png: an instance-id map must be \(H, W\)"):
        read_instance_ids(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="8-bit RGBA PNG"):
        read_bitmask(tmp_path / "rgb.png")


def test_no_ground_truth_and_repeated_ids_are_errors(tmp_path):
    with pytest.raises(DataError, match="no ground truth in the layout of bdd under"):
        find_ground_truth(write_source(tmp_path, "bdd"))
    for split in ("train", "val"):
        write_ids(tmp_path / f"gtFine/{split}/x/x_gtFine_instanceIds.png", [[7]])
    with pytest.raises(DataError, match="two annotations have the frame id x"):
        find_ground_truth(write_source(tmp_path, "cityscapes"))


def test_a_label_space_of_another_data_set_is_a_mistake(tmp_path):
    write_ids(tmp_path / "instances/1/1.png", [[0]])
    (frame,) = find_ground_truth(write_source(tmp_path, "mots"))
    with pytest.raises(ConfigError, match="ground truth of mots has no label space 'cityscapes19'"):
        read_ground_truth(frame, "cityscapes19", "mots")


def test_frames_can_be_sent_to_workers(tmp_path):
    write_ids(tmp_path / "instances/1/1.png", [[2001]])
    (frame,) = find_ground_truth(write_source(tmp_path, "mots"))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frame)).read().semantic_map, [[2]])


@needs_samples
def test_the_real_cityscapes_frames_have_the_expected_counts():
    expected = json.loads((SAMPLES / "cityscapes" / "expected_counts.json").read_text())
    # One frame of each split; reading all twelve proves no more.
    for name in (min(expected), max(expected)):
        path = SAMPLES / name
        raw = read_instance_ids(path)
        found = read_ground_truth(truth_of(path), "cityscapes19", "cityscapes")
        np.testing.assert_array_equal(
            read_png(Path(str(path).replace("instanceIds", "labelIds"))), raw.semantic_map
        )
        for entry in expected[name].values():
            inside = raw.semantic_map == (entry["label_id"] % 256)
            numbers = raw.instance_map[inside]
            assert inside.sum() == entry["pixels"]
            assert len(np.unique(numbers[numbers > 0])) == entry["instances"]
            assert set(np.unique(found.semantic_map[inside])) == {entry["train_id"] % 256}


@needs_samples
def test_the_real_bdd_masks_have_things_numbered_apart_from_stuff():
    folder = SAMPLES / "bdd100k" / "labels" / "pan_seg" / "bitmasks" / "val"
    found = read_ground_truth(truth_of(folder / "a.png", read_bitmask), "cityscapes19", "bdd")
    raw = read_bitmask(folder / "a.png")
    assert raw.size == (720, 1280)
    # a.png holds one bus and four cars.
    counts = {raw_id: len(np.unique(raw.instance_map[raw.semantic_map == raw_id])) for raw_id in (34, 35)}
    assert counts == {34: 1, 35: 4}
    assert (found.instance_map[found.semantic_map < 11] == 0).all()
    assert (found.semantic_map == 0).sum() == (raw.semantic_map == 7).sum()


@needs_samples
def test_the_real_coco_sample_has_its_listed_areas(tmp_path):
    sample = SAMPLES / "coco_panoptic_sample"
    content = json.loads((sample / "panoptic_examples.json").read_text())
    options = {"json": "panoptic_examples.json", "annotations": "panoptic_examples", "images": "input_images"}
    frames = find_ground_truth(write_source(tmp_path, "coco_panoptic", str(sample), **options))
    assert [frame.image.exists() for frame in frames] == [True, True]
    by_name = {entry["file_name"]: entry["segments_info"] for entry in content["annotations"]}
    for frame in frames:
        raw = frame.read()
        areas = Counter(raw.semantic_map[raw.semantic_map != VOID].tolist())
        expected = Counter()
        for info in by_name[frame.annotation.name]:
            expected[info["category_id"]] += info["area"]
        assert areas == expected
