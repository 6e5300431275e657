"""A tiny stereo scene with exact truth: two moving boxes before a textured wall on textured ground.

It shares no code with ``gestalt.scenes``, so it also serves as a second opinion on that room. Frames: x
right, y down, z forward; metres; pixel centres have integer coordinates; the ground is the plane y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

CAMERA_HEIGHT_M = 1.5
TEXTURE_SIZE = 256
TEXELS_PER_M = 24.0
GROUND, WALL, FIRST_BOX = -2, 0, 1
ROAD_ID, BUILDING_ID, CAR_ID = 7, 11, 26
# Wall and boxes: centre, half extents, yaw (rad) at time t, and motion until t + 1: translation, yaw.
BOXES = (
    ((0.0, -6.0, 26.0), (40.0, 8.0, 1.0), 0.0, (0.0, 0.0, 0.0), 0.0),
    ((-1.8, -0.75, 9.0), (0.9, 0.75, 1.6), 0.3, (0.55, 0.0, 0.25), 0.02),
    ((2.9, -1.2, 13.0), (1.1, 1.2, 1.5), -0.1, (-0.35, 0.0, 1.1), 0.0),
)


@dataclass(frozen=True, eq=False)
class StereoScene:
    """Two stereo pairs and everything that is true about them.

    Images are (H, W, 3) uint8 RGB. Disparities are positive pixels. ``*_next`` maps lie on the grid of the
    left image at t + 1, ``*_right`` maps on the grid of the right image; ``disparity_next_warped`` is the
    disparity at t + 1 of the point seen at the pixel of t. Optical flow is (2, H, W) pixels, x then y.
    ``instances`` holds 1 and 2 for the boxes and 0 elsewhere; ``semantic`` holds Cityscapes raw ids.
    ``occluded`` marks pixels of t whose point is hidden or outside the image at t + 1. ``ego_motion`` and
    ``box_motions`` (for the boxes 1 and 2) take points of the camera frame at t to that at t + 1.
    """

    left: npt.NDArray[np.uint8]
    right: npt.NDArray[np.uint8]
    left_next: npt.NDArray[np.uint8]
    right_next: npt.NDArray[np.uint8]
    depth: FloatArray
    depth_next: FloatArray
    disparity: FloatArray
    disparity_right: FloatArray
    disparity_next: FloatArray
    disparity_right_next: FloatArray
    disparity_next_warped: FloatArray
    optical_flow_forward: FloatArray
    optical_flow_backward: FloatArray
    occluded: npt.NDArray[np.bool_]
    instances: npt.NDArray[np.uint16]
    instances_next: npt.NDArray[np.uint16]
    semantic: npt.NDArray[np.uint8]
    intrinsics: npt.NDArray[np.float64]
    stereo_baseline: float
    time_step_s: float
    ego_motion: npt.NDArray[np.float64]
    box_motions: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def render_scene(
    height: int = 96,
    width: int = 192,
    *,
    seed: int = 0,
    boxes_move: tuple[bool, bool] = (True, True),
    camera_moves: bool = True,
    noise: float = 0.01,
) -> StereoScene:
    """Render the scene.

    Args:
        height: Rows of an image.
        width: Columns of an image; the focal length is 1.1 times this.
        seed: Of the textures and the sensor noise; the geometry is always the same.
        boxes_move: Whether the first and the second box move.
        camera_moves: Whether the camera moves (0.7 m ahead, a little to the left, a slight turn).
        noise: Standard deviation of the sensor noise, 1 = full range.
    """
    scene = _Geometry(height, width, boxes_move, camera_moves)
    rng = np.random.default_rng(seed)
    hits = {(time, side): scene.cast(time, side) for time in (0, 1) for side in (0, 1)}
    images = {key: _image(scene, *key, seed, noise * rng.standard_normal((height, width, 3))) for key in hits}
    depth = {key: hit[1] for key, hit in hits.items()}
    focal_baseline = scene.focal * scene.baseline
    disparity = {key: (focal_baseline / value).astype(np.float32) for key, value in depth.items()}
    forward, depth_warped = scene.optical_flow(hits[0, 0], 0)
    backward, _ = scene.optical_flow(hits[1, 0], 1)
    surface = hits[0, 0][0]
    semantic = np.where(surface == GROUND, ROAD_ID, np.where(surface == WALL, BUILDING_ID, CAR_ID))
    return StereoScene(
        left=images[0, 0],
        right=images[0, 1],
        left_next=images[1, 0],
        right_next=images[1, 1],
        depth=depth[0, 0],
        depth_next=depth[1, 0],
        disparity=disparity[0, 0],
        disparity_right=disparity[0, 1],
        disparity_next=disparity[1, 0],
        disparity_right_next=disparity[1, 1],
        disparity_next_warped=(focal_baseline / depth_warped).astype(np.float32),
        optical_flow_forward=forward,
        optical_flow_backward=backward,
        occluded=_hidden(forward, depth_warped, depth[1, 0]),
        instances=np.maximum(surface, 0).astype(np.uint16),
        instances_next=np.maximum(hits[1, 0][0], 0).astype(np.uint16),
        semantic=semantic.astype(np.uint8),
        intrinsics=scene.intrinsics,
        stereo_baseline=scene.baseline,
        time_step_s=0.12,
        ego_motion=scene.camera_motion(WALL),
        box_motions=(scene.camera_motion(1), scene.camera_motion(2)),
    )


class _Geometry:
    def __init__(self, height: int, width: int, boxes_move: tuple[bool, bool], camera_moves: bool) -> None:
        self.height, self.width, self.baseline, self.focal = height, width, 0.5, 1.1 * width
        self.centre_x, self.centre_y = (width - 1) / 2, 0.42 * height
        self.moves = (False, *boxes_move)
        self.camera_moves = camera_moves
        self.intrinsics = np.array(
            [[self.focal, 0, self.centre_x], [0, self.focal, self.centre_y], [0, 0, 1]], np.float64
        )

    def camera(self, time: int) -> npt.NDArray[np.float64]:
        """(4, 4) camera to world, left camera."""
        step = time * self.camera_moves
        return _pose((-0.06 * step, -CAMERA_HEIGHT_M, 0.7 * step), 0.012 * step)

    def box(self, index: int, time: int) -> npt.NDArray[np.float64]:
        """(4, 4) box to world."""
        centre, _, yaw, translation, turn = BOXES[index]
        step = time * self.moves[index]
        return _pose(tuple(c + step * t for c, t in zip(centre, translation, strict=True)), yaw + step * turn)

    def camera_motion(self, index: int) -> npt.NDArray[np.float64]:
        """(4, 4) camera frame at 0 to camera frame at 1, for points on the box."""
        object_motion = self.box(index, 1) @ np.linalg.inv(self.box(index, 0))
        return np.asarray(np.linalg.inv(self.camera(1)) @ object_motion @ self.camera(0))

    def rays(self, scale: int = 1) -> npt.NDArray[Any]:
        """(H * scale, W * scale, 3) directions with z = 1 in the camera frame."""
        columns = (np.arange(self.width * scale) + 0.5) / scale - 0.5
        rows = (np.arange(self.height * scale) + 0.5) / scale - 0.5
        x, y = np.meshgrid((columns - self.centre_x) / self.focal, (rows - self.centre_y) / self.focal)
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    def cast(self, time: int, side: int, scale: int = 1) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Surface (ground -2, box index) and depth that each pixel sees."""
        pose = self.camera(time)
        origin = pose[:3, 3] + side * self.baseline * pose[:3, 0]
        directions = (self.rays(scale) @ pose[:3, :3].T).astype(np.float32 if scale > 1 else np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(directions[..., 1] > 1e-6, -origin[1] / directions[..., 1], np.inf)
            surface = np.full(depth.shape, GROUND)
            for index, (_, half, *_) in enumerate(BOXES):
                box = self.box(index, time)
                local = directions @ box[:3, :3]
                start = (origin - box[:3, 3]) @ box[:3, :3]
                enter = np.full(depth.shape, 0.1, local.dtype)
                leave = np.full(depth.shape, np.inf, local.dtype)
                for axis in range(3):
                    first = (-half[axis] - start[axis]) / local[..., axis]
                    second = (half[axis] - start[axis]) / local[..., axis]
                    enter = np.maximum(enter, np.minimum(first, second))
                    leave = np.minimum(leave, np.maximum(first, second))
                hit = (enter < leave) & (enter < depth)
                depth, surface = np.where(hit, enter, depth), np.where(hit, index, surface)
        return surface, depth.astype(np.float32)

    def optical_flow(
        self, hit: tuple[npt.NDArray[np.int64], FloatArray], time: int
    ) -> tuple[FloatArray, npt.NDArray[np.float64]]:
        """Optical flow to the other time and the depth there."""
        surface, depth = hit
        points = self.rays() * depth[..., None].astype(np.float64)
        moved = np.empty_like(points)
        for index in (GROUND, *range(len(BOXES))):
            motion = self.camera_motion(max(index, WALL))
            motion = motion if time == 0 else np.linalg.inv(motion)
            inside = surface == index
            moved[inside] = points[inside] @ motion[:3, :3].T + motion[:3, 3]
        projected = moved[..., :2] / moved[..., 2:] - self.rays()[..., :2]
        return np.moveaxis(projected * self.focal, -1, 0).astype(np.float32), moved[..., 2]


def _pose(translation: Any, yaw: float) -> npt.NDArray[np.float64]:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    pose = np.eye(4)
    pose[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    pose[:3, 3] = translation
    return pose


@cache
def _texture(seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(TEXTURE_SIZE) * TEXTURE_SIZE] * 2))
    # Falls slower than 1/f up to half the Nyquist frequency: texture at every scale, little aliasing.
    weight = np.where(frequency < TEXTURE_SIZE / 4, 1 / np.maximum(frequency, 1) ** 0.8, 0)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE))) * weight).real
    return np.asarray(0.5 + 0.16 * np.clip(field / field.std(), -2.5, 2.5), np.float32)


def _image(
    scene: _Geometry, time: int, side: int, seed: int, noise: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    scale = 2
    surface, depth = scene.cast(time, side, scale)
    pose = scene.camera(time)
    origin = pose[:3, 3] + side * scene.baseline * pose[:3, 0]
    points = origin + (scene.rays(scale) @ pose[:3, :3].T) * depth[..., None]
    colours = np.zeros((*surface.shape, 3))
    tints = {GROUND: (0.7, 0.7, 0.72), WALL: (0.9, 0.75, 0.6), 1: (0.9, 0.35, 0.3), 2: (0.35, 0.55, 1.0)}
    for index, tint in tints.items():
        inside = surface == index
        local, axis = points[inside], np.full(int(inside.sum()), 1)
        if index >= WALL:
            box = scene.box(index, time)
            local = (local - box[:3, 3]) @ box[:3, :3]
            axis = np.abs(local / np.array(BOXES[index][1])).argmax(-1)
        u = np.where(axis == 0, local[:, 2], local[:, 0]) * TEXELS_PER_M
        v = np.where(axis == 1, local[:, 2], local[:, 1]) * TEXELS_PER_M
        shade = _bilinear(_texture(1000 * seed + index + 2), u, v) * (1 - 0.15 * (axis == 0))
        colours[inside] = shade[:, None] * np.array(tint)
    shape = (scene.height, scale, scene.width, scale, 3)
    image = colours.reshape(shape).mean((1, 3)) + noise
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), np.uint8)


def _bilinear(texture: FloatArray, u: npt.NDArray[Any], v: npt.NDArray[Any]) -> npt.NDArray[Any]:
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    x, y = u - left, v - top
    columns, rows = (
        (left % TEXTURE_SIZE, (left + 1) % TEXTURE_SIZE),
        (top % TEXTURE_SIZE, (top + 1) % TEXTURE_SIZE),
    )
    upper = texture[rows[0], columns[0]] * (1 - x) + texture[rows[0], columns[1]] * x
    lower = texture[rows[1], columns[0]] * (1 - x) + texture[rows[1], columns[1]] * x
    return np.asarray(upper * (1 - y) + lower * y)


def _hidden(
    optical_flow: FloatArray, depth_warped: npt.NDArray[np.float64], depth_next: FloatArray
) -> npt.NDArray[np.bool_]:
    height, width = depth_next.shape
    rows, columns = np.mgrid[:height, :width]
    x = np.rint(columns + optical_flow[0]).astype(int)
    y = np.rint(rows + optical_flow[1]).astype(int)
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    seen = depth_next[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    # Two per cent of depth is more than a pixel of slanted ground changes and less than a box stands off.
    return np.asarray(outside | (seen < 0.98 * depth_warped - 0.05))
