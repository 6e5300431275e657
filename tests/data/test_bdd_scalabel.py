import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gestalt.data.adapters import truth_adapter
from gestalt.data.adapters.bdd import read_bitmask
from gestalt.data.coco_runs import decode_runs
from gestalt.data.ground_truth import dataset_of, find_ground_truth
from gestalt.data.images import write_png
from gestalt.data.writers.bdd_scalabel import list_labels
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap
from tests.data.video import SAMPLES, needs_samples, write_source

RLES = "labels/pan_seg/rles/pan_seg_val.json"


def write_json(root, frames, config=None, **options):
    path = root / RLES
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(frames if config is None else {"frames": frames, "config": config}))
    return write_source(root, "bdd_scalabel", **options)


def rle(mask):
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def label(label_id, category, mask, **attributes):
    return {"id": label_id, "category": category, "rle": rle(mask), "attributes": attributes}


def square(x, y, side, size=(6, 8)):
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def polygon(label_id, category, x, y, side):
    vertices = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
    return {
        "id": label_id,
        "category": category,
        "poly2d": [{"vertices": vertices, "types": "LLLL", "closed": True}],
    }


def test_masks_are_painted_in_order_and_the_rest_is_unlabeled(tmp_path):
    labels = [
        label("7", "road", square(0, 0, 6)),
        label("900", "car", square(1, 1, 3)),
        label("31", "person", square(3, 3, 2)),
    ]
    frame = {"name": "a.jpg", "size": {"height": 6, "width": 8}, "labels": labels}
    folder = write_json(tmp_path, [frame])
    assert dataset_of(folder) == "bdd"
    (found,) = find_ground_truth(folder)
    assert (found.frame_id, found.image) == ("a", tmp_path / "images/10k/val/a.jpg")
    semantic, instance = np.zeros((6, 8), int), np.zeros((6, 8), int)
    for mask, class_id, number in (
        (square(0, 0, 6), 7, 0),
        (square(1, 1, 3), 35, 900),
        (square(3, 3, 2), 31, 31),
    ):
        semantic[mask], instance[mask] = class_id, number
    panoptic = found.read()
    np.testing.assert_array_equal(panoptic.semantic_map, semantic)
    np.testing.assert_array_equal(panoptic.instance_map, instance)


def test_polygons_and_masks_cover_each_other_in_the_order_of_the_file(tmp_path):
    labels = [
        polygon("x", "car", 0, 0, 4),
        label("y", "road", square(2, 2, 4)),
        polygon("z", "car", 3, 3, 2),
        polygon("w", "sky", 6, 0, 2),
    ]
    frame = {"name": "a.jpg", "labels": labels}
    (found,) = find_ground_truth(write_json(tmp_path, [frame], {"imageSize": {"height": 6, "width": 8}}))
    expected = np.zeros((6, 8), int)
    for mask, number in ((square(0, 0, 4), 31), (square(2, 2, 4), 0), (square(3, 3, 2), 32)):
        expected[mask] = number
    panoptic = found.read()
    np.testing.assert_array_equal(panoptic.instance_map, expected)
    np.testing.assert_array_equal(panoptic.semantic_map == 30, square(6, 0, 2))


def test_objects_of_a_video_have_one_number_in_all_its_frames(tmp_path):
    def frame(name, video, index, *ids):
        labels = [label(label_id, "car", square(2 * place, 0, 2)) for place, label_id in enumerate(ids)]
        size = {"height": 6, "width": 8}
        return {"name": name, "videoName": video, "frameIndex": index, "size": size, "labels": labels}

    frames = [
        frame("a1.jpg", "a", 0, "p", "q"),
        frame("a2.jpg", "a", 1, "q", "r"),
        frame("b1.jpg", "b", 0, "q"),
    ]
    found = find_ground_truth(write_json(tmp_path, frames))
    assert [(entry.sequence, entry.number) for entry in found] == [("a", 0), ("a", 1), ("b", 0)]
    assert [entry.read().instance_map[0, :4:2].tolist() for entry in found] == [[31, 32], [32, 33], [31, 0]]


@pytest.mark.parametrize("crowd_is_group", [False, True])
def test_marked_segments_are_left_out_in_both_forms_alike(tmp_path, crowd_is_group):
    labels = [
        label("40", "car", square(0, 0, 2), crowd=True),
        label("41", "car", square(2, 0, 2), ignored=True),
        label("42", "car", square(4, 0, 2), occluded=True),
        label("7", "road", square(0, 3, 2), ignored=True),
        label("10", "building", square(3, 3, 2), truncated=True),
    ]
    frame = {"name": "a.jpg", "size": {"height": 6, "width": 8}, "labels": labels}
    (found,) = find_ground_truth(write_json(tmp_path, [frame], crowd_is_group=crowd_is_group))
    bitmask = np.zeros((6, 8, 4), np.uint8)
    bits = {"crowd": 2, "ignored": 1, "occluded": 4, "truncated": 8}
    for entry in labels:
        (mark,) = entry["attributes"]
        category = {"car": 35, "road": 7, "building": 10}[entry["category"]]
        bitmask[coco_mask.decode(entry["rle"]).astype(bool)] = (category, bits[mark], 0, int(entry["id"]))
    write_png(tmp_path / "a.png", bitmask)
    expected, panoptic = read_bitmask(tmp_path / "a.png", crowd_is_group=crowd_is_group), found.read()
    np.testing.assert_array_equal(panoptic.semantic_map, expected.semantic_map)
    np.testing.assert_array_equal(panoptic.instance_map, expected.instance_map)
    assert (panoptic.semantic_map == VOID).any() == crowd_is_group
    assert set(np.unique(panoptic.instance_map)) == ({0, 42} if crowd_is_group else {0, 40, 41, 42})


def test_labels_hold_what_pycocotools_encodes():
    generator = np.random.default_rng(3)
    semantic = generator.choice(np.array([0, 7, 35, VOID], np.uint8), (13, 9))
    instance = np.where(semantic == 35, generator.integers(0, 3, (13, 9)) * 300, 0).astype(np.uint16)
    labels = list_labels(PanopticMap(semantic, instance))
    assert [(entry["id"], entry["category"]) for entry in labels] == [
        ("7", "road"),
        ("0", "car"),
        ("300", "car"),
        ("600", "car"),
        ("255", "void"),
    ]
    masks = [semantic == 7, *((semantic == 35) & (instance == n) for n in (0, 300, 600)), semantic == VOID]
    assert [entry["rle"] for entry in labels] == [rle(mask) for mask in masks]
    assert [entry["attributes"]["crowd"] for entry in labels] == [False, True, False, False, False]
    assert decode_runs(labels[0]["rle"]["counts"], 13 * 9).sum() == 13 * 9


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"rle": {"size": [5, 8], "counts": "0"}},
            r"frame a\.jpg: label 1 \(car\).*must be of \(6, 8\)\. Got: \(5, 8\)",
        ),
        (
            {"rle": {"size": [6, 8], "counts": "02"}},
            r"label 1 \(car\) has a broken mask.*must have 48 pixels",
        ),
        ({"rle": {"size": [6, 8]}}, "broken mask.*counts"),
        ({"poly2d": [{"vertices": [[0, 0], [1]], "types": "LL"}]}, r"frame a\.jpg has a broken polygon"),
        ({"poly2d": [{"vertices": [[0, 0], [1, 1]], "types": "L"}]}, "broken polygon.*N letters"),
    ],
)
def test_broken_labels_are_named(tmp_path, entry, message):
    frame = {
        "name": "a.jpg",
        "size": {"height": 6, "width": 8},
        "labels": [{"id": 1, "category": "car", **entry}],
    }
    (found,) = find_ground_truth(write_json(tmp_path, [frame]))
    with pytest.raises(DataError, match=message):
        found.read()


def test_unknown_categories_are_an_error_or_skipped_when_asked(tmp_path):
    labels = [label("1", "lane", square(0, 0, 2)), label("2", "car", square(2, 2, 2))]
    frame = {"name": "a.jpg", "size": {"height": 6, "width": 8}, "labels": labels}
    folder = write_json(tmp_path, [frame])
    with pytest.raises(DataError, match=r"frame a\.jpg: 'lane' is no category of BDD100K panoptic"):
        find_ground_truth(folder)
    write_source(tmp_path, "bdd_scalabel", skip_unknown=True)
    assert set(np.unique(find_ground_truth(folder)[0].read().semantic_map)) == {0, 35}


@pytest.mark.parametrize(
    "content", ['{"frames": 3}', "[1]", '[{"labels": []}]', "3", '{"config": {}}', '["a"]']
)
def test_files_of_another_form_are_refused(tmp_path, content):
    folder = write_json(tmp_path, [])
    (tmp_path / RLES).write_text(content)
    with pytest.raises(DataError, match="is not in Scalabel form"):
        find_ground_truth(folder)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("config_first", [False, True])
def test_a_mapping_is_read_however_it_is_laid_out(tmp_path, indent, config_first):
    frames = [{"name": f"{number}.jpg", "labels": [polygon("1", "car", number, 0, 2)]} for number in range(3)]
    content = {"frames": frames, "groups": None, "config": {"imageSize": {"height": 6, "width": 8}}}
    folder = write_json(tmp_path, [])
    ordered = dict(reversed(content.items())) if config_first else content
    (tmp_path / RLES).write_text(f"\n {json.dumps(ordered, indent=indent)} \n")
    found = find_ground_truth(folder)
    assert [frame.frame_id for frame in found] == ["0", "1", "2"]
    np.testing.assert_array_equal(found[2].read().semantic_map == 35, square(2, 0, 2))


@pytest.mark.parametrize("is_mapping", [False, True])
def test_a_file_that_is_cut_anywhere_is_explained(tmp_path, is_mapping):
    frames = [{"name": f"{number}.jpg", "labels": []} for number in range(2)]
    folder = write_json(tmp_path, frames, {"a": 1} if is_mapping else None)
    whole = (tmp_path / RLES).read_text()
    for length in range(1, len(whole)):
        (tmp_path / RLES).write_text(whole[:length])
        with pytest.raises(DataError, match="is not JSON, or cut short"):
            find_ground_truth(folder)


def test_a_frame_without_labels_is_unlabeled_at_the_usual_size(tmp_path):
    (frame,) = find_ground_truth(write_json(tmp_path, [{"name": "a.jpg", "labels": None}]))
    assert frame.read().size == (720, 1280)
    assert not frame.read().semantic_map.any()


@needs_samples
def test_the_real_polygons_are_the_real_bitmask_pixel_by_pixel():
    options = {"json": "labels/pan_seg/polygons/panseg_bdd100k.json", "split": "train"}
    (polygons,) = truth_adapter("bdd_scalabel")(SAMPLES / "bdd100k", options)
    (bitmask,) = truth_adapter("bdd")(SAMPLES / "bdd100k", {"split": "train"})
    assert polygons.frame_id == bitmask.frame_id == "panseg_mask"
    found, expected = polygons.read(), bitmask.read()
    np.testing.assert_array_equal(found.semantic_map, expected.semantic_map)
    np.testing.assert_array_equal(found.instance_map, expected.instance_map)
    assert set(np.unique(found.instance_map)) == {0, 31, 32}


@needs_samples
def test_the_real_coco_form_of_a_bitmask_is_the_bitmask(tmp_path):
    sample = SAMPLES / "bdd100k_coco_panoptic"
    annotation = json.loads((sample / "panseg_coco.json").read_text())
    categories = [{"id": number, "isthing": int(number > 30)} for number in range(41)]
    content = {
        "images": [{"id": 255, "file_name": "x.jpg"}],
        "annotations": [annotation],
        "categories": categories,
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    options = {"json": str(tmp_path.resolve() / "panoptic.json"), "annotations": ".", "raw_ids": "bdd"}
    folder = write_source(tmp_path, "coco_panoptic", str(sample.resolve()), **options)
    (frame,) = find_ground_truth(folder)
    assert dataset_of(folder) == "bdd"
    found = frame.read()
    expected = read_bitmask(SAMPLES / "bdd100k/labels/pan_seg/bitmasks/train/panseg_mask.png")
    # That form calls void what is unlabeled.
    np.testing.assert_array_equal(
        np.where(found.semantic_map == VOID, 0, found.semantic_map), expected.semantic_map
    )
    np.testing.assert_array_equal(found.instance_map, expected.instance_map)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"labels": "abc"}, "not in Scalabel form"),
        ({"labels": [1]}, "not in Scalabel form"),
        ({"labels": [{"category": "car", "rle": {}}]}, "frame a is not in Scalabel form: KeyError"),
        ({"frameIndex": "x"}, "frame a is not in Scalabel form: ValueError"),
        ({"size": {"height": -1, "width": 5}}, "a size must have a height and a width, 1 to 65535"),
        ({"size": {"height": 1, "width": 10**6}}, "a size must have a height and a width, 1 to 65535"),
    ],
)
def test_frames_of_another_form_are_refused(tmp_path, frame, message):
    with pytest.raises(DataError, match=message):
        find_ground_truth(write_json(tmp_path, [{"name": "a", **frame}]))


@pytest.mark.parametrize("content", ['[{"name": "a"}] x', '{"frames": [{"name": "a"}]}{}'])
def test_what_follows_the_end_is_no_part_of_the_file(tmp_path, content):
    folder = write_json(tmp_path, [])
    (tmp_path / RLES).write_text(content)
    with pytest.raises(DataError, match="expected the end"):
        find_ground_truth(folder)


def test_outlines_have_numbers(tmp_path):
    broken = polygon("1", "car", 1, 1, 3)
    broken["poly2d"][0]["vertices"][0][0] = float("nan")
    (frame,) = find_ground_truth(write_json(tmp_path, [{"name": "a", "labels": [broken]}]))
    with pytest.raises(DataError, match="frame a has a broken polygon"):
        frame.read()
