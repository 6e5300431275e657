from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.adapters.waymo import find_truth
from gestalt.data.conversion import convert_truth
from gestalt.data.ground_truth import (
    dataset_of,
    find_frames,
    find_ground_truth,
    load_image,
    read_ground_truth,
)
from gestalt.data.images import write_png
from gestalt.data.records import GroundTruthFrame
from gestalt.data.writers.waymo import write_truth
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import PanopticMap
from tests.data.waymo_records import jpeg, make_frame, make_label, write_records
from tests.evaluation.maps import SHARED, needs_samples, panoptic

WAYMO = SHARED / "waymo"
FIRST, SECOND = "100_000_020_000_040_000", "200_000_020_000_040_000"
START = 1_500_000_000_000_000


def name_of(context: str) -> str:
    return f"segment-{context}_with_camera_labels.tfrecord"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two segments; in the first a car (global id 70) is number 1, then 3, and the side camera calls it 2."""
    car = [
        make_label([[2001, 2002, 20000, 0]], instances=[(1, 70, True), (2, 81, False)]),
        make_label([[20000, 2003, 2001, 9002]], instances=[(1, 82, False), (2, 83, False), (3, 70, True)]),
    ]
    side = make_label([[2002, 2002, 20000, 0]], instances=[(2, 70, True)])
    first = [
        make_frame({"front": car[0], "side_left": side}, context=FIRST, timestamp=START + 100),
        make_frame({}, context=FIRST, timestamp=START + 200),
        make_frame({"front": car[1]}, context=FIRST, timestamp=START + 300),
    ]
    second = [
        make_frame(
            {"front": make_label([[9004, 0]], sequence_id=part)}, context=SECOND, timestamp=START + time
        )
        for time, part in ((10, "x"), (20, "y"), (30, "x"))
    ]
    # Records need not lie in the order of time.
    write_records(tmp_path / "validation" / name_of(FIRST), first[::-1])
    write_records(tmp_path / "validation" / name_of(SECOND), second)
    return tmp_path


def instances(frame: GroundTruthFrame) -> list[int]:
    return frame.read().instance_map[0].tolist()


def test_frames_of_tfrecord_files(root: Path) -> None:
    frames = list(find_truth(root, {}))
    assert [(frame.frame_id, frame.sequence, frame.number) for frame in frames] == [
        (f"{FIRST}_{START + 100}", FIRST, 0),
        (f"{FIRST}_{START + 300}", FIRST, 1),
        # Ids of labels that are not of one part of the segment do not go together.
        (f"{SECOND}_{START + 10}", f"{SECOND}-x", 0),
        (f"{SECOND}_{START + 30}", f"{SECOND}-x", 1),
        (f"{SECOND}_{START + 20}", f"{SECOND}-y", 0),
    ]
    assert frames[0].image == frames[0].annotation == root / "validation" / name_of(FIRST)
    np.testing.assert_array_equal(frames[0].read().semantic_map, [[2, 2, 20, 0]])
    assert instances(frames[0]) == [2070, 2081, 0, 0]
    assert instances(frames[1]) == [0, 2070, 2082, 9083]
    assert instances(frames[2]) == [9004, 0]
    read_image = pickle.loads(pickle.dumps(frames[0])).read_image
    assert read_image is not None
    np.testing.assert_array_equal(read_image(), load_image(frames[0]))
    assert load_image(frames[0]).shape == (2, 4, 3)


def test_the_same_object_has_one_id_in_all_cameras(root: Path) -> None:
    (frame,) = find_truth(root, {"camera": "side_left"})
    assert (frame.frame_id, frame.sequence, frame.number) == (
        f"{FIRST}_{START + 100}_side_left",
        f"{FIRST}_side_left",
        0,
    )
    assert instances(frame) == [2070, 2070, 0, 0]
    assert abs(int(load_image(frame).mean()) - 160) < 3


def test_ids_of_single_images(root: Path) -> None:
    frames = list(find_truth(root, {"instance_ids": "image"}))
    assert [instances(frame) for frame in frames[:2]] == [[2001, 2002, 0, 0], [0, 2003, 2001, 9002]]


def test_a_list_says_which_frames_count(root: Path) -> None:
    (root / "frames.txt").write_text(f"# chosen\n{FIRST},{START + 300}\n\n{SECOND},{START + 10}\n")
    frames = list(find_truth(root, {"frames": "frames.txt"}))
    assert [frame.frame_id for frame in frames] == [f"{FIRST}_{START + 300}", f"{SECOND}_{START + 10}"]
    # Numbers and ids are those of the whole sequence.
    assert frames[0].number == 1
    assert instances(frames[0]) == [0, 2070, 2082, 9083]

    (root / "frames.txt").write_text(f"{FIRST},{START + 300}\n{FIRST},{START + 200}\n{FIRST},{START + 999}\n")
    with pytest.raises(
        DataError, match=rf"2 of the 3 frames .* camera front here: {FIRST} at {START + 200}, {FIRST} at"
    ):
        list(find_truth(root, {"frames": "frames.txt"}))
    (root / "frames.txt").write_text(f"{FIRST},{START + 300}\nsegment\n")
    with pytest.raises(
        DataError, match=r"frames\.txt, line 2 must be `segment,microseconds`\. Got: 'segment'"
    ):
        list(find_truth(root, {"frames": "frames.txt"}))
    with pytest.raises(DataError, match=r"none\.txt does not exist; the option frames"):
        list(find_truth(root, {"frames": "none.txt"}))


@needs_samples
def test_the_validation_split_must_be_whole(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"1929 of the 1930 frames in .*waymo_validation_frames\.txt have no panoptic"
    ):
        list(find_truth(WAYMO, {"frames": "validation"}))
    with pytest.raises(DataError, match=r"1930 of the 1930 frames"):
        list(find_truth(root, {"frames": "validation"}))


def test_segments_that_a_list_does_not_name_are_not_opened(root: Path) -> None:
    (root / "frames.txt").write_text(f"{FIRST},{START + 300}\n")
    (root / "validation" / name_of(SECOND)).write_bytes(b"damaged")
    assert len(list(find_truth(root, {"frames": "frames.txt"}))) == 1
    with pytest.raises(
        DataError, match=f"segment-{SECOND}_with_camera_labels.tfrecord, record 0 at byte 0 is cut short"
    ):
        list(find_truth(root, {}))
    # What a file of another name holds is not known before it is read.
    (root / "validation" / name_of(FIRST)).rename(root / "validation" / "frames.tfrecord")
    assert len(list(find_truth(root, {"frames": "frames.txt"}))) == 1


def test_a_camera_without_labels(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"in 2 TFRecord files .* camera front_left \(labels of cameras: front 5, side_l"
    ):
        list(find_truth(root, {"camera": "front_left"}))
    write_records(root / "validation" / name_of(FIRST), [make_frame({})])
    (root / "validation" / name_of(SECOND)).unlink()
    with pytest.raises(DataError, match=r"\(labels of cameras: none\); labels came with version 1\.4\.0"):
        list(find_truth(root, {}))


def test_options(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"option camera .* one of front, front_left, .* Got: 'rear'"):
        find_truth(root, {"camera": "rear"})
    with pytest.raises(ConfigError, match=r"instance_ids .* one of video, image\. Got: 'local'"):
        find_truth(root, {"instance_ids": "local"})
    (tmp_path / "png" / "semantic").mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"are for TFRecord files, and .*png holds converted PNGs\. Got: camera"
    ):
        find_truth(tmp_path / "png", {"camera": "side_left"})


def test_a_folder_without_anything(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ground truth in the layout of waymo"):
        find_frames("waymo", tmp_path, {})


@pytest.mark.parametrize("camera", ["front", "side_left"])
def test_conversion_loses_nothing(root: Path, tmp_path: Path, camera: str) -> None:
    frames = list(find_truth(root, {"camera": camera}))
    done = convert_truth(frames, tmp_path / "out", "waymo", "waymo", images="copy")
    assert (done.n_frames, done.n_images, done.keeps_sequences) == (len(frames), len(frames), True)
    assert dataset_of(tmp_path / "out") == "waymo"
    back = {frame.frame_id: frame for frame in find_ground_truth(tmp_path / "out")}
    for frame in frames:
        other = back[frame.frame_id]
        for name in ("semantic_map", "instance_map"):
            np.testing.assert_array_equal(getattr(frame.read(), name), getattr(other.read(), name))
        assert (other.sequence, other.number) == (frame.sequence, frame.number)
        assert other.image == tmp_path / "out" / "images" / f"{frame.frame_id}.jpg"
        assert other.image.read_bytes() == jpeg(1 if camera == "front" else 4)


@needs_samples
def test_the_sample_through_all_its_forms(tmp_path: Path) -> None:
    (frame,) = find_truth(WAYMO, {})
    known = json.loads((WAYMO / "expected_front_camera.json").read_text())["cameras"]["FRONT"]
    assert frame.frame_id == "1024360143612057520_3580_000_3600_000_1553735853462203"
    (local,) = find_truth(WAYMO, {"instance_ids": "image"})
    stored, found = local.read(), frame.read()
    np.testing.assert_array_equal(stored.semantic_map, found.semantic_map)
    for entry in known["classes"].values():
        inside = found.semantic_map == entry["id"]
        assert inside.sum() == entry["pixels"]
        assert len(set(np.unique(found.instance_map[inside]).tolist()) - {0}) == entry["instances"]
    pairs = np.unique(np.stack([stored.instance_map, found.instance_map])[:, stored.instance_map > 0], axis=1)
    assert pairs.shape == (2, 20)
    for old, new in pairs.T.tolist():
        assert new == old // 1000 * 1000 + known["local_to_global"][str(old % 1000)]

    for form in ("waymo", "coco_panoptic", "cityscapes"):
        convert_truth([frame], tmp_path / form, form, "waymo", images="link")
        (back,) = find_ground_truth(tmp_path / form)
        np.testing.assert_array_equal(back.read().instance_map, found.instance_map)
        np.testing.assert_array_equal(load_image(back), load_image(frame))
    judged = read_ground_truth(back, "cityscapes19", dataset_of(tmp_path / "cityscapes"))
    assert (judged.semantic_map == 13).sum() == 4987
    # Lane and road markers are road.
    assert (judged.semantic_map == 0).sum() == 889368 + 1196 + 42669


def write_converted(root: Path, name: str, semantic: object, numbers: object) -> None:
    write_png(root / "semantic" / f"{name}.png", np.asarray(semantic, np.uint8))
    write_png(root / "instance" / f"{name}.png", np.asarray(numbers, np.uint16))


def test_numbers_of_a_class_and_whole_ids_are_told_apart(tmp_path: Path) -> None:
    write_converted(tmp_path, "f", [[2, 9, 2, 9, 2, 0, 20]], [[5, 5, 999, 9006, 1000, 3, 0]])
    (frame,) = find_truth(tmp_path, {})
    assert instances(frame) == [2005, 9005, 2999, 9006, 1000, 0, 0]
    assert (frame.sequence, frame.number) == ("", 0)


@pytest.mark.parametrize(
    ("semantic", "numbers", "expected"),
    [
        ([[2, 9]], [[5, 2005]], "1 ids mean two objects, such as 2005"),
        ([[2, 2]], [[5, 2005]], "1 ids mean two objects, such as 2005"),
        ([[2, 9]], [[3000, 3000]], "1 ids mean two objects, such as 3000"),
        ([[66, 2]], [[1, 1]], "must be at most 65535. Got: class 66 with number 1"),
    ],
)
def test_ids_that_would_mean_two_objects(
    tmp_path: Path, semantic: object, numbers: object, expected: str
) -> None:
    write_converted(tmp_path, "f", semantic, numbers)
    (frame,) = find_truth(tmp_path, {})
    with pytest.raises(DataError, match=expected):
        frame.read()


def test_sequences_of_converted_frames_come_from_their_names(tmp_path: Path) -> None:
    names = [f"{FIRST}_{START + 2}", f"{FIRST}_{START + 1}", f"{FIRST}_{START + 1}_side_left", "other_frame"]
    for name in names:
        write_converted(tmp_path, name, [[2]], [[1]])
    found = {frame.frame_id: (frame.sequence, frame.number) for frame in find_truth(tmp_path, {})}
    assert found == {
        names[0]: (FIRST, 1),
        names[1]: (FIRST, 0),
        names[2]: (f"{FIRST}_side_left", 0),
        names[3]: ("", 0),
    }
    (tmp_path / "sequences.json").write_text(json.dumps({names[0]: ["video", 4]}))
    found = {frame.frame_id: (frame.sequence, frame.number) for frame in find_truth(tmp_path, {})}
    assert found == {names[0]: ("video", 4), **dict.fromkeys(names[1:], ("", 0))}
    for content in ("[]", "{", '{"a": "b"}', '{"a": 3}'):
        (tmp_path / "sequences.json").write_text(content)
        with pytest.raises(DataError, match=r"sequences\.json must map frame ids to \[sequence, number\]"):
            list(find_truth(tmp_path, {}))


def frame_of(found: PanopticMap) -> GroundTruthFrame:
    return GroundTruthFrame("f", Path("f.png"), Path("truth.png"), lambda: found)


@pytest.mark.parametrize(
    ("semantic", "instance", "dataset", "expected"),
    [
        ([[2, 20]], [[7, 0]], "waymo", r"an instance is 1000 or more.* Got: 7; --renumber"),
        ([[0, 20]], [[3000, 0]], "waymo", "the undefined class 0 has no instances"),
        ([[77, 20]], [[0, 0]], "waymo", r"raw ids \[77\] are no classes"),
        ([[2, 9]], [[2001, 2001]], "waymo", "instance 2001 must have one class"),
        ([[2, 20]], [[2001, 0]], "cityscapes", "the form waymo holds the classes of waymo"),
    ],
)
def test_what_the_form_has_no_room_for(
    tmp_path: Path, semantic: object, instance: object, dataset: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        write_truth([frame_of(panoptic(semantic, instance))], tmp_path / "out", dataset)
    assert list(tmp_path.iterdir()) == []
