from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.images import encode_png
from gestalt.data.tfrecord import find_records
from gestalt.data.waymo_frames import (
    CAMERAS,
    CameraModel,
    EmbeddedJpeg,
    InstanceName,
    find_labels,
    read_cameras,
    read_label,
)
from gestalt.errors import DataError
from tests.data.waymo_records import jpeg, make_frame, make_label, message_classes, write_records
from tests.evaluation.maps import SHARED, needs_samples

WAYMO = SHARED / "waymo"
VALUES = np.array([[2001, 2001, 20000, 0], [9001, 9002, 20000, 65535]], np.uint16)


@pytest.fixture(scope="module")
def segment() -> Path:
    return next((WAYMO / "validation").glob("*.tfrecord"))


@needs_samples
def test_the_sample_has_what_is_known_of_it(segment: Path) -> None:
    known = json.loads((WAYMO / "expected_front_camera.json").read_text())
    (name, expected), labels = *known["cameras"].items(), list(find_labels(segment))
    assert sorted(label.camera for label in labels) == sorted(CAMERAS)
    assert {label.sequence_id for label in labels} == {"5049995238639144324"}
    (front,) = (label for label in labels if label.camera == name.lower())
    assert (front.context, front.timestamp_us) == (known["context"], known["timestamp_micros"])
    assert CAMERAS[front.camera] == expected["camera_id"]
    found = {str(entry.local_id): entry.global_id for entry in front.instances}
    assert found == expected["local_to_global"]
    assert sum(entry.is_tracked for entry in front.instances) == 12

    label = read_label(front.record, "front")
    assert label.divisor == expected["panoptic_label_divisor"]
    content = label.values.astype("<i4").tobytes()
    assert hashlib.sha256(content).hexdigest() == expected["sha256_of_panoptic_int32_little_endian_row_major"]
    values, counts = np.unique(label.values, return_counts=True)
    assert len(values) == expected["segments"]
    classes = {
        int(kind): (
            int(counts[values // 1000 == kind].sum()),
            int(((values // 1000 == kind) & (values % 1000 > 0)).sum()),
        )
        for kind in np.unique(values // 1000)
    }
    assert classes == {
        entry["id"]: (entry["pixels"], entry["instances"]) for entry in expected["classes"].values()
    }

    camera = read_cameras(front.record)["front"]
    assert list(camera.intrinsic) == expected["intrinsic_fu_fv_cu_cv_k1_k2_p1_p2_k3"]
    assert [camera.width, camera.height] == expected["image_size_wh"]


@needs_samples
@pytest.mark.parametrize("camera", CAMERAS)
def test_all_cameras_of_the_sample_have_image_label_and_calibration_of_one_size(
    segment: Path, camera: str
) -> None:
    (record,) = find_records(segment)
    size = (886, 1920) if camera.startswith("side") else (1280, 1920)
    model = read_cameras(record)[camera]
    assert (model.height, model.width) == size
    assert read_label(record, camera).values.shape == size
    assert EmbeddedJpeg(record, camera)().shape == (*size, 3)


def test_frames_with_and_without_labels(tmp_path: Path) -> None:
    label = make_label(VALUES, sequence_id="clip", instances=[(2, 700, False), (1, -5, True)])
    frames = [
        make_frame({}, timestamp=10),
        make_frame({"front": label, "side_right": make_label(VALUES)}, timestamp=20),
        make_frame({}, timestamp=30),
        make_frame({"front_left": make_label(VALUES)}, timestamp=40),
    ]
    path = write_records(tmp_path / "a.tfrecord", frames)
    found = list(find_labels(path))
    assert [(entry.timestamp_us, entry.camera) for entry in found] == [
        (20, "front"),
        (20, "side_right"),
        (40, "front_left"),
    ]
    assert [entry.record.number for entry in found] == [1, 1, 3]
    assert found[0].context == "100_000_020_000_040_000"
    assert found[0].sequence_id == "clip"
    assert found[0].instances == (InstanceName(1, -5, True), InstanceName(2, 700, False))
    assert found[1].instances == ()

    record = found[0].record
    np.testing.assert_array_equal(read_label(record, "front").values, VALUES)
    image = EmbeddedJpeg(record, "side_left")
    assert image.content() == jpeg(4)
    assert pickle.loads(pickle.dumps(image))().shape == (2, 4, 3)
    assert abs(int(image().mean()) - 160) < 3
    assert read_cameras(record)["side_left"] == CameraModel((104.0, 2.5), 4, 2)
    with pytest.raises(
        DataError, match=r"a\.tfrecord, record 1 at byte \d+: camera side_left has no panoptic label"
    ):
        read_label(record, "side_left")


def test_a_label_without_pixels_is_none(tmp_path: Path) -> None:
    empty = message_classes()["Label"](panoptic_label_divisor=1000, sequence_id="s")
    path = write_records(tmp_path / "a.tfrecord", [make_frame({"front": empty})])
    assert list(find_labels(path)) == []


def test_an_empty_file_is_no_segment_without_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.tfrecord is empty; fetch it again"):
        list(find_labels(write_records(tmp_path / "b.tfrecord", [])))


def test_finding_labels_reads_no_lidar_and_reading_one_checks_the_whole_record(tmp_path: Path) -> None:
    payload = make_frame({"front": make_label(VALUES)})
    path = write_records(tmp_path / "a.tfrecord", [payload])
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # in the lidar, which comes last
    path.write_bytes(content)
    (label,) = find_labels(path)
    for read in (lambda: read_label(label.record, "front"), EmbeddedJpeg(label.record, "front")):
        with pytest.raises(DataError, match=r"record 0 at byte 0 is damaged"):
            read()


def test_records_that_are_no_frames(tmp_path: Path) -> None:
    kinds = message_classes()
    context = kinds["Frame"](context={"name": "c"}).SerializeToString()
    for payload, expected in (
        (b"", "it has no segment name; records of the perception data, version 1"),
        (context, "it has no timestamp"),
        (b"\x0a\x7fabc", "field 1 needs 127 bytes, 3 are left"),
        (b"example", "is not the protocol buffer that is expected"),
    ):
        path = write_records(tmp_path / "a.tfrecord", [payload])
        with pytest.raises(DataError, match=rf"a\.tfrecord, record 0 at byte 0 .*{expected}"):
            list(find_labels(path))


def test_broken_labels(tmp_path: Path) -> None:
    label = make_label(VALUES, divisor=0)
    path = write_records(tmp_path / "a.tfrecord", [make_frame({"front": label})])
    (found,) = find_labels(path)
    with pytest.raises(
        DataError, match=r"panoptic label front of .* panoptic_label_divisor above 0\. Got: 0"
    ):
        read_label(found.record, "front")

    label.panoptic_label_divisor, label.panoptic_label = 1000, encode_png(VALUES.astype(np.uint8))
    (found,) = find_labels(write_records(path, [make_frame({"front": label})]))
    with pytest.raises(DataError, match=r"must be a 16-bit PNG of one channel\. Got: \(2, 4\) uint8"):
        read_label(found.record, "front")

    kinds = message_classes()
    frame = kinds["Frame"](
        context={"name": "c"}, timestamp_micros=1, images=[kinds["Image"](name=2, image=b"no picture")]
    )
    (record,) = find_records(write_records(path, [frame.SerializeToString()]))
    with pytest.raises(DataError, match=r"record 0 at byte 0 has no camera front"):
        read_label(record, "front")
    with pytest.raises(DataError, match=r"image front_left of .* is neither PNG nor JPEG"):
        EmbeddedJpeg(record, "front_left")()
    frame.images[0].ClearField("image")
    (record,) = find_records(write_records(path, [frame.SerializeToString()]))
    with pytest.raises(DataError, match="camera front_left has no image"):
        EmbeddedJpeg(record, "front_left")()
