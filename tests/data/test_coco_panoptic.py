import json

import numpy as np
import pytest

from gestalt.data.adapters import truth_adapter
from gestalt.data.coco_files import CocoSegment, read_coco_panoptic, read_segment_ids, segment_positions
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import read_png, write_png
from gestalt.data.label_spaces import load_label_space, raw_classes, raw_id_table
from gestalt.errors import DataError
from gestalt.panoptic import VOID, ids_to_rgb
from tests.data.video import SAMPLES, needs_samples, write_source

CATEGORIES = [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]


def write_coco(root, pictures, images=None, **options):
    """A folder in COCO panoptic form: {name: (ids, segments_info)}."""
    annotations = []
    for name, (ids, segments) in pictures.items():
        write_png(root / "panoptic" / f"{name}.png", ids_to_rgb(np.array(ids)))
        annotations.append({"image_id": name, "file_name": f"{name}.png", "segments_info": segments})
    images = images or [{"id": name, "file_name": f"{name}.jpg"} for name in pictures]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "panoptic.json").write_text(json.dumps(content))
    return write_source(root, "coco_panoptic", **options)


def car(segment_id, **more):
    return {"id": segment_id, "category_id": 26, "iscrowd": 0, **more}


def test_objects_keep_ids_of_16_bits_over_a_video(tmp_path):
    pictures = {
        "b": ([[26005, 7]], [car(26005), {"id": 7, "category_id": 7}]),
        "a": ([[40, 26005]], [car(40), car(26005)]),
    }
    images = [
        {"id": "a", "file_name": "a.jpg", "sequence": "v", "number": 3},
        {"id": "b", "file_name": "b.jpg", "sequence": "v", "number": 4},
    ]
    frames = find_ground_truth(write_coco(tmp_path, pictures, images))
    assert [(frame.frame_id, frame.sequence, frame.number) for frame in frames] == [
        ("a", "v", 3),
        ("b", "v", 4),
    ]
    np.testing.assert_array_equal(frames[0].read().instance_map, [[40, 26005]])
    np.testing.assert_array_equal(frames[1].read().instance_map, [[26005, 0]])


def test_large_ids_are_numbered_in_their_order_in_all_pictures_of_the_file(tmp_path):
    pictures = {
        "a": ([[70001, 5, 70000]], [car(70001), car(5), car(70000)]),
        "b": ([[9, 9, 12]], [car(12), car(9)]),
    }
    frames = find_ground_truth(write_coco(tmp_path, pictures))
    np.testing.assert_array_equal(frames[0].read().instance_map, [[3, 1, 2]])
    np.testing.assert_array_equal(frames[1].read().instance_map, [[1, 1, 2]])


def test_ids_of_stuff_and_crowds_may_be_large(tmp_path):
    segments = [car(9), car(70000, iscrowd=1), {"id": 16777215, "category_id": 7}]
    (frame,) = find_ground_truth(write_coco(tmp_path, {"a": ([[9, 70000, 16777215, 0]], segments)}))
    panoptic = frame.read()
    np.testing.assert_array_equal(panoptic.semantic_map, [[26, 26, 7, VOID]])
    np.testing.assert_array_equal(panoptic.instance_map, [[9, 0, 0, 0]])


@pytest.mark.parametrize(
    ("ids", "segments", "message"),
    [
        ([[1, 2]], [car(1)], "holds segment 2, which the JSON does not list"),
        ([[1, 2, 3]], [car(1)], "holds segments 2, 3, which the JSON does not list"),
        ([[1, 1]], [car(1), car(8)], "has no pixel of 8, which the JSON lists"),
        ([[1, 1]], [car(1, area=3)], r"segment 1 should have 3 pixels\. Got: 2"),
        ([[1, 1]], [car(1), car(1)], "be listed once each"),
        ([[1, 0]], [car(1), car(0)], "must be above 0"),
        ([[1, 1]], [car(1), car(1 << 24)], "fit 24 bits"),
    ],
)
def test_json_and_picture_must_agree(tmp_path, ids, segments, message):
    (frame,) = find_ground_truth(write_coco(tmp_path, {"a": (ids, segments)}))
    with pytest.raises(DataError, match=rf"a\.png.*{message}"):
        frame.read()


def test_a_picture_of_16_bit_ids_is_another_form(tmp_path):
    (frame,) = find_ground_truth(write_coco(tmp_path, {"a": ([[1]], [car(1)])}))
    write_png(frame.annotation, np.array([[26001]], np.uint16))
    with pytest.raises(
        DataError, match=r"a\.png must be an 8-bit RGB picture.*another form.*Got: 16-bit grey"
    ):
        frame.read()


def test_the_image_is_found_by_its_name_without_folders_or_as_another_kind(tmp_path):
    folder = write_coco(tmp_path, {"a": ([[1]], [car(1)])}, [{"id": "a", "file_name": "deep/a.jpg"}])
    assert find_ground_truth(folder)[0].image == tmp_path / "images" / "deep" / "a.jpg"
    for name in ("a.png", "a.jpg", "deep/a.jpg"):
        (tmp_path / "images" / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
        assert find_ground_truth(folder)[0].image == tmp_path / "images" / name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["categories"][0].pop("isthing"), "KeyError.*isthing.*is missing"),
        (
            lambda content: content.update(annotations=content["annotations"] * 2),
            "images are annotated twice.*a",
        ),
        (
            lambda content: content["annotations"][0]["segments_info"][0].update(category_id=8),
            "Got: 8, such as in a",
        ),
        (lambda content: content.pop("images"), "is not in COCO panoptic form"),
    ],
)
def test_a_broken_json_is_explained(tmp_path, change, message):
    folder = write_coco(tmp_path, {"a": ([[1]], [car(1)])})
    content = json.loads((folder / "panoptic.json").read_text())
    change(content)
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        find_ground_truth(folder)


def test_a_json_that_is_cut_short_is_explained(tmp_path):
    folder = write_coco(tmp_path, {"a": ([[1]], [car(1)])})
    whole = (folder / "panoptic.json").read_text()
    (folder / "panoptic.json").write_text(whole[:-20])
    with pytest.raises(DataError, match="is not JSON, or cut short"):
        find_ground_truth(folder)


def test_positions_hold_more_segments_than_8_bits():
    ids = np.arange(1, 301, dtype=np.int32).reshape(15, 20) * 1000
    segments = [CocoSegment(int(number), 26, False, 1) for number in ids.ravel()[::-1]]
    np.testing.assert_array_equal(
        segment_positions(ids, segments, "picture"), np.arange(300, 0, -1).reshape(15, 20)
    )


def test_cityscapes_panoptic_with_train_ids_is_refused(tmp_path):
    content = {"images": [], "annotations": [], "categories": [{"id": 13, "name": "car", "isthing": 1}]}
    path = tmp_path / "gtFine" / "cityscapes_panoptic_val.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"car must have the label id 26\. Got: 13; make the file without train ids"
    ):
        list(truth_adapter("cityscapes_panoptic")(tmp_path, {}))


@needs_samples
@pytest.mark.parametrize("split", ["train", "val"])
def test_both_forms_of_the_real_cityscapes_frames_agree(tmp_path, split):
    folders = {
        adapter: write_source(tmp_path / adapter, adapter, str(SAMPLES / "cityscapes"), split=split)
        for adapter in ("cityscapes", "cityscapes_panoptic")
    }
    ours, official = (find_ground_truth(folder) for folder in folders.values())
    assert [frame.frame_id for frame in ours] == [frame.frame_id for frame in official]
    assert [frame.image.is_file() for frame in official] == [split == "train"] * len(official)
    # The data set's own tool writes the 19 classes that are evaluated and leaves the rest void.
    for one, other in zip(ours, official, strict=True):
        expected = read_ground_truth(one, "cityscapes19", "cityscapes")
        found = read_ground_truth(other, "cityscapes19", dataset_of(folders["cityscapes_panoptic"]))
        np.testing.assert_array_equal(expected.semantic_map, found.semantic_map)
        np.testing.assert_array_equal(expected.instance_map, found.instance_map)


@needs_samples
def test_coco_has_the_official_categories():
    official = json.loads((SAMPLES / "coco_panoptic_sample" / "panoptic_coco_categories.json").read_text())
    space = load_label_space("coco133")
    assert [(entry.raw_id, entry.name, entry.is_thing) for entry in raw_classes("coco")] == [
        (entry["id"], entry["name"], bool(entry["isthing"])) for entry in official
    ]
    assert [(entry.name, list(entry.colour)) for entry in space.classes] == [
        (entry["name"], entry["color"]) for entry in official
    ]
    table = raw_id_table("coco", "coco133")
    assert table[[entry["id"] for entry in official]].tolist() == list(range(133))
    assert (table != VOID).sum() == 133


@needs_samples
def test_the_real_coco_sample_has_as_many_objects_as_its_json_lists(tmp_path):
    sample = SAMPLES / "coco_panoptic_sample"
    options = {"json": "panoptic_examples.json", "annotations": "panoptic_examples", "images": "input_images"}
    frames = find_ground_truth(write_source(tmp_path, "coco_panoptic", str(sample), **options))
    content = read_coco_panoptic(sample / "panoptic_examples.json")
    n_objects = []
    for frame, annotation in zip(frames, content.annotations, strict=True):
        raw = frame.read()
        objects = sorted(
            segment.id
            for segment in annotation.segments
            if segment.category_id in content.thing_ids and not segment.is_crowd
        )
        ids = read_segment_ids(frame.annotation)
        for number, segment_id in enumerate(objects, start=1):
            np.testing.assert_array_equal(raw.instance_map == number, ids == segment_id)
        n_objects.append(int(raw.instance_map.max()))
        assert n_objects[-1] == len(objects)
        # The sample has the same frames as classes and numbers in two channels.
        two_channels = read_png(sample / "panoptic_examples_2ch_format" / frame.annotation.name)
        np.testing.assert_array_equal(
            np.where(raw.semantic_map == VOID, 0, raw.semantic_map), two_channels[..., 0]
        )
    assert all(n > 0 for n in n_objects)


@pytest.mark.parametrize("number", [2**70, -1, 0, 2**24])
def test_ids_that_no_picture_can_hold_are_refused(tmp_path, number):
    (frame,) = find_ground_truth(write_coco(tmp_path, {"a": ([[5]], [car(number)])}))
    with pytest.raises(DataError, match=rf"ids must be above 0, fit 24 bits.*Got: {number}$"):
        frame.read()


def test_infinity_is_no_id(tmp_path):
    with pytest.raises(DataError, match="not in COCO panoptic form: OverflowError"):
        find_ground_truth(write_coco(tmp_path, {"a": ([[5]], [car(float("inf"))])}))


def test_a_category_that_is_listed_twice_is_refused(tmp_path):
    write_coco(tmp_path, {"a": ([[5]], [car(5)])})
    content = json.loads((tmp_path / "panoptic.json").read_text())
    content["categories"].append({**content["categories"][-1], "isthing": 0})
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a category must be listed once\. Got twice: "):
        read_coco_panoptic(tmp_path / "panoptic.json")


def test_a_byte_order_mark_is_skipped(tmp_path):
    write_coco(tmp_path, {"a": ([[5]], [car(5)])})
    path = tmp_path / "panoptic.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco_panoptic(path).annotations) == 1


def test_a_file_that_is_not_there_is_told_with_those_that_are(tmp_path):
    (tmp_path / "panoptic_val.json").touch()
    with pytest.raises(
        DataError, match=r"panoptic\.json does not exist; JSON files in .*: panoptic_val\.json"
    ):
        read_coco_panoptic(tmp_path / "panoptic.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_coco_panoptic(tmp_path)
