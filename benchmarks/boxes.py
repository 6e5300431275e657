"""A scene for ``benchmarks/motion.py``: exact optical flow and disparity of moving boxes, with noise if wanted.

A camera drives over a ground towards a wall; four boxes stand on the ground, three of them translate and one
also turns by four degrees. Prints one JSON object: the file, the objects and their visible pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

FOCAL_LENGTH_SHARE, HORIZON_SHARE, STEREO_BASELINE_M, CAMERA_HEIGHT_M = 1.1, 0.42, 0.5, 1.5
WALL_M = 60.0
# Of the camera from t to t+1: metres to the right, down, ahead; yaw, rad.
CAMERA_MOTION = ((0.02, 0.0, 0.9), 0.01)
# Of each box: centre on the ground (x, z), half extents, yaw; translation and turn from t to t+1.
BOXES: tuple[tuple[Any, ...], ...] = (
    ((-4.2, 20.0), (0.9, 0.75, 2.1), 0.10, (0.0, 0.0, -1.1), 0.0),
    ((7.5, 24.0), (1.0, 1.0, 2.3), -0.05, (0.0, 0.0, 1.9), 0.0),
    ((-1.2, 27.0), (1.8, 0.8, 0.9), 0.0, (-0.6, 0.0, 0.0), 0.0),
    ((1.9, 12.0), (0.9, 0.75, 2.0), 0.3, (0.25, 0.0, 0.5), float(np.radians(4))),
)
WALL, GROUND = -1, -2


def main() -> None:
    """Write the scene."""
    parser = argparse.ArgumentParser(prog="benchmarks/boxes.py", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="NPZ to write")
    parser.add_argument("--height", type=int, default=640, help="rows (default: %(default)s)")
    parser.add_argument("--width", type=int, default=1280, help="columns (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of every value, pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    arguments = parser.parse_args()
    scene = make_scene(arguments.height, arguments.width, noise=arguments.noise, seed=arguments.seed)
    np.savez_compressed(arguments.out, **scene)
    pixels = np.bincount(scene["instances"].ravel(), minlength=len(BOXES) + 1)[1:]
    print(json.dumps({"scene": str(arguments.out), "objects": len(BOXES), "pixels": pixels.tolist()}))


def make_scene(height: int, width: int, *, noise: float, seed: int) -> dict[str, npt.NDArray[Any]]:
    """What ``benchmarks/motion.py`` reads, and ``instances`` (H, W) uint16 with the true objects 1..N.

    Args:
        height: Rows.
        width: Columns.
        noise: Standard deviation added to every flow component and disparity, pixels.
        seed: Of the noise.
    """
    focal = FOCAL_LENGTH_SHARE * width
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - HORIZON_SHARE * height)
    rays = np.stack([x / focal, y / focal, np.ones_like(x)], axis=-1)
    views = {(time, side): cast(rays, time, side) for time in (0, 1) for side in (0, 1)}
    disparity = {key: focal * STEREO_BASELINE_M / depth for key, (_, depth) in views.items()}
    exact = {
        "optical_flow_forward": optical_flow(rays, *views[0, 0], time=0) * focal,
        "optical_flow_backward": optical_flow(rays, *views[1, 0], time=1) * focal,
        "disparity": disparity[0, 0],
        "disparity_next": disparity[1, 0],
        "disparity_right": disparity[0, 1],
        "disparity_right_next": disparity[1, 1],
    }
    rng = np.random.default_rng(seed)
    scene: dict[str, npt.NDArray[Any]] = {
        name: (value + noise * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in exact.items()
    }
    for name in ("disparity", "disparity_next", "disparity_right", "disparity_right_next"):
        scene[name] = np.maximum(scene[name], 1e-3)
    scene["intrinsics"] = np.array(
        [[focal, 0, (width - 1) / 2], [0, focal, HORIZON_SHARE * height], [0, 0, 1]], np.float64
    )
    scene["stereo_baseline"] = np.float64(STEREO_BASELINE_M)
    scene["instances"] = np.maximum(views[0, 0][0] + 1, 0).astype(np.uint16)
    return scene


def cast(rays: FloatArray, time: int, side: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Surface (box index, wall or ground) and depth of each ray (H, W, 3) of a camera; side 1 is the right one."""
    pose = camera_pose(time)
    origin = pose[:3, 3] + side * STEREO_BASELINE_M * pose[:3, 0]
    directions = rays @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        to_ground = np.where(directions[..., 1] > 1e-9, -origin[1] / directions[..., 1], np.inf)
        to_wall = (WALL_M - origin[2]) / directions[..., 2]
        depth = np.minimum(to_ground, to_wall)
        surface = np.where(to_ground < to_wall, GROUND, WALL)
        for index, (_, half, *_) in enumerate(BOXES):
            box = box_pose(index, time)
            local, start = directions @ box[:3, :3], (origin - box[:3, 3]) @ box[:3, :3]
            sides = np.stack([(sign * np.array(half) - start) / local for sign in (-1, 1)])
            enter, leave = sides.min(0).max(-1), sides.max(0).min(-1)
            hit = (enter < leave) & (enter > 0) & (enter < depth)
            depth, surface = np.where(hit, enter, depth), np.where(hit, index, surface)
    return surface, depth


def optical_flow(
    rays: FloatArray, surface: npt.NDArray[np.int64], depth: FloatArray, *, time: int
) -> FloatArray:
    """(2, H, W) displacement to the other time, in units of the focal length."""
    moved = rays * depth[..., None]
    for index in range(GROUND, len(BOXES)):
        inside = surface == index
        before, after = (box_pose(index, t) if index >= 0 else np.eye(4) for t in (time, 1 - time))
        motion = np.linalg.inv(camera_pose(1 - time)) @ after @ np.linalg.inv(before) @ camera_pose(time)
        moved[inside] = moved[inside] @ motion[:3, :3].T + motion[:3, 3]
    return np.moveaxis(moved[..., :2] / moved[..., 2:] - rays[..., :2], -1, 0)


def camera_pose(time: int) -> FloatArray:
    """(4, 4) camera to world; the ground is y = 0, y points down."""
    (right, down, ahead), yaw = CAMERA_MOTION
    return pose((time * right, time * down - CAMERA_HEIGHT_M, time * ahead), time * yaw)


def box_pose(index: int, time: int) -> FloatArray:
    """(4, 4) box to world."""
    (x, z), half, yaw, translation, turn = BOXES[index]
    position = np.array([x, -half[1], z]) + time * np.array(translation)
    return pose(tuple(position), yaw + time * turn)


def pose(position: tuple[float, ...], yaw: float) -> FloatArray:
    """(4, 4) rigid motion: a turn about the vertical axis, then a translation."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    matrix = np.eye(4)
    matrix[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    matrix[:3, 3] = position
    return matrix


if __name__ == "__main__":
    main()
