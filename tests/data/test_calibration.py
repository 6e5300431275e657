import json

import numpy as np
import pytest

from gestalt.data.calibration import read_cityscapes_camera, read_folder_calibration, read_kitti_projections
from gestalt.errors import DataError
from tests.data.video import SAMPLES, needs_samples, write_camera

FOLDER = "fx: 700\nfy: 701\ncx: 600\ncy: 180\nstereo_baseline: 0.54\nframe_rate_hz: 10\n"


def projection(f: float, last: float) -> str:
    return f"{f} 0 600 {last} 0 {f} 180 0 0 0 1 0"


def test_cityscapes_camera_file(tmp_path):
    write_camera(tmp_path / "c.json", 0.209313)
    found = read_cityscapes_camera(tmp_path / "c.json")
    np.testing.assert_array_equal(found.intrinsics, [[200, 0, 95], [0, 201, 47], [0, 0, 1]])
    assert found.stereo_baseline == 0.209313


@pytest.mark.parametrize("stereo_baseline", [0.0, -0.2, float("nan")])
def test_a_stereo_baseline_that_is_not_positive_is_refused(tmp_path, stereo_baseline):
    write_camera(tmp_path / "c.json", stereo_baseline)
    with pytest.raises(
        DataError, match=r"bad calibration: stereo_baseline must be positive\. Got: .* in .*c\.json"
    ):
        read_cityscapes_camera(tmp_path / "c.json")


def test_a_negative_stereo_baseline_asks_for_swapped_cameras(tmp_path):
    (tmp_path / "calib.txt").write_text(f"P0: {projection(700, -350)}\nP1: {projection(700, 0)}\n")
    with pytest.raises(DataError, match="are left and right swapped"):
        read_kitti_projections(tmp_path / "calib.txt", "P0", "P1")


def test_two_equal_projections_have_no_stereo_baseline(tmp_path):
    (tmp_path / "calib.txt").write_text(f"P0: {projection(700, 0)}\nP1: {projection(700, 0)}\n")
    with pytest.raises(DataError, match=r"must be positive\. Got: 0"):
        read_kitti_projections(tmp_path / "calib.txt", "P0", "P1")


def test_each_projection_is_divided_by_its_own_focal_length(tmp_path):
    (tmp_path / "calib.txt").write_text(f"P2: {projection(700, 35)}\n\nP3: {projection(350, -175)} \n\n")
    found = read_kitti_projections(tmp_path / "calib.txt", "P2", "P3")
    assert found.stereo_baseline == pytest.approx(0.05 + 0.5)


def test_a_missing_key_is_named_with_the_keys_that_are_there(tmp_path):
    (tmp_path / "calib.txt").write_text(f"P0: {projection(700, 0)}\nP1: 1 2 3\n")
    with pytest.raises(DataError, match="a line `P1:` with 12 numbers; it has the keys P0, P1"):
        read_kitti_projections(tmp_path / "calib.txt", "P0", "P1")


def test_folder_calibration(tmp_path):
    (tmp_path / "calibration.yaml").write_text(FOLDER)
    found, frame_rate_hz = read_folder_calibration(tmp_path / "calibration.yaml")
    np.testing.assert_array_equal(found.intrinsics, [[700, 0, 600], [0, 701, 180], [0, 0, 1]])
    assert (found.stereo_baseline, frame_rate_hz) == (0.54, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FOLDER + "skew: 0\n", "exactly the numbers fx, fy, cx, cy, stereo_baseline, frame_rate_hz"),
        ("fx: 1\n", "Got: fx"),
        ("just words", "Got: no mapping"),
        ("a: [", "is not YAML"),
        (FOLDER.replace("0.54", "wide"), "exactly the numbers"),
        (FOLDER.replace("0.54", "0"), "stereo_baseline must be positive"),
        (FOLDER.replace("fx: 700", "fx: -700"), "fx must be positive"),
        (FOLDER.replace("cx: 600", "cx: .nan"), "cx and cy must be finite"),
        (FOLDER.replace("frame_rate_hz: 10", "frame_rate_hz: 0"), "frame_rate_hz must be positive"),
    ],
)
def test_bad_folder_calibrations(tmp_path, text, message):
    (tmp_path / "calibration.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_folder_calibration(tmp_path / "calibration.yaml")


def test_missing_and_foreign_files_say_so(tmp_path):
    with pytest.raises(DataError, match=r"missing calibration: .* does not exist"):
        read_cityscapes_camera(tmp_path / "no.json")
    (tmp_path / "c.json").write_text(json.dumps({"intrinsic": {}}))
    with pytest.raises(DataError, match="is no Cityscapes camera file"):
        read_cityscapes_camera(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("[")
    with pytest.raises(DataError, match="is no Cityscapes camera file"):
        read_cityscapes_camera(tmp_path / "c.json")


@needs_samples
@pytest.mark.parametrize(
    ("date", "f", "cx", "cy", "stereo_baseline"),
    [
        ("2011_09_26", 721.5377, 609.5593, 172.8540, 0.532725),
        ("2011_09_28", 707.0493, 604.0814, 180.5066, 0.537256),
        ("2011_09_29", 718.3351, 600.3891, 181.5122, 0.530140),
        ("2011_09_30", 707.0912, 601.8873, 183.1104, 0.537904),
        ("2011_10_03", 718.8560, 607.1928, 185.2157, 0.532332),
    ],
)
def test_real_calibrations_of_kitti_raw(date, f, cx, cy, stereo_baseline):
    path = SAMPLES / "kitti_raw" / date / "calib_cam_to_cam.txt"
    found = read_kitti_projections(path, "P_rect_02", "P_rect_03")
    np.testing.assert_allclose(found.intrinsics, [[f, 0, cx], [0, f, cy], [0, 0, 1]], atol=1e-4)
    assert found.stereo_baseline == pytest.approx(stereo_baseline, abs=1e-6)


@needs_samples
def test_real_calibrations_of_kitti_odometry_and_object():
    odometry = SAMPLES / "kitti_odometry" / "dataset" / "sequences" / "seq1" / "calib.txt"
    assert read_kitti_projections(odometry, "P0", "P1").stereo_baseline == pytest.approx(379.8145 / 707.0912)
    found = read_kitti_projections(SAMPLES / "kitti_object" / "training" / "calib" / "000000.txt", "P2", "P3")
    assert found.intrinsics[0, 0] == pytest.approx(707.0493)
    assert found.stereo_baseline == pytest.approx(0.537256, abs=1e-6)
