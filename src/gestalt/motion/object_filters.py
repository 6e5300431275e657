"""From drawn objects to the final instance map: overlaps, holes, components, size, border, evidence, numbering."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gestalt.config.motion import FilterSettings

EIGHT = np.ones((3, 3), np.bool_)
# Noise of the depth looks like a steep slope; real surfaces that matter are not seen under flatter angles.
MAX_SLANT = 4.0
# Window that smooths the depth before its slope is taken, pixels.
SLOPE_WINDOW_PX = 7

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Proposal:
    """A row about one moving object.

    Attributes:
        instance: Its id in the instance map, from 1.
        area_px: Pixels.
        surface_m2: Visible physical surface, m^2.
        consistency: Runs that vouch for it.
        score: After Matrix NMS, in [0, 1].
        depth_m: Median depth, metres.
        speed_m_s: Median displacement against the static scene over the time step, m/s.
        x0: First column.
        y0: First row.
        x1: One past the last column.
        y1: One past the last row.
    """

    instance: int
    area_px: int
    surface_m2: float
    consistency: float
    score: float
    depth_m: float
    speed_m_s: float
    x0: int
    y0: int
    x1: int
    y1: int

    def record(self) -> dict[str, Any]:
        """As a row of the table."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """An object before the final filters.

    Attributes:
        rows: Rows of the image that the mask covers.
        columns: Columns.
        cost: (h, w) float, the lower the surer; negative inside.
        consistency: In runs.
        score: In [0, 1].
        displacement: (h, w) float, metres, against the static scene.
    """

    rows: slice
    columns: slice
    cost: FloatArray
    consistency: float
    score: float
    displacement: FloatArray


def fill_holes(mask: BoolArray) -> BoolArray:
    """Fill what does not reach the border of the image (four-connected: a mask's diagonal rim is closed).

    The official code takes the largest component of the complement for the background, which inverts masks
    that are larger than it.
    """
    return np.asarray(ndimage.binary_fill_holes(mask), np.bool_)


def surface_map(disparity: FloatArray, focal_x: float, focal_y: float, stereo_baseline: float) -> FloatArray:
    """Physical area behind each pixel of one surface.

    Args:
        disparity: (H, W) float32, pixels; 0 or NaN where unknown.
        focal_x: Pixels.
        focal_y: Pixels.
        stereo_baseline: Metres.

    Returns:
        (H, W) float32, m^2: the quad that a pixel spans on the surface; pixels without disparity take the
        mean disparity around them, 0 where none is near.

    Source:
        CUPS sums the triangles of a Delaunay triangulation, which covers the convex hull. For the inverse
        depth plane through a pixel the quad is Z^2 / (f_x f_y) times the secant of the slant.
    """
    known = np.nan_to_num(disparity) > 0
    share = ndimage.uniform_filter(known.astype(np.float32), SLOPE_WINDOW_PX, mode="nearest")
    total = ndimage.uniform_filter(
        np.where(known, disparity, 0).astype(np.float32), SLOPE_WINDOW_PX, mode="nearest"
    )
    smooth = np.where(share > 1e-3, total / np.maximum(share, 1e-3), 0)
    safe = np.maximum(smooth, 1e-3)
    depth = focal_x * stereo_baseline / safe
    # Slope of the depth per metre across: dZ/dX = -(Z/d) dd/dx * f/Z.
    down, across = np.gradient(smooth)
    slant = np.sqrt(1 + (across / safe * focal_x) ** 2 + (down / safe * focal_y) ** 2)
    area = depth**2 / (focal_x * focal_y) * np.minimum(slant, MAX_SLANT)
    return np.where(smooth > 0, area, 0).astype(np.float32)


def paint(objects: list[ObjectMask], shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """(H, W) int32, 1 + index of the object that each pixel belongs to: the surest of those that claim it."""
    best = np.zeros(shape, np.float32)
    owner = np.zeros(shape, np.int32)
    for number, found in enumerate(objects, start=1):
        area = (found.rows, found.columns)
        wins = found.cost < best[area]
        best[area] = np.where(wins, found.cost, best[area])
        owner[area] = np.where(wins, number, owner[area])
    return owner


def separate(owner: npt.NDArray[np.int32], border: int) -> list[tuple[int, BoolArray]]:
    """Cut painted objects into connected masks without holes and without the image's left and right border.

    Returns:
        Pairs of an object's index and a mask, larger components first.
    """
    owner = owner.copy()
    if border:
        owner[:, :border] = 0
        owner[:, -border:] = 0
    parts: list[tuple[int, BoolArray]] = []
    for number in np.unique(owner[owner > 0]):
        labels, count = ndimage.label(owner == number, EIGHT)
        for part in range(1, count + 1):
            parts.append((int(number) - 1, labels == part))
    return parts


def compose_objects(
    objects: list[ObjectMask],
    disparity: FloatArray,
    measured: BoolArray,
    camera: tuple[float, float, float],
    time_step_s: float,
    settings: FilterSettings,
) -> tuple[npt.NDArray[np.uint16], list[Proposal]]:
    """The instance map of a frame.

    Args:
        objects: Masks that may overlap.
        disparity: (H, W) float32, pixels, at t; 0 where unknown.
        measured: (H, W) bool, pixels with a consistent measurement.
        camera: Focal lengths x and y (pixels) and stereo baseline (metres).
        time_step_s: Seconds between the frames.
        settings: Size limits, border.

    Returns:
        (H, W) uint16 with ids 1..N, each one eight-connected region without holes, and the row of each.
    """
    height, width = disparity.shape
    border = round(settings.border_share * width)
    final = np.zeros((height, width), np.uint16)
    proposals: list[Proposal] = []
    parts = [(index, fill_holes(mask)) for index, mask in separate(paint(objects, disparity.shape), border)]
    # Smaller objects lie in front of the larger ones whose holes they filled.
    parts.sort(key=lambda part: -int(part[1].sum()))
    owner = np.zeros((height, width), np.int32)
    for number, (_, mask) in enumerate(parts, start=1):
        owner[mask] = number
    for number, (index, _) in enumerate(parts, start=1):
        labels, count = ndimage.label(owner == number, EIGHT)
        for part in range(1, count + 1):
            mask = labels == part
            row = _describe(mask, objects[index], disparity, measured, camera, time_step_s, settings)
            if row is not None:
                proposals.append(Proposal(len(proposals) + 1, **row))
                final[mask] = len(proposals)
    return final, proposals


def _describe(
    mask: BoolArray,
    found: ObjectMask,
    disparity: FloatArray,
    measured: BoolArray,
    camera: tuple[float, float, float],
    time_step_s: float,
    settings: FilterSettings,
) -> dict[str, Any] | None:
    """The row of a mask, or None where it fails a limit."""
    area = int(mask.sum())
    known = mask & (disparity > 0)
    if area < settings.min_area_px or not known.any():
        return None
    if (mask & measured).sum() < settings.min_measured_share * area:
        return None
    y, x = mask.nonzero()
    rows, columns = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
    inside = np.where(known, disparity, 0)[rows, columns]
    surface = float(surface_map(inside, *camera)[mask[rows, columns]].sum())
    if surface < settings.min_surface_m2:
        return None
    moved = np.zeros(disparity.shape, np.float32)
    moved[found.rows, found.columns] = found.displacement
    return {
        "area_px": area,
        "surface_m2": round(surface, 4),
        "consistency": round(found.consistency, 4),
        "score": round(found.score, 4),
        "depth_m": round(float(camera[0] * camera[2] / np.median(disparity[known])), 3),
        "speed_m_s": round(float(np.median(moved[known])) / time_step_s, 3),
        "x0": int(columns.start),
        "y0": int(rows.start),
        "x1": int(columns.stop),
        "y1": int(rows.stop),
    }
