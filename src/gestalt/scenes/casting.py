"""Which surface every ray meets first: primitives and the two levels of the ground, with exact depth.

Rays have z = 1 in the camera frame, so the ray parameter is the depth. Large primitives are tested one by
one in their rectangles, the many small ones together as one list of (primitive, ray) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.scenes.primitives import FloatArray, IntArray, Primitives, Shape
from gestalt.scenes.road import KERB_M, Road
from gestalt.scenes.textures import hole_levels

SKY, GROUND = -1, -2
NEAR_M = 0.25
FAR_M = 170.0
GROUND_FAR_M = 400.0
# A primitive that covers more rays than this is tested alone.
LARGE_RECTANGLE = 2500
# Halvings that find the kerb between a ray's two ground hits; 2**-12 of at most a few metres.
KERB_STEPS = 12


@dataclass(frozen=True, eq=False)
class Rays:
    """A grid of rays from one camera.

    Attributes:
        origin: (3,) float64, camera centre in the world.
        rotation: (3, 3) float64, camera to world.
        columns: (W,) float32, x of the rays where z is 1.
        rows: (H,) float32, y of the rays where z is 1.
        spacing: Distance of neighbouring rays where z is 1.
    """

    origin: npt.NDArray[np.float64]
    rotation: npt.NDArray[np.float64]
    columns: FloatArray
    rows: FloatArray
    spacing: float

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.rows), len(self.columns)

    def directions(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """World x, y and z of the rays, (H, W) float32 each."""
        r = self.rotation.astype(np.float32)
        x, y = self.columns[None], self.rows[:, None]
        dx, dy, dz = (r[k, 0] * x + (r[k, 1] * y + r[k, 2]) for k in range(3))
        return dx, dy, dz


@dataclass(frozen=True, eq=False)
class Hits:
    """What the rays of a grid meet.

    Attributes:
        surface: (H, W) int32, index of the primitive, ``SKY`` or ``GROUND``.
        depth: (H, W) float32, metres along the camera axis; infinite in the sky.
        raised: (H, W) bool, of ground: above the kerb, or the kerb itself.
    """

    surface: IntArray
    depth: FloatArray
    raised: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PlacedPrimitives:
    """Primitives at one instant: ``centre`` (N, 3) and ``yaw`` (N,) in the world, float32."""

    primitives: Primitives
    centre: FloatArray
    yaw: FloatArray


def cast(placed: PlacedPrimitives, road: Road, rays: Rays) -> Hits:
    """First surface along every ray."""
    directions = rays.directions()
    surface, depth, raised = _cast_ground(road, rays, directions)
    caster = _Caster(placed, rays, directions, surface, depth)
    caster.run()
    return Hits(surface, depth, raised)


def _cast_ground(
    road: Road, rays: Rays, directions: tuple[FloatArray, ...]
) -> tuple[IntArray, FloatArray, npt.NDArray[np.bool_]]:
    """Ground hits: the raised level where it is raised, the road level elsewhere, the kerb between them."""
    height, width = rays.size
    surface = np.full((height, width), SKY, np.int32)
    depth = np.full((height, width), np.inf, np.float32)
    raised = np.zeros((height, width), bool)
    x, y, z = directions
    camera_height = -rays.origin[1]
    down = y * GROUND_FAR_M > camera_height
    dx, dy, dz = (array[down].astype(np.float64) for array in (x, y, z))

    def raised_at(t: npt.NDArray[np.float64], keep: Any = slice(None)) -> npt.NDArray[np.bool_]:
        s, lateral = road.locate(rays.origin[0] + dx[keep] * t, rays.origin[2] + dz[keep] * t)
        return road.is_raised(s, lateral)

    upper, lower = (camera_height - KERB_M) / dy, camera_height / dy
    on_top = raised_at(upper)
    kerb = ~on_top & raised_at(lower)
    t = np.where(on_top, upper, lower)
    if kerb.any():
        low, high = upper[kerb], lower[kerb]
        for _ in range(KERB_STEPS):
            middle = (low + high) / 2
            inside = raised_at(middle, kerb)
            low, high = np.where(inside, low, middle), np.where(inside, middle, high)
        t[kerb] = high
    surface[down], depth[down], raised[down] = GROUND, t, on_top | kerb
    return surface, depth, raised


class _Caster:
    """Tests primitives against a grid of rays and keeps the nearest hits in ``surface`` and ``depth``."""

    def __init__(
        self,
        placed: PlacedPrimitives,
        rays: Rays,
        directions: tuple[FloatArray, ...],
        surface: IntArray,
        depth: FloatArray,
    ) -> None:
        self.primitives = placed.primitives
        self.directions = directions
        self.surface, self.depth = surface, depth
        self.spacing = rays.spacing
        self.cosine, self.sine = np.cos(placed.yaw), np.sin(placed.yaw)
        offset = rays.origin - placed.centre.astype(np.float64)
        c, s = self.cosine.astype(np.float64), self.sine.astype(np.float64)
        # Camera centre in the frame of every primitive.
        self.start = np.stack(
            [c * offset[:, 0] - s * offset[:, 2], offset[:, 1], s * offset[:, 0] + c * offset[:, 2]], 1
        ).astype(np.float32)
        self.rectangles, self.nearest, self.middle = _rectangles(placed, rays)

    def run(self) -> None:
        """Large primitives from near to far, then the small ones together."""
        x0, y0, x1, y1 = self.rectangles.T
        area = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
        seen = (area > 0) & (self.nearest < FAR_M)
        large = np.nonzero(seen & (area > LARGE_RECTANGLE))[0]
        for index in large[np.argsort(self.nearest[large], kind="stable")]:
            self._cast_large(int(index))
        for shape in Shape:
            small = np.nonzero(seen & (area <= LARGE_RECTANGLE) & (self.primitives.shape == shape))[0]
            if len(small):
                self._cast_small(shape, small, area[small])

    def _cast_large(self, index: int) -> None:
        x0, y0, x1, y1 = self.rectangles[index]
        window = np.s_[y0:y1, x0:x1]
        depth = self.depth[window]
        if self.nearest[index] >= depth.max():
            return
        x, y, z = (array[window] for array in self.directions)
        c, s = self.cosine[index], self.sine[index]
        local = (c * x - s * z, y, s * x + c * z)
        t = self._intersect(Shape(int(self.primitives.shape[index])), index, local)
        hit = (t < depth) & (t > NEAR_M)
        if self.primitives.holes[index] > 0:
            rows, columns = np.nonzero(hit)
            picked = tuple(axis[rows, columns] for axis in local)
            owner = np.full(len(rows), index)
            hit[rows, columns] = ~self._is_hole(owner, picked, t[rows, columns])
        depth[hit] = t[hit]
        self.surface[window][hit] = index

    def _cast_small(self, shape: Shape, small: npt.NDArray[np.int64], area: IntArray) -> None:
        # Every (primitive, ray) pair of the rectangles.
        owner = np.repeat(small, area)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(area) - area, area)
        x0, y0, x1, _ = self.rectangles[small].T
        span = np.repeat(x1 - x0, area)
        row = within // span
        ray = (row + np.repeat(y0, area)) * self.depth.shape[1] + (within - row * span) + np.repeat(x0, area)
        depth = self.depth.ravel()
        visible = np.repeat(self.nearest[small], area) < depth[ray]
        owner, ray = owner[visible], ray[visible]
        x, y, z = (array.ravel()[ray] for array in self.directions)
        c, s = self.cosine[owner], self.sine[owner]
        local = (c * x - s * z, y, s * x + c * z)
        t = self._intersect(shape, owner, local)
        hit = (t < depth[ray]) & (t > NEAR_M)
        owner, ray, t = owner[hit], ray[hit], t[hit]
        holed = np.nonzero(self.primitives.holes[owner] > 0)[0]
        if len(holed):
            picked = tuple(axis[hit][holed] for axis in local)
            keep = np.ones(len(owner), bool)
            keep[holed] = ~self._is_hole(owner[holed], picked, t[holed])
            owner, ray, t = owner[keep], ray[keep], t[keep]
        # The last assignment to a ray wins, so the nearest hit comes last.
        order = np.argsort(-t, kind="stable")
        self.depth.ravel()[ray[order]] = t[order]
        self.surface.ravel()[ray[order]] = owner[order]

    def _intersect(self, shape: Shape, index: Any, local: tuple[FloatArray, ...]) -> FloatArray:
        """Depth at which rays enter primitives; infinite without a hit. ``index`` is one or one per ray."""
        half = self.primitives.half[index].T
        start = self.start[index].T
        with np.errstate(divide="ignore", invalid="ignore"):
            if shape == Shape.BOX:
                return np.asarray(_enter_box(local, start, half), np.float32)
            if shape == Shape.HULL:
                return _enter_hull(local, start, half, self.primitives.inset[index].T)
            # Quadratics cancel badly far from the primitive, so rays start beside its centre.
            shift = self.middle[index]
            start = tuple(o + d * shift for o, d in zip(start, local))
            if shape == Shape.ELLIPSOID:
                return np.asarray(_enter_round(local, start, half, (0, 1, 2), ()) + shift, np.float32)
            axis = shape - Shape.CYLINDER_X
            others = tuple(k for k in range(3) if k != axis)
            return np.asarray(_enter_round(local, start, half, others, (axis,)) + shift, np.float32)

    def _is_hole(self, owner: Any, local: tuple[FloatArray, ...], t: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether the surface is cut away where rays meet it."""
        primitives = self.primitives
        point = self.start[owner] + np.stack(local, 1) * t[:, None]
        levels = hole_levels()
        # A speckle is about a quarter of a metre wide.
        texels_per_m = 26.0
        side = np.abs(point / primitives.half[owner]).argmax(1)
        u = np.where(side == 0, point[:, 2], point[:, 0]) * texels_per_m + primitives.offset[owner, 0]
        v = np.where(side == 1, point[:, 2], point[:, 1]) * texels_per_m + primitives.offset[owner, 1]
        level = np.log2(np.maximum(t * (self.spacing * texels_per_m), 1)).astype(np.int32)
        hole = np.zeros(len(t), bool)
        for number, values in enumerate(levels):
            here = np.minimum(level, len(levels) - 1) == number
            size = len(values)
            columns = np.floor(u[here] / 2**number).astype(np.int64) % size
            rows = np.floor(v[here] / 2**number).astype(np.int64) % size
            hole[here] = values[rows, columns] < primitives.holes[owner][here]
        return hole


def _enter_box(local: tuple[FloatArray, ...], start: Any, half: Any) -> FloatArray:
    enter: Any = -np.inf
    leave: Any = np.inf
    for d, o, h in zip(local, start, half):
        inverse = 1 / d
        middle, reach = -o * inverse, h * np.abs(inverse)
        enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
    return np.where(enter < leave, enter, np.float32(np.inf))


def _enter_hull(local: tuple[FloatArray, ...], start: Any, half: Any, inset: Any) -> FloatArray:
    """Top and bottom are slabs; each of the four sides is a plane that leans by its inset."""
    dx, dy, dz = local
    ox, oy, oz = start
    hx, hy, hz = half
    inverse = 1 / dy
    middle, reach = -oy * inverse, hy * np.abs(inverse)
    enter, leave = middle - reach, middle + reach
    sides = (
        (-1, dx, ox, hx, inset[0]),
        (1, dx, ox, hx, inset[1]),
        (-1, dz, oz, hz, inset[2]),
        (1, dz, oz, hz, inset[3]),
    )
    for sign, d, o, h, lean in sides:
        # Inside: sign * p + k * (hy - y) <= h, with k = lean / (2 hy).
        k = lean / (2 * hy)
        slope = sign * d - k * dy
        room = h - k * hy - (sign * o - k * oy)
        t = room / slope
        enter = np.maximum(enter, np.where(slope < 0, t, -np.inf))
        leave = np.minimum(leave, np.where(slope < 0, np.inf, t))
    return np.where(enter < leave, enter, np.float32(np.inf)).astype(np.float32)


def _enter_round(
    local: Any, start: Any, half: Any, curved: tuple[int, ...], flat: tuple[int, ...]
) -> FloatArray:
    """Ellipsoids (three curved axes) and cylinders (two curved, one flat)."""
    a: Any = 0.0
    b: Any = 0.0
    c: Any = -1.0
    for k in curved:
        d, o = local[k] / half[k], start[k] / half[k]
        a, b, c = a + d * d, b + d * o, c + o * o
    root = np.sqrt(b * b - a * c)
    enter, leave = (-b - root) / a, (-b + root) / a
    for k in flat:
        inverse = 1 / local[k]
        middle, reach = -start[k] * inverse, half[k] * np.abs(inverse)
        enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
    # A ray that misses has a root that is not a number, and every comparison with it is false.
    return np.where(enter < leave, enter, np.float32(np.inf))


_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
_EDGES = np.array([(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1])


def _rectangles(placed: PlacedPrimitives, rays: Rays) -> tuple[IntArray, FloatArray, FloatArray]:
    """Bounds of primitives in a grid of rays, (N, 4) x0 y0 x1 y1 exclusive; nearest and middle depth."""
    primitives = placed.primitives
    half = primitives.half.copy()
    # Sheared hulls reach beyond their base.
    half[:, 0] += np.maximum(-primitives.inset[:, :2].min(1), 0)
    half[:, 2] += np.maximum(-primitives.inset[:, 2:].min(1), 0)
    corners = _CORNERS[None] * half[:, None]
    c, s = np.cos(placed.yaw)[:, None], np.sin(placed.yaw)[:, None]
    turned = np.stack(
        [
            c * corners[..., 0] + s * corners[..., 2],
            corners[..., 1],
            c * corners[..., 2] - s * corners[..., 0],
        ],
        -1,
    )
    offset = placed.centre.astype(np.float64) - rays.origin
    points = (turned + offset[:, None]) @ rays.rotation
    first, second = points[:, _EDGES[:, 0]], points[:, _EDGES[:, 1]]
    rise = second[..., 2] - first[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (NEAR_M - first[..., 2]) / rise
        crossing = first + share[..., None] * (second - first)
    crosses = (first[..., 2] > NEAR_M) != (second[..., 2] > NEAR_M)
    every = np.concatenate([points, crossing], 1)
    usable = np.concatenate([points[..., 2] > NEAR_M, crosses], 1)
    z = np.maximum(every[..., 2], NEAR_M)
    with np.errstate(invalid="ignore"):
        u, v = every[..., 0] / z, every[..., 1] / z
    low = [np.where(usable, a, np.inf).min(1) for a in (u, v)]
    high = [np.where(usable, a, -np.inf).max(1) for a in (u, v)]
    grids = (rays.columns, rays.rows)
    starts = [np.searchsorted(grid, bound, "left") for grid, bound in zip(grids, low)]
    ends = [np.searchsorted(grid, bound, "right") for grid, bound in zip(grids, high)]
    rectangles = np.stack([*starts, *ends], 1).astype(np.int32)
    nearest = np.where(usable, z, np.inf).min(1).astype(np.float32)
    middle = (offset @ rays.rotation)[:, 2].astype(np.float32)
    return rectangles, nearest, np.maximum(middle, 0)
