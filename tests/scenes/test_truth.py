"""The truth against the pictures, against other views, and against its own definition."""

import cv2
import numpy as np
import pytest

from gestalt.scenes import truth
from gestalt.scenes.casting import SKY
from gestalt.scenes.primitives import STATIC
from gestalt.scenes.raw_ids import THINGS, RawId
from tests.scenes.worlds import SIZE, TIMES, views, world

BASELINE = 0.5
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)


def warp(values: np.ndarray, x: np.ndarray, y: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """``values`` at the pixels moved by (x, y); not a number outside."""
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    moved_x, moved_y = (np.nan_to_num(a, nan=-9e3).astype(np.float32) for a in (COLUMNS + x, ROWS + y))
    return cv2.remap(values.astype(np.float32), moved_x, moved_y, mode, borderValue=(np.nan,) * 3)


def geometry(index: int) -> dict[str, np.ndarray]:
    return truth.exact_geometry(world(index), views(index), 0, TIMES, BASELINE)


@pytest.mark.parametrize("index", range(4))
def test_disparity_takes_the_left_view_to_the_right_one(index: int) -> None:
    exact, both = geometry(index), views(index)
    other = warp(exact["disparity_right"], -exact["disparity"], 0 * ROWS, nearest=True)
    seen = np.abs(other - exact["disparity"]) < 0.3
    assert seen.mean() > 0.75
    left, right = (both[0, side].image for side in ("left", "right"))
    error = np.abs(warp(right, -exact["disparity"], 0 * ROWS) - left).mean(-1)
    seen &= np.isfinite(error)
    # Two samples a pixel: what remains are thin things and leaves.
    assert np.median(error[seen]) < 2.5
    assert error[seen].mean() < 0.4 * np.abs(right.astype(np.float32) - left).mean()


@pytest.mark.parametrize("index", range(4))
def test_optical_flow_takes_one_frame_to_the_next_and_back(index: int) -> None:
    exact, both = geometry(index), views(index)
    forward, backward = exact["optical_flow_forward"], exact["optical_flow_backward"]
    arrived = warp(exact["disparity_next"], *forward, nearest=True)
    seen = np.abs(arrived - exact["disparity_next_warped"]) < 0.3
    assert seen.mean() > 0.6
    back = np.stack([warp(axis, *forward) for axis in backward])
    seen &= np.isfinite(back).all(0)
    assert np.median(np.abs(forward + back).max(0)[seen]) < 0.05
    now, after = (both[frame, "left"].image for frame in (0, 1))
    error = np.abs(warp(after, *forward) - now).mean(-1)
    assert np.median(error[seen]) < 3.5


@pytest.mark.parametrize("index", range(4))
def test_disparity_is_focal_length_times_baseline_over_depth(index: int) -> None:
    exact, focal_length = geometry(index), world(index).camera.intrinsics[0, 0]
    depth = views(index)[0, "left"].hits.depth
    near = np.isfinite(depth)
    np.testing.assert_allclose(exact["disparity"][near] * depth[near], focal_length * BASELINE, rtol=1e-5)
    assert (exact["disparity"][np.isinf(depth)] == 0).all()
    assert (exact["disparity_next_warped"][np.isinf(depth)] == 0).all()


@pytest.mark.parametrize("index", range(4))
def test_static_points_flow_as_the_ego_motion_says(index: int) -> None:
    scene, view, exact = world(index), views(index)[0, "left"], geometry(index)
    intrinsics = scene.camera.intrinsics
    poses = []
    for time in TIMES:
        rotation, centre = scene.camera.pose(time)
        poses.append(np.vstack([np.column_stack([rotation, centre]), [0, 0, 0, 1]]))
    ego_motion = np.linalg.inv(poses[1]) @ poses[0]
    static = (truth.object_map(scene, view.hits) == STATIC) & (view.hits.surface != SKY)
    rays = np.linalg.inv(intrinsics) @ np.stack([COLUMNS[static], ROWS[static], np.ones(static.sum())])
    moved = ego_motion[:3, :3] @ (rays * view.hits.depth[static]) + ego_motion[:3, 3:]
    projected = intrinsics @ (moved / moved[2])
    ahead = moved[2] > 0.3
    found = exact["optical_flow_forward"][:, static] + np.stack([COLUMNS[static], ROWS[static]])
    np.testing.assert_allclose(found[:, ahead], projected[:2, ahead], atol=2e-2)


def test_moving_objects_arrive_on_themselves_and_leave_the_ego_motion() -> None:
    checked = 0
    for index in range(6):
        scene, both = world(index), views(index)
        exact = geometry(index)
        owner, owner_next = (truth.object_map(scene, both[frame, "left"].hits) for frame in (0, 1))
        arrived = warp(owner_next, *exact["optical_flow_forward"], nearest=True)
        depth_there = warp(exact["disparity_next"], *exact["optical_flow_forward"], nearest=True)
        seen = np.abs(depth_there - exact["disparity_next_warped"]) < 0.1
        moving = np.array([item.is_moving for item in scene.objects])[owner]
        if (moving & seen).sum() > 100:
            assert (arrived[moving & seen] == owner[moving & seen]).mean() > 0.97
            checked += 1
    assert checked >= 3


def test_the_sky_turns_with_the_camera_and_has_no_depth() -> None:
    for index in range(6):
        scene, view, exact = world(index), views(index)[0, "left"], geometry(index)
        sky = view.hits.surface == SKY
        if sky.sum() < 50:
            continue
        turned = scene.camera.pose(TIMES[1])[0].T @ scene.camera.pose(TIMES[0])[0]
        homography = scene.camera.intrinsics @ turned @ np.linalg.inv(scene.camera.intrinsics)
        there = homography @ np.stack([COLUMNS[sky], ROWS[sky], np.ones(sky.sum())])
        wanted = there[:2] / there[2] - np.stack([COLUMNS[sky], ROWS[sky]])
        np.testing.assert_allclose(exact["optical_flow_forward"][:, sky], wanted, atol=2e-2)
        return
    pytest.fail("no test world shows the sky")


@pytest.mark.parametrize("index", range(4))
def test_ids_are_valid_and_instances_belong_to_things(index: int) -> None:
    scene, view = world(index), views(index)[0, "left"]
    ids, values = truth.raw_id_map(scene, view), truth.instance_map(scene, view)
    assert set(np.unique(ids)) <= {int(entry) for entry in RawId}
    is_thing = np.isin(ids, [int(entry) for entry in THINGS])
    np.testing.assert_array_equal(values >= 1000, is_thing)
    np.testing.assert_array_equal(np.where(is_thing, values // 1000, values), ids)


def test_the_table_of_objects_counts_their_pixels() -> None:
    scene, view = world(2), views(2)[0, "left"]
    rows = truth.object_table(scene, view, "f", 0.0)
    values = truth.instance_map(scene, view)
    assert sum(row["n_pixels"] for row in rows) == (values >= 1000).sum()
    for row in rows:
        assert row["n_pixels"] == (values == row["instance"]).sum()
        assert RawId[row["class"].upper()] == row["instance"] // 1000
        assert row["is_moving"] == (row["speed_m_s"] > 0)
    assert {row["is_moving"] for row in rows} == {True, False}
