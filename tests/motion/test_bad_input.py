"""What no matcher should deliver and cameras sometimes do: a reason or a clear error, never a crash of the batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.matching.measurement import Measurement
from gestalt.matching.raft import Raft
from gestalt.matching.raft_weights import save_network
from gestalt.motion.geometry import Camera
from gestalt.motion.proposals import FrameProposer
from gestalt.motion.rigid_objects import (
    NO_EGO_MOTION,
    NO_OBJECT,
    TOO_FEW_RELIABLE,
    RigidObjects,
    find_rigid_objects,
)
from tests.motion.box_scenes import Box, BoxScene, best_ious
from tests.scene import render_scene

AHEAD = Box((-3, 0.9, 10), (0.9, 0.7, 1.2), shift=(0.0, 0, 1.4))
SCENE = BoxScene((AHEAD,), noise_px=0.1)
WHOLE = default_settings("frames", height=0, width=0)


@pytest.fixture(scope="module")
def few_runs(settings: MotionSettings) -> MotionSettings:
    return dataclasses.replace(settings, runs=3)


@pytest.fixture(scope="module")
def measurement() -> Measurement:
    return SCENE.measure()[0]


def with_min_reliable(settings: MotionSettings, pixels: int) -> MotionSettings:
    return dataclasses.replace(
        settings, reliability=dataclasses.replace(settings.reliability, min_reliable_px=pixels)
    )


def find(measurement: Measurement, settings: MotionSettings, camera: Camera = SCENE.camera) -> RigidObjects:
    return find_rigid_objects(measurement, camera, settings, seed=0, frame_id="bad")


def constant(size: tuple[int, int], flow: tuple[float, float], disparity: float) -> Measurement:
    """Equal optical flow and disparity everywhere, and nothing to check them against."""
    shifts = np.broadcast_to(np.array(flow, np.float32)[:, None, None], (2, *size)).copy()
    depth = np.full(size, disparity, np.float32)
    return Measurement(shifts, None, depth, None, depth)


def assert_nothing(found: RigidObjects, reason: str) -> None:
    assert found.reason == reason
    assert found.proposals == []
    assert not found.instance_map.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name",
    ["optical_flow_backward", "disparity", "disparity_next", "disparity_right", "disparity_right_next"],
)
def test_values_that_are_not_finite_are_refused(measurement: Measurement, name: str, value: float) -> None:
    broken = getattr(measurement, name).copy()
    broken[..., 5, 7] = value
    with pytest.raises(DataError, match=rf"{name} must be finite. Got: .*5, 7\)"):
        dataclasses.replace(measurement, **{name: broken})


def test_optical_flow_that_is_nowhere_known_says_that_too_little_is_reliable(
    measurement: Measurement, few_runs: MotionSettings
) -> None:
    blind = dataclasses.replace(
        measurement, optical_flow_forward=np.full_like(measurement.optical_flow_forward, np.nan)
    )
    found = find(blind, few_runs)
    assert_nothing(found, TOO_FEW_RELIABLE)
    assert not found.reliable.any()


def test_an_object_is_found_beside_optical_flow_that_is_unknown(
    measurement: Measurement, few_runs: MotionSettings
) -> None:
    _, owner = SCENE.measure()
    partly = measurement.optical_flow_forward.copy()
    partly[:, :, 300:] = np.nan
    found = find(dataclasses.replace(measurement, optical_flow_forward=partly), few_runs)
    assert best_ious(found.instance_map, owner)[1] > 0.8
    assert not found.reliable[:, 300:].any()
    assert found.ego_residual is not None
    assert np.isnan(found.ego_residual[:, 300:]).all()


@pytest.mark.parametrize(
    "unknown",
    ["disparity", "disparity_next", "disparity_right", "disparity_right_next"],
)
def test_any_disparity_that_is_nowhere_known_says_that_too_little_is_reliable(
    measurement: Measurement, few_runs: MotionSettings, unknown: str
) -> None:
    blind = dataclasses.replace(measurement, **{unknown: np.zeros_like(measurement.disparity)})
    assert_nothing(find(blind, few_runs), TOO_FEW_RELIABLE)


def test_a_camera_that_stands_finds_what_moves_before_it(few_runs: MotionSettings) -> None:
    scene = BoxScene((AHEAD,), ego_shift=(0.0, 0.0, 0.0), ego_yaw=0.0, noise_px=0.1)
    measured, owner = scene.measure()
    found = find(measured, few_runs, scene.camera)
    assert best_ious(found.instance_map, owner)[1] > 0.8
    assert found.ego_motion is not None
    assert found.ego_motion == pytest.approx(np.eye(4), abs=0.02)


@pytest.mark.parametrize("images", [False, True], ids=["without images", "with images"])
def test_nothing_moves_at_all(few_runs: MotionSettings, images: bool) -> None:
    scene = BoxScene((dataclasses.replace(AHEAD, shift=(0, 0, 0)),), ego_shift=(0, 0, 0), ego_yaw=0.0)
    grey = np.full((*scene.size, 3), 128, np.uint8)
    found = find_rigid_objects(
        scene.measure()[0],
        scene.camera,
        few_runs,
        seed=0,
        frame_id="still",
        images=(grey, grey) if images else None,
    )
    assert_nothing(found, NO_OBJECT)


def test_what_moves_as_a_whole_is_taken_for_the_camera(few_runs: MotionSettings) -> None:
    """A lorry before the camera that fills the image cannot be told from a camera that moves."""
    found = find(constant((96, 192), (6.0, -2.0), 20.0), few_runs)
    assert_nothing(found, NO_OBJECT)
    assert found.ego_motion is not None


def test_where_everything_moves_its_own_way_there_is_no_ego_motion(few_runs: MotionSettings) -> None:
    random = np.random.default_rng(0)
    flow = random.uniform(-30, 30, (2, 96, 192)).astype(np.float32)
    disparity = random.uniform(5, 60, (96, 192)).astype(np.float32)
    chaos = Measurement(flow, None, disparity, None, random.permutation(disparity))
    found = find(chaos, with_min_reliable(few_runs, 64))
    assert_nothing(found, NO_EGO_MOTION)
    assert found.reliable.sum() >= 64


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (9, 7), (16, 24)])
def test_tiny_images_have_a_reason(few_runs: MotionSettings, size: tuple[int, int]) -> None:
    camera = BoxScene((), size=size).camera
    tiny = constant(size, (0.0, 0.0), camera.disparity_scale / 10)
    assert_nothing(find(tiny, few_runs, camera), TOO_FEW_RELIABLE)
    found = find(tiny, with_min_reliable(few_runs, 1), camera)
    assert found.reason in (NO_OBJECT, TOO_FEW_RELIABLE, NO_EGO_MOTION)
    assert found.instance_map.shape == size
    assert not found.instance_map.any()


@pytest.mark.parametrize("flow", [(500.0, 0.0), (1e6, -1e6), (3e38, 3e38)])
def test_displacements_out_of_the_image_are_not_reliable(
    measurement: Measurement, few_runs: MotionSettings, flow: tuple[float, float]
) -> None:
    jump = np.broadcast_to(np.array(flow, np.float32)[:, None, None], (2, *SCENE.size)).copy()
    checked = dataclasses.replace(measurement, optical_flow_forward=jump)
    assert_nothing(find(checked, few_runs), TOO_FEW_RELIABLE)
    assert_nothing(find(constant(SCENE.size, flow, 20.0), few_runs), TOO_FEW_RELIABLE)


@pytest.mark.parametrize("disparity", [1e-30, 1e6, 3e38])
def test_disparities_out_of_range_are_not_reliable(few_runs: MotionSettings, disparity: float) -> None:
    assert_nothing(find(constant(SCENE.size, (0.0, 0.0), disparity), few_runs), TOO_FEW_RELIABLE)


def test_a_jerk_of_the_camera_hides_only_what_it_turns_out_of_view(few_runs: MotionSettings) -> None:
    """Twelve degrees are 90 of 384 px: the box, left of the middle, stays in view or leaves it."""
    to_the_left, to_the_right = (BoxScene((AHEAD,), ego_yaw=yaw, noise_px=0.1) for yaw in (-12.0, 12.0))
    measured, owner = to_the_left.measure()
    assert np.abs(measured.optical_flow_forward).max() > 80
    assert best_ious(find(measured, few_runs).instance_map, owner)[1] > 0.9
    assert_nothing(find(to_the_right.measure()[0], few_runs), NO_OBJECT)


@pytest.mark.parametrize("values", [{"focal_x": 0.0}, {"focal_y": -1.0}, {"stereo_baseline": float("nan")}])
def test_cameras_that_cannot_be_are_refused(
    measurement: Measurement, few_runs: MotionSettings, values: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match="positive focal lengths and stereo baseline"):
        find(measurement, few_runs, dataclasses.replace(SCENE.camera, **values))


def test_images_and_valid_regions_of_another_size_are_refused(
    measurement: Measurement, few_runs: MotionSettings
) -> None:
    wrong = np.zeros((10, 12, 3), np.uint8)
    for extra, message in (
        ({"valid": np.ones((10, 12), np.bool_)}, r"valid must be \(192, 384\)"),
        ({"images": (wrong, wrong)}, r"images must be \(192, 384, 3\)"),
    ):
        with pytest.raises(ShapeError, match=message):
            find_rigid_objects(measurement, SCENE.camera, few_runs, seed=0, frame_id="bad", **extra)  # type: ignore[arg-type]


def frame_of(folder: Path, name: str, images: dict[str, np.ndarray]) -> StereoFrame:
    paths = {side: folder / f"{name}_{side}.png" for side in images}
    for side, image in images.items():
        write_png(paths[side], image)
    height, width = images["left"].shape[:2]
    intrinsics = np.array([[1.1 * width, 0, width / 2], [0, 1.1 * width, height / 2], [0, 0, 1]])
    return StereoFrame(
        "monday", "street", name, **paths, height=height, width=width, intrinsics=intrinsics,
        stereo_baseline=0.5, time_step_s=0.1,
    )  # fmt: skip


SIDES = ("left", "right", "left_next", "right_next")


def run_batch(frames: list[StereoFrame], settings: MotionSettings, folder: Path) -> pd.DataFrame:
    """The frames' table of a whole batch, by frame id."""
    run_sharded(
        frames,
        FrameProposer(settings, WHOLE, 0),
        out_dir=folder / "out",
        cache_dir=folder / "cache",
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=1.0,
        label="motion",
    )
    return ShardFolder(folder / "out").frames().set_index("frame_id")


def test_bad_frames_have_a_row_each_and_stop_no_batch(few_runs: MotionSettings, tmp_path: Path) -> None:
    scene = render_scene()
    good = {side: getattr(scene, side) for side in SIDES}
    sizes = {"flat": (64, 96), "tiny": (16, 24), "line": (1, 40)}
    frames = [
        frame_of(tmp_path, "good", good),
        frame_of(tmp_path, "broken", good),
        frame_of(tmp_path, "gone", good),
        *(
            frame_of(tmp_path, name, dict.fromkeys(SIDES, np.full((*size, 3), 90, np.uint8)))
            for name, size in sizes.items()
        ),
    ]
    frames[1].right_next.write_bytes(frames[1].right_next.read_bytes()[:100])  # type: ignore[union-attr]
    frames[2].left_next.unlink()
    table = run_batch(frames, few_runs, tmp_path)
    assert table["status"].to_dict() == {
        "good": "ok", "broken": "failed", "gone": "failed", "flat": "empty", "tiny": "empty", "line": "empty",
    }  # fmt: skip
    assert "broken_right_next.png" in table.loc["broken", "reason"]
    assert "gone_left_next.png" in table.loc["gone", "reason"]
    assert set(table.loc[list(sizes), "reason"]) == {TOO_FEW_RELIABLE}


def test_a_network_that_gives_no_number_fails_its_frames_by_name(
    few_runs: MotionSettings, tmp_path: Path
) -> None:
    network = Raft("small")
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(torch.nan)
    save_network(network, tmp_path / "network", {})
    raft = dataclasses.replace(
        few_runs.raft, weights=str(tmp_path / "network"), flow_iterations=1, stereo_iterations=1
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    frames = [frame_of(tmp_path, name, dict.fromkeys(SIDES, noise)) for name in ("one", "two")]
    table = run_batch(frames, dataclasses.replace(few_runs, matcher="raft", raft=raft), tmp_path)
    assert set(table["status"]) == {"failed"}
    assert table["reason"].str.contains("finite").all()
