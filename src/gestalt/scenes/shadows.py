"""Shadows on the ground: every primitive projected along the sun into a map seen from above."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.scenes.casting import PlacedPrimitives
from gestalt.scenes.primitives import STATIC, FloatArray, Shape
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.world import World

# Where the map starts and how far it reaches (x, z in metres), and cells per metre.
ORIGIN_M = (-40.0, -10.0)
EXTENT_M = (80.0, 100.0)
CELLS_PER_M = 8
# Leaves let some light through.
LEAF_SHADE, FULL_SHADE = 190, 255
# What begins lower than this takes the sky's light from the ground below it.
CONTACT_M = 0.75


@dataclass(frozen=True, eq=False)
class ShadowMap:
    """Seen from above, (rows, columns) uint8 each, 255 = all of it is blocked.

    Attributes:
        sun: Sunlight, blocked by anything.
        sun_static: Sunlight, blocked by what never moves.
        sky: Light from the sky, blocked by what stands on the ground right there.
    """

    sun: npt.NDArray[np.uint8]
    sun_static: npt.NDArray[np.uint8]
    sky: npt.NDArray[np.uint8]

    def blocked(self, x: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Blocked shares of sun and sky on the ground at world points, (N,) float32 in 0..1."""
        shares = _look_up(cv2.merge([self.sun, self.sky]), x, z)
        return shares[:, 0], shares[:, 1]

    def blocked_by_static(self, x: FloatArray, z: FloatArray) -> FloatArray:
        """Blocked share of the sun by static things, (N,) float32 in 0..1."""
        return _look_up(self.sun_static, x, z)[:, 0]


def _look_up(canvas: npt.NDArray[np.uint8], x: FloatArray, z: FloatArray) -> FloatArray:
    columns, rows = (x - ORIGIN_M[0]) * CELLS_PER_M, (z - ORIGIN_M[1]) * CELLS_PER_M
    # OpenCV's remap takes pictures only: fold the list into one that is narrow enough for it.
    n, width = len(columns), 1024
    map_x = np.pad(columns, (0, -n % width)).reshape(-1, width).astype(np.float32)
    map_y = np.pad(rows, (0, -n % width)).reshape(-1, width).astype(np.float32)
    found = cv2.remap(canvas, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(found.reshape(map_x.size, -1)[:n] * np.float32(1 / 255), np.float32)


def draw_static_shadows(world: World) -> npt.NDArray[np.uint8]:
    """The part of the map of sunlight that is the same at every instant, not yet softened."""
    canvas = _canvas()
    if world.weather.sun_strength > 0:
        placed = world.place(0.0)
        static = np.nonzero(world.primitives.object_index == STATIC)[0]
        # Leaves first, solid things over them.
        leaves = world.primitives.raw_id[static] == RawId.VEGETATION
        x, z, _ = _project(world, placed, static)
        for chosen, shade in ((leaves, LEAF_SHADE), (~leaves, FULL_SHADE)):
            _fill(canvas, x[chosen], z[chosen], shade)
    return canvas


def draw_shadows(world: World, placed: PlacedPrimitives, static: npt.NDArray[np.uint8]) -> ShadowMap:
    """The map at one instant, for both cameras.

    Args:
        world: The world.
        placed: Its primitives at that instant.
        static: What ``draw_static_shadows`` made of the world.
    """
    sun, sky = static.copy(), _canvas()
    objects = np.nonzero(world.primitives.object_index != STATIC)[0]
    if world.weather.sun_strength > 0:
        x, z, _ = _project(world, placed, objects)
        _fill(sun, x, z, FULL_SHADE)
    x, z, height = _project(world, placed, objects, along_sun=False)
    low = height.min(1) < CONTACT_M
    _fill(sky, x[low], z[low], FULL_SHADE)
    return ShadowMap(_soften(sun), _soften(static), cv2.GaussianBlur(sky, (9, 9), 2.0))


def _canvas() -> npt.NDArray[np.uint8]:
    return np.zeros([int(extent * CELLS_PER_M) for extent in reversed(EXTENT_M)], np.uint8)


def _soften(canvas: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(canvas, (3, 3), 0), np.uint8)


def _project(
    world: World, placed: PlacedPrimitives, chosen: npt.NDArray[np.int64], *, along_sun: bool = True
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x, z on the ground and height of the eight corners of primitives, (N, 8) each."""
    primitives = placed.primitives
    signs = np.array(
        [[x, y, z] for y in (-1, 1) for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))], np.float32
    )
    corners = signs[None] * primitives.half[chosen][:, None]
    top = signs[:, 1] < 0
    for axis, first in ((0, 0), (2, 2)):
        inset = primitives.inset[chosen]
        lean = np.where(signs[:, axis] < 0, inset[:, first, None], -inset[:, first + 1, None])
        corners[:, :, axis] += np.where(top, lean, 0)
    # Round shapes do not reach into the corners of their boxes.
    corners[primitives.shape[chosen] == Shape.ELLIPSOID] *= 0.8
    c, s = np.cos(placed.yaw[chosen])[:, None], np.sin(placed.yaw[chosen])[:, None]
    centre = placed.centre[chosen]
    x = c * corners[..., 0] + s * corners[..., 2] + centre[:, 0, None]
    z = c * corners[..., 2] - s * corners[..., 0] + centre[:, 2, None]
    height = np.maximum(-(corners[..., 1] + centre[:, 1, None]), 0)
    if along_sun:
        sun = world.weather.sun.astype(np.float32)
        x, z = x + height * (sun[0] / sun[1]), z + height * (sun[2] / sun[1])
    return x.astype(np.float32), z.astype(np.float32), height


def _fill(canvas: npt.NDArray[np.uint8], x: FloatArray, z: FloatArray, shade: int) -> None:
    # Corners with three binary places.
    shift, scale = 3, CELLS_PER_M * 8
    points = np.stack([(x - ORIGIN_M[0]) * scale, (z - ORIGIN_M[1]) * scale], -1)
    limit = np.array([canvas.shape[1], canvas.shape[0]]) * 8
    inside = ((points.max(1) > 0) & (points.min(1) < limit)).all(1)
    for corners in np.rint(points[inside]).astype(np.int32):
        cv2.fillConvexPoly(canvas, cv2.convexHull(corners), shade, cv2.LINE_8, shift)
