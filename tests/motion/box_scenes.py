"""Exact optical flow and disparity of boxes on a ground before a wall, with optional Gaussian noise.

A ray caster without textures: what the clustering sees when measuring is perfect. Camera frame of t: x
right, y down, z
forward, metres; pixel centres at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gestalt.matching.measurement import Measurement
from gestalt.motion.geometry import Camera

Array = npt.NDArray[np.float64]
CAMERA_HEIGHT_M = 1.6
WALL_DEPTH_M = 45.0


@dataclass(frozen=True)
class Box:
    """A box that stands at ``center`` at t and moves by ``shift`` (metres) and ``yaw`` (degrees, about its middle)."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    turned: float = 0.0


@dataclass(frozen=True)
class BoxScene:
    """Boxes, the camera and how it moves between the frames (metres; degrees about the vertical)."""

    boxes: tuple[Box, ...]
    size: tuple[int, int] = (192, 384)
    focal_share: float = 1.1
    stereo_baseline: float = 0.5
    ego_shift: tuple[float, float, float] = (0.0, 0.0, 0.6)
    ego_yaw: float = 0.3
    noise_px: float = 0.0
    seed: int = 0
    ground: bool = True
    camera: Camera = field(init=False)

    def __post_init__(self) -> None:
        height, width = self.size
        focal = self.focal_share * width
        camera = Camera(focal, focal, (width - 1) / 2, 0.42 * height, self.stereo_baseline)
        object.__setattr__(self, "camera", camera)

    def measure(self) -> tuple[Measurement, npt.NDArray[np.int64]]:
        """What a perfect (or evenly noisy) matcher measures, and the index of the box (from 1) at every pixel of t."""
        first, second = self._poses()
        ego = _yaw(self.ego_yaw), np.array(self.ego_shift)
        origin = np.zeros(3)
        right = np.array([self.stereo_baseline, 0.0, 0.0])
        points, owner = self._cast(origin, np.eye(3), first)
        forward = self._project(_to_camera(self._move(points, owner, first, second), ego)) - self._pixels()
        later, later_owner = self._cast(ego[1], ego[0], second)
        back = self._project(self._move(later, later_owner, second, first)) - self._pixels()
        here = self.camera.disparity_scale / points[..., 2]
        there = self.camera.disparity_scale / _to_camera(later, ego)[..., 2]
        from_right, _ = self._cast(right, np.eye(3), first)
        later_right, _ = self._cast(ego[1] + ego[0] @ right, ego[0], second)
        other = self.camera.disparity_scale / from_right[..., 2]
        other_next = self.camera.disparity_scale / _to_camera(later_right, ego)[..., 2]
        noise = np.random.default_rng(self.seed)

        def noisy(array: Array) -> npt.NDArray[np.float32]:
            return (array + self.noise_px * noise.standard_normal(array.shape)).astype(np.float32)

        def positive(array: Array) -> npt.NDArray[np.float32]:
            return np.maximum(noisy(array), np.float32(1e-3))

        measurement = Measurement(
            optical_flow_forward=noisy(forward.transpose(2, 0, 1)),
            optical_flow_backward=noisy(back.transpose(2, 0, 1)),
            disparity=positive(here),
            disparity_next=positive(there),
            disparity_right=positive(other),
            disparity_right_next=positive(other_next),
        )
        return measurement, owner

    def _poses(self) -> tuple[list[tuple[Array, Array]], list[tuple[Array, Array]]]:
        first = [(_yaw(box.turned), np.array(box.center)) for box in self.boxes]
        second = [
            (_yaw(box.turned + box.yaw), np.array(box.center) + np.array(box.shift)) for box in self.boxes
        ]
        return first, second

    def _pixels(self) -> Array:
        height, width = self.size
        return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)

    def _project(self, points: Array) -> Array:
        camera = self.camera
        x = camera.focal_x * points[..., 0] / points[..., 2] + camera.center_x
        y = camera.focal_y * points[..., 1] / points[..., 2] + camera.center_y
        return np.stack([x, y], -1)

    def _cast(
        self, origin: Array, rotation: Array, poses: list[tuple[Array, Array]]
    ) -> tuple[Array, npt.NDArray[np.int64]]:
        """World points (H, W, 3) and the box (from 1) that each ray from a camera meets first."""
        pixels, camera = self._pixels(), self.camera
        rays = np.stack(
            [
                (pixels[..., 0] - camera.center_x) / camera.focal_x,
                (pixels[..., 1] - camera.center_y) / camera.focal_y,
                np.ones(self.size),
            ],
            -1,
        )
        rays = rays @ rotation.T
        reach = (WALL_DEPTH_M - origin[2]) / rays[..., 2]
        if self.ground:
            with np.errstate(divide="ignore"):
                down = (CAMERA_HEIGHT_M - origin[1]) / rays[..., 1]
            reach = np.where((rays[..., 1] > 0) & (down < reach), down, reach)
        owner = np.zeros(self.size, np.int64)
        for number, (box, (turn, center)) in enumerate(zip(self.boxes, poses, strict=True), start=1):
            start, direction = turn.T @ (origin - center), rays @ turn
            with np.errstate(divide="ignore", invalid="ignore"):
                sides = (np.stack([-np.array(box.half), np.array(box.half)]) - start)[
                    :, None, None
                ] / direction
            near, far = sides.min(0).max(-1), sides.max(0).min(-1)
            hit = (near < far) & (near > 0) & (near < reach)
            reach, owner = np.where(hit, near, reach), np.where(hit, number, owner)
        return origin + rays * reach[..., None], owner

    def _move(
        self,
        points: Array,
        owner: npt.NDArray[np.int64],
        before: list[tuple[Array, Array]],
        after: list[tuple[Array, Array]],
    ) -> Array:
        moved = points.copy()
        for number, ((turn, center), (turn_next, center_next)) in enumerate(
            zip(before, after, strict=True), 1
        ):
            mine = owner == number
            moved[mine] = (points[mine] - center) @ turn @ turn_next.T + center_next
        return moved


def _yaw(degrees: float) -> Array:
    angle = np.radians(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def _to_camera(points: Array, pose: tuple[Array, Array]) -> Array:
    return (points - pose[1]) @ pose[0]


def best_ious(instance_map: npt.NDArray[np.uint16], owner: npt.NDArray[np.int64]) -> dict[int, float]:
    """Best IoU of any mask with each visible box."""
    ious = {}
    for box in np.unique(owner[owner > 0]):
        truth = owner == box
        masks = [instance_map == number for number in np.unique(instance_map[instance_map > 0])]
        ious[int(box)] = max(((mask & truth).sum() / (mask | truth).sum() for mask in masks), default=0.0)
    return ious
