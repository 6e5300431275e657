"""One camera, exact or noisy optical flow: what moves visibly is found, what stands is not, and why is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from gestalt.config.motion import MotionSettings
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.motion.camera_motion import find_camera_motion
from gestalt.motion.draws import Draws
from gestalt.motion.flow_cells import View, sample_flow_cells
from gestalt.motion.monocular import find_monocular_objects
from gestalt.motion.parallax import PARALLAX, PLANE, ROTATION, STANDING, find_ground
from gestalt.motion.rigid_objects import NO_EGO_MOTION, NO_OBJECT, TOO_FEW_RELIABLE, RigidObjects
from tests.motion.box_scenes import CAMERA_HEIGHT_M, Box, BoxScene, best_ious

CROSSING = Box((2.5, 0.8, 12), (0.9, 0.8, 1.5), shift=(-0.8, 0, 0))
ONCOMING = Box((-2.5, 0.8, 14), (0.9, 0.8, 1.5), shift=(0, 0, -0.9))
LEADING = Box((-2.5, 0.8, 11), (0.9, 0.8, 1.5), shift=(0, 0, 0.6))
SIZE = (120, 240)
STANDING_BOX = Box((5.0, 0.9, 14), (0.9, 0.7, 1.8))


def scene_of(boxes: tuple[Box, ...], **options: Any) -> BoxScene:
    return BoxScene(boxes, **{"size": SIZE, **options})


@pytest.fixture(scope="module")
def fewer_runs(settings: MotionSettings) -> MotionSettings:
    """Enough for exact scenes, and fast."""
    monocular = dataclasses.replace(settings.monocular, grid_rows=40, proposals=24)
    return dataclasses.replace(settings, runs=2, monocular=monocular)


def find(scene: BoxScene, settings: MotionSettings) -> tuple[RigidObjects, dict[int, float]]:
    measurement, owner = scene.measure()
    found = find_monocular_objects(
        measurement.optical_flow_forward,
        measurement.optical_flow_backward,
        scene.camera,
        settings,
        seed=0,
        frame_id="boxes",
    )
    return found, best_ious(found.instance_map, owner)


@pytest.mark.parametrize("noise_px", [0.0, 0.3])
def test_a_crossing_box_is_found_and_the_standing_one_is_not(
    fewer_runs: MotionSettings, noise_px: float
) -> None:
    found, ious = find(scene_of((CROSSING, STANDING_BOX), noise_px=noise_px), fewer_runs)
    assert len(found.proposals) == 1
    assert ious[1] > 0.7
    assert ious[2] < 0.05


def test_a_box_that_drives_ahead_seems_to_lie_under_the_ground(fewer_runs: MotionSettings) -> None:
    found, ious = find(scene_of((LEADING, STANDING_BOX)), fewer_runs)
    assert len(found.proposals) == 1
    assert ious[1] > 0.7


def test_a_box_that_comes_nearer_seems_to_float(fewer_runs: MotionSettings) -> None:
    found, ious = find(scene_of((ONCOMING, STANDING_BOX)), fewer_runs)
    assert len(found.proposals) == 1
    assert ious[1] > 0.7


def test_along_the_epipolar_line_a_box_is_invisible_without_a_ground(fewer_runs: MotionSettings) -> None:
    blind = dataclasses.replace(
        fewer_runs, monocular=dataclasses.replace(fewer_runs.monocular, ground_share=0.0)
    )
    found, _ = find(scene_of((ONCOMING, STANDING_BOX)), blind)
    assert found.reason == NO_OBJECT


@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        (scene_of((CROSSING, STANDING_BOX), ego_shift=(0, 0, 0), ego_yaw=0), STANDING),
        (scene_of((CROSSING, STANDING_BOX), ego_shift=(0, 0, 0), ego_yaw=1.5), ROTATION),
        (scene_of((CROSSING,), ego_shift=(2.5, 0, 0), ego_yaw=0.4, ground=False), PLANE),
        (scene_of((CROSSING, STANDING_BOX)), PARALLAX),
    ],
    ids=["static camera", "pure rotation", "one wall", "driving"],
)
def test_each_kind_of_camera_motion_is_recognised_and_the_box_found(
    fewer_runs: MotionSettings, scene: BoxScene, kind: str
) -> None:
    found, ious = find(scene, fewer_runs)
    assert len(found.proposals) == 1
    assert ious[1] > 0.7
    assert camera_motion(scene, fewer_runs).kind == kind


def camera_motion(scene: BoxScene, settings: MotionSettings):
    measurement, _ = scene.measure()
    forward = torch.from_numpy(measurement.optical_flow_forward)
    view = View.of(scene.camera, 0.3, 0.3, torch.device("cpu"))
    cells = sample_flow_cells(forward, torch.ones(scene.size, dtype=torch.bool), view, 48)
    draws = Draws(0, "boxes", 2, cells.device)
    allowed = cells.reliable.expand(2, -1)
    found = find_camera_motion(cells, allowed, draws, view, 9.2, settings.monocular)
    return found.best


def test_direction_of_travel_and_ground_are_those_of_the_scene(fewer_runs: MotionSettings) -> None:
    motion = camera_motion(scene_of((STANDING_BOX,), ego_shift=(0.1, 0.0, 0.6)), fewer_runs)
    # Points move against the camera, in its turned frame.
    expected = -np.array([0.1, 0.0, 0.6])
    length = np.linalg.norm(expected)
    cosine = motion.translations[0].numpy() @ expected / length
    assert cosine > np.cos(np.radians(0.6))
    assert motion.ground is not None
    # Nearness on the ground is y / height, in units of one over the translation.
    assert motion.ground.tolist() == pytest.approx([0, length / CAMERA_HEIGHT_M, 0], abs=0.01)


def test_a_scene_without_ground_shows_none(fewer_runs: MotionSettings) -> None:
    scene = scene_of((STANDING_BOX,), ground=False)
    measurement, _ = scene.measure()
    view = View.of(scene.camera, 0.3, 0.3, torch.device("cpu"))
    cells = sample_flow_cells(
        torch.from_numpy(measurement.optical_flow_forward), torch.ones(scene.size) > 0, view, 48
    )
    draws = Draws(0, "boxes", 1, cells.device)
    motion = dataclasses.replace(camera_motion(scene_of((STANDING_BOX,)), fewer_runs), ground=None)
    assert find_ground(motion, cells, view, draws.uniform(512, 3)[0], 0.2) is None


def test_ego_motion_alone_gives_no_object_and_says_so(fewer_runs: MotionSettings) -> None:
    found, _ = find(scene_of((STANDING_BOX,), noise_px=0.3), fewer_runs)
    assert found.reason == NO_OBJECT
    assert not found.instance_map.any()
    assert found.ego_residual is not None
    assert found.ego_shares is not None
    assert found.ego_shares.min() > 0.9


def test_rows_have_no_metres_and_fit_the_map(fewer_runs: MotionSettings) -> None:
    found, _ = find(scene_of((CROSSING, ONCOMING), noise_px=0.1), fewer_runs)
    assert [proposal.instance for proposal in found.proposals] == list(range(1, len(found.proposals) + 1))
    for proposal in found.proposals:
        assert proposal.source == "monocular"
        assert np.isnan([proposal.surface_m2, proposal.depth_m, proposal.speed_m_s]).all()
        rows, columns = np.nonzero(found.instance_map == proposal.instance)
        assert proposal.area_px == len(rows)
        assert (proposal.x0, proposal.y0) == (columns.min(), rows.min())
        assert (proposal.x1, proposal.y1) == (columns.max() + 1, rows.max() + 1)


def test_same_seed_gives_the_same_masks_whatever_ran_before(fewer_runs: MotionSettings) -> None:
    scene = scene_of((CROSSING, ONCOMING), noise_px=0.3)
    first = find(scene, fewer_runs)[0]
    find(scene_of((LEADING,)), fewer_runs)
    second = find(scene, fewer_runs)[0]
    assert np.array_equal(first.instance_map, second.instance_map)
    assert [dataclasses.astuple(row)[:3] for row in first.proposals] == [
        dataclasses.astuple(row)[:3] for row in second.proposals
    ]


def arbitrary_flow(size: tuple[int, int], patch: int) -> np.ndarray:
    """Patches that each move their own way."""
    random = np.random.default_rng(0)
    height, width = size
    steps = random.uniform(-12, 12, (2, height // patch, width // patch))
    return np.kron(steps, np.ones((patch, patch))).astype(np.float32)


@pytest.mark.parametrize("patch", [1, 8])
def test_where_everything_moves_its_own_way_there_is_no_ego_motion(
    fewer_runs: MotionSettings, patch: int
) -> None:
    flow = arbitrary_flow((96, 192), patch)
    found = find_monocular_objects(
        flow, None, scene_of((), size=(96, 192)).camera, fewer_runs, seed=0, frame_id="noise"
    )
    assert found.reason == NO_EGO_MOTION
    assert not found.proposals


def test_flow_that_its_reverse_contradicts_is_not_reliable(fewer_runs: MotionSettings) -> None:
    # Back by as much forward again, and by more than any noise.
    flow = np.full((2, 96, 192), 12, np.float32)
    found = find_monocular_objects(
        flow, flow, scene_of((), size=(96, 192)).camera, fewer_runs, seed=0, frame_id="noise"
    )
    assert found.reason == TOO_FEW_RELIABLE


def test_unknown_flow_is_left_out_and_infinite_flow_refused(fewer_runs: MotionSettings) -> None:
    scene = scene_of((CROSSING,))
    measurement, owner = scene.measure()
    forward = measurement.optical_flow_forward.copy()
    forward[:, :40, :100] = np.nan
    found = find_monocular_objects(forward, None, scene.camera, fewer_runs, seed=0, frame_id="boxes")
    assert best_ious(found.instance_map, owner)[1] > 0.6
    assert not found.reliable[:40, :100].any()
    assert found.ego_residual is not None
    assert np.isnan(found.ego_residual[:40, :100]).all()
    forward[0, 3, 4] = np.inf
    with pytest.raises(DataError, match=r"optical_flow_forward must be finite.*Got: 1 infinite"):
        find_monocular_objects(forward, None, scene.camera, fewer_runs, seed=0, frame_id="boxes")


def test_nothing_known_says_that_too_little_is_reliable(fewer_runs: MotionSettings) -> None:
    flow = np.full((2, 64, 96), np.nan, np.float32)
    found = find_monocular_objects(flow, None, scene_of(()).camera, fewer_runs, seed=0, frame_id="blind")
    assert found.reason == TOO_FEW_RELIABLE


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (9, 7), (24, 32)])
def test_tiny_images_have_a_reason(settings: MotionSettings, size: tuple[int, int]) -> None:
    settings = dataclasses.replace(
        settings, runs=2, reliability=dataclasses.replace(settings.reliability, min_reliable_px=1)
    )
    scene = scene_of((), size=size)
    flow = np.zeros((2, *size), np.float32)
    found = find_monocular_objects(flow, flow, scene.camera, settings, seed=0, frame_id="tiny")
    assert found.reason == NO_OBJECT
    assert found.instance_map.shape == size


def test_sizes_and_cameras_that_cannot_be_are_refused(settings: MotionSettings) -> None:
    flow, camera = np.zeros((2, 8, 9), np.float32), scene_of(()).camera
    with pytest.raises(ShapeError, match=r"valid must be \(8, 9\)"):
        find_monocular_objects(
            flow, None, camera, settings, seed=0, frame_id="x", valid=np.ones((9, 8), np.bool_)
        )
    with pytest.raises(ShapeError, match=r"must be \(2, H, W\)"):
        find_monocular_objects(flow[:1], None, camera, settings, seed=0, frame_id="x")
    with pytest.raises(ConfigError, match="positive focal lengths"):
        find_monocular_objects(
            flow, None, dataclasses.replace(camera, focal_x=0.0), settings, seed=0, frame_id="x"
        )
