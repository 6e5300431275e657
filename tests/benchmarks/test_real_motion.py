"""The benchmark on real video, on a rendered scene in KITTI's layouts whose truth is exact."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.motion_truth import (
    annotated_instances,
    disparity_error,
    ego_motion_error,
    find_annotations,
    matching_error,
    moving_cars,
    optical_flow_error,
)
from benchmarks.real_motion import quality, report
from benchmarks.real_video import find_deliveries, open_video, unread_folders
from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.kitti_maps import write_disparity, write_optical_flow
from gestalt.data.records import StereoFrame
from gestalt.errors import DataError
from tests.scene import StereoScene, render_scene

WHOLE = default_settings("frames", height=0, width=0)
HALF = default_settings("frames", scale=0.5, height=0, width=0)
CHECKS = default_settings("manifest")


@pytest.fixture(scope="module")
def scene() -> StereoScene:
    return render_scene(192, 384)


def calibration(scene: StereoScene) -> str:
    intrinsics = scene.intrinsics
    lines = []
    for number, shift in ((2, 0.0), (3, -intrinsics[0, 0] * scene.stereo_baseline)):
        projection = np.hstack([intrinsics, [[shift], [0.0], [0.0]]])
        lines.append(f"P_rect_0{number}: {' '.join(f'{value:.9e}' for value in projection.ravel())}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(scene: StereoScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KITTI scene flow with two frames: all of 000000, and 000001 without its last right image."""
    root = tmp_path_factory.mktemp("samples")
    training = root / "scene_flow/training"
    for name in ("000000", "000001"):
        write_png(training / "image_2" / f"{name}_10.png", scene.left)
        write_png(training / "image_2" / f"{name}_11.png", scene.left_next)
        write_png(training / "image_3" / f"{name}_10.png", scene.right)
        known = ~scene.occluded
        write_optical_flow(training / "flow_occ" / f"{name}_10.png", scene.optical_flow_forward, known)
        (training / "calib_cam_to_cam").mkdir(exist_ok=True)
        (training / "calib_cam_to_cam" / f"{name}.txt").write_text(calibration(scene))
    write_png(training / "image_3/000000_11.png", scene.right_next)
    write_disparity(training / "disp_occ_0/000000_10.png", scene.disparity)
    write_png(training / "obj_map/000000_10.png", scene.instances.astype(np.uint8))
    (root / "pictures").mkdir()
    return root


@pytest.fixture(scope="module")
def frame(folder: Path) -> StereoFrame:
    (delivery,) = find_deliveries(folder)
    (found,) = open_video(delivery, CHECKS).frames
    return found


def test_pairs_half_pairs_and_other_folders_are_told_apart(folder: Path) -> None:
    deliveries = list(find_deliveries(folder))
    assert [(entry.name, entry.adapter) for entry in deliveries] == [
        ("scene_flow/training", "kitti_scene_flow")
    ]
    video = open_video(deliveries[0], CHECKS)
    assert [entry.frame_id for entry in video.frames] == ["training_000000"]
    assert [(entry.frame_id, entry.right) for entry in video.half] == [("training_000001", None)]
    ((skipped, reason),) = video.skipped
    assert skipped == "training_000001"
    assert "image_3/000001_11.png does not exist" in reason
    assert unread_folders(folder, deliveries) == ["pictures"]


@pytest.mark.parametrize("settings", [WHOLE, HALF])
def test_the_truth_has_no_error_at_any_scale(
    scene: StereoScene, frame: StereoFrame, settings: object
) -> None:
    step = 1 if settings is WHOLE else 2
    # Nearest pixels of a halved image are every other one.
    optical_flow = scene.optical_flow_forward[:, ::step, ::step] / step
    error = optical_flow_error(optical_flow, frame, settings)  # type: ignore[arg-type]
    assert error is not None
    assert error.end_point_px < 1 / 64
    assert (error.outlier_share, error.known_share) == (0, 1)
    assert error.n_px == int((~scene.occluded)[::step, ::step].sum())
    disparity = disparity_error(scene.disparity[::step, ::step] / step, frame, settings)  # type: ignore[arg-type]
    assert disparity is not None
    assert disparity.end_point_px < 1 / 256


def test_errors_are_counted_by_hand() -> None:
    true = np.array([[[10.0, 100.0, 100.0, 10.0, 50.0]]], np.float32)
    found = np.array([[[12.0, 104.0, 106.0, np.nan, 0.0]]], np.float32)
    has_truth = np.array([[True, True, True, True, False]])
    error = matching_error(found, true, has_truth, np.array([1.0]))
    # 2 px is little, 4 px of 100 is little in share, 6 px is both, unknown is wrong, the last has no truth.
    assert error.end_point_px == pytest.approx((2 + 4 + 6) / 3)
    assert error.outlier_share == 0.5
    assert error.known_share == 0.75
    halved = matching_error(found / 2, true / 2, has_truth, np.array([0.5]))
    assert halved.end_point_px == pytest.approx(error.end_point_px)
    assert halved.outlier_share == error.outlier_share


def test_proposals_are_compared_with_moving_cars(scene: StereoScene, frame: StereoFrame) -> None:
    found = np.where(scene.instances == 1, 7, 0).astype(np.uint16)
    found[:20, :20] = 3
    measured = quality([moving_cars(found, frame, WHOLE), None])
    assert measured is not None
    assert (measured["precision"], measured["recall"]) == (0.5, 0.5)
    assert quality([None]) is None


def test_annotated_instances_count_and_ignored_regions_do_not(
    scene: StereoScene, frame: StereoFrame, tmp_path: Path
) -> None:
    values = np.zeros(scene.instances.shape, np.uint16)
    values[scene.instances == 1] = 1003
    values[:20, :20] = 10000
    write_png(tmp_path / "mots/instances/training/000000.png", values)
    annotations = find_annotations(tmp_path)
    assert list(annotations) == ["training_000000"]
    found = np.where(scene.instances > 0, scene.instances, 0).astype(np.uint16)
    found[:20, :20] = 5
    measured = quality([annotated_instances(found, frame, WHOLE, annotations)])
    assert measured is not None
    # The mask in the ignored region is neither right nor wrong; box 2 is annotated by nobody.
    assert (measured["n_masks"], measured["n_hits"], measured["recall"]) == (2, 1, 1.0)
    assert annotated_instances(found, frame, WHOLE, {}) is None


def test_the_ego_motion_is_compared_with_poses(frame: StereoFrame, tmp_path: Path) -> None:
    import dataclasses

    left = tmp_path / "dataset/sequences/00/image_2/000001.png"
    driving = dataclasses.replace(frame, left=left)
    assert ego_motion_error(np.eye(4, dtype=np.float32), driving) is None
    poses = tmp_path / "dataset/poses/00.txt"
    poses.parent.mkdir(parents=True)
    rows = [np.hstack([np.eye(3), [[0.0], [0.0], [1.5 * number]]]) for number in range(3)]
    np.savetxt(poses, [row.ravel() for row in rows])
    ego_motion = np.eye(4, dtype=np.float32)
    ego_motion[2, 3] = -1.25
    found = ego_motion_error(ego_motion, driving)
    assert found == pytest.approx((0.25, 0.0))
    assert ego_motion_error(None, driving) is None
    with pytest.raises(DataError, match="a line per frame"):
        ego_motion_error(ego_motion, dataclasses.replace(driving, left=left.with_name("000002.png")))


def test_everything_is_measured_drawn_and_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = argparse.Namespace(
        folder=folder, out=tmp_path, frames="embedded", motion="embedded", matcher=None, weights=None, source=None,
        sheets=False, seed=0, device="cpu",
    )  # fmt: skip
    report(arguments)
    printed = capsys.readouterr().out
    assert "| scene_flow-training: training_000000 | classic |" in printed
    assert "training_000001 (left images only)" in printed
    assert "moving cars of KITTI 2015 (obj_map): precision" in printed
    assert "skipped, none of the 0 annotated frames" in printed
    assert "skipped: pictures: no stereo video" in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    (pair,) = numbers["pairs"]
    assert pair["optical_flow"]["end_point_px"] < 3
    assert pair["disparity"]["outlier_share"] < 0.5
    assert numbers["cars"]["n_objects"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "numbers.json",
        "contact.png",
        "scene_flow-training-training_000000.strip.png",
    }


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    arguments = argparse.Namespace(folder=tmp_path / "gone", out=tmp_path)
    with pytest.raises(DataError, match="gone is no folder"):
        report(arguments)
