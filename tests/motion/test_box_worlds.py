"""Rigid boxes with exact or noisy measurements: what moves is found, what stands is not, and why is said."""

import dataclasses

import numpy as np
import pytest

from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings
from gestalt.errors import DataError, ShapeError
from gestalt.matching.measurement import Measurement
from gestalt.motion.rigid_objects import (
    NO_OBJECT,
    TOO_FEW_RELIABLE,
    RigidObjects,
    find_rigid_objects,
)
from tests.motion.box_scenes import Box, BoxScene, best_ious

AHEAD = Box((-3, 0.9, 10), (0.9, 0.7, 1.2), shift=(0.0, 0, 1.4))
ACROSS = Box((2.5, 0.8, 12), (0.9, 0.8, 1.5), shift=(-0.8, 0, 0.6))
STANDING = Box((6.0, 0.9, 16), (0.9, 0.7, 1.8))
TURNING = dataclasses.replace(STANDING, yaw=4.0)


@pytest.fixture(scope="module")
def settings() -> MotionSettings:
    found: MotionSettings = default_settings("motion")
    return found


def find(scene: BoxScene, settings: MotionSettings, seed: int = 0) -> tuple[RigidObjects, dict[int, float]]:
    measurement, owner = scene.measure()
    found = find_rigid_objects(measurement, scene.camera, settings, seed=seed, frame_id="boxes")
    return found, best_ious(found.instance_map, owner)


@pytest.mark.parametrize("noise_px", [0.0, 0.3])
def test_translating_boxes_are_found_and_the_standing_one_is_not(
    settings: MotionSettings, noise_px: float
) -> None:
    found, ious = find(BoxScene((AHEAD, ACROSS, STANDING), noise_px=noise_px), settings)
    assert len(found.proposals) == 2
    assert ious[1] > 0.8
    assert ious[2] > 0.8
    assert ious[3] < 0.1


def test_box_that_turns_by_four_degrees_is_found(settings: MotionSettings) -> None:
    found, ious = find(BoxScene((TURNING,), size=(320, 640), noise_px=0.3), settings)
    assert len(found.proposals) == 1
    assert ious[1] > 0.8


def test_ego_motion_alone_gives_no_object_and_says_so(settings: MotionSettings) -> None:
    found, _ = find(BoxScene((STANDING,), noise_px=0.3), settings)
    assert found.reason == NO_OBJECT
    assert not found.instance_map.any()


def test_ego_motion_is_recovered(settings: MotionSettings) -> None:
    found, _ = find(BoxScene((AHEAD,), ego_shift=(0.0, 0.0, 0.6), ego_yaw=0.3), settings)
    assert found.ego_motion is not None
    # Points move against the camera.
    assert found.ego_motion[2, 3] == pytest.approx(-0.6, abs=0.03)


def test_noise_is_measured(settings: MotionSettings) -> None:
    found, _ = find(BoxScene((AHEAD,), noise_px=1.0), settings)
    assert found.noise.x == pytest.approx(1.0, rel=0.25)
    assert found.noise.disparity == pytest.approx(1.0, rel=0.25)


def test_same_seed_gives_the_same_masks(settings: MotionSettings) -> None:
    scene = BoxScene((AHEAD, ACROSS), noise_px=0.3)
    first, second = find(scene, settings)[0], find(scene, settings)[0]
    assert np.array_equal(first.instance_map, second.instance_map)
    assert first.proposals == second.proposals


def test_ids_are_consecutive_and_records_fit_the_map(settings: MotionSettings) -> None:
    found, _ = find(BoxScene((AHEAD, ACROSS), noise_px=0.3), settings)
    assert [proposal.instance for proposal in found.proposals] == list(range(1, len(found.proposals) + 1))
    for proposal in found.proposals:
        rows, columns = np.nonzero(found.instance_map == proposal.instance)
        assert proposal.area_px == len(rows)
        assert (proposal.x0, proposal.y0) == (columns.min(), rows.min())
        assert (proposal.x1, proposal.y1) == (columns.max() + 1, rows.max() + 1)


def test_speed_is_the_displacement_over_the_time_step(settings: MotionSettings) -> None:
    scene = BoxScene((AHEAD,))
    measurement, _ = scene.measure()
    found = find_rigid_objects(measurement, scene.camera, settings, seed=0, frame_id="boxes", time_step_s=0.1)
    assert found.proposals[0].speed_m_s == pytest.approx(14.0, rel=0.1)


def test_frame_without_disparity_says_that_too_little_is_reliable(settings: MotionSettings) -> None:
    measurement, _ = BoxScene((AHEAD,)).measure()
    blind = dataclasses.replace(measurement, disparity=np.zeros_like(measurement.disparity))
    found = find_rigid_objects(blind, BoxScene(()).camera, settings, seed=0, frame_id="boxes")
    assert found.reason == TOO_FEW_RELIABLE
    assert not found.proposals


def test_infinite_optical_flow_is_refused() -> None:
    measurement, _ = BoxScene((AHEAD,)).measure()
    broken = measurement.optical_flow_forward.copy()
    broken[0, 3, 4] = np.inf
    with pytest.raises(DataError, match=r"optical_flow_forward must be finite. Got: 1 of .* \(0, 3, 4\)"):
        dataclasses.replace(measurement, optical_flow_forward=broken)


def test_measurements_of_different_size_are_refused() -> None:
    measurement, _ = BoxScene((AHEAD,)).measure()
    with pytest.raises(ShapeError, match="disparity_next must be"):
        dataclasses.replace(measurement, disparity_next=np.zeros((5, 5), np.float32))


def test_second_disparity_is_needed() -> None:
    size = (8, 9)
    with pytest.raises(DataError, match="disparity_next or disparity_next_warped"):
        Measurement(np.zeros((2, *size), np.float32), None, np.ones(size, np.float32), None)
