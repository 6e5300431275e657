"""From drawn objects to the final instance map: overlaps, holes, components, size, border, evidence, numbering."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gestalt.config.motion import FilterSettings

# Sources of proposals, as `motion.source` spells them.
STEREO, MONOCULAR = "stereo", "monocular"
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
        source: Which measurements it comes from: ``stereo`` or ``monocular``. What is in metres is NaN where
            one camera saw it.
        area_px: Pixels.
        surface_m2: Visible physical surface of what was measured, without what completion added, m^2.
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
    source: str
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


@dataclass(frozen=True, eq=False)
class Region:
    """A connected mask.

    Attributes:
        rows: Rows of the image that it spans.
        columns: Columns.
        mask: (h, w) bool, on these.
    """

    rows: slice
    columns: slice
    mask: BoolArray

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rectangle of the image."""
        return self.rows, self.columns

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1, the last two exclusive."""
        return self.columns.start, self.rows.start, self.columns.stop, self.rows.stop


def regions(owner: npt.NDArray[np.int32]) -> Iterator[tuple[int, Region]]:
    """The eight-connected regions of every positive number in a map, by number.

    Noise leaves hundreds of them, so none costs more than its own rectangle.
    """
    rectangles: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(owner)
    for number, outer in enumerate(rectangles, start=1):
        if outer is None:
            continue
        parts, _ = ndimage.label(owner[outer] == number, EIGHT)
        for part, inner in enumerate(ndimage.find_objects(parts), start=1):
            rows, columns = (
                slice(whole.start + side.start, whole.start + side.stop) for whole, side in zip(outer, inner)
            )
            yield number, Region(rows, columns, parts[inner] == part)


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
    final = np.zeros((height, width), np.uint16)
    proposals: list[Proposal] = []
    for index, region in cut_regions(objects, (height, width), settings.border_share):
        row = _describe(region, objects[index], disparity, measured, camera, time_step_s, settings)
        if row is not None:
            proposals.append(Proposal(len(proposals) + 1, STEREO, **row))
            final[region.area][region.mask] = len(proposals)
    return final, proposals


def compose_flat_objects(
    objects: list[ObjectMask], measured: BoolArray, settings: FilterSettings
) -> tuple[npt.NDArray[np.uint16], list[Proposal]]:
    """The instance map of a frame without depth, as ``compose_objects``; surface, depth and speed are NaN.

    Args:
        objects: Masks that may overlap.
        measured: (H, W) bool, pixels with a consistent measurement.
        settings: Size limit in pixels, border.
    """
    height, width = measured.shape
    final = np.zeros((height, width), np.uint16)
    proposals: list[Proposal] = []
    for index, region in cut_regions(objects, (height, width), settings.border_share):
        area = int(region.mask.sum())
        n_measured = int((region.mask & measured[region.area]).sum())
        if area < settings.min_area_px or n_measured < max(1, settings.min_measured_share * area):
            continue
        number = len(proposals) + 1
        final[region.area][region.mask] = number
        proposals.append(
            Proposal(
                number,
                MONOCULAR,
                area,
                math.nan,
                round(objects[index].consistency, 4),
                round(objects[index].score, 4),
                math.nan,
                math.nan,
                *region.box,
            )
        )
    return final, proposals


def cut_regions(
    objects: list[ObjectMask], shape: tuple[int, int], border_share: float
) -> list[tuple[int, Region]]:
    """Disjoint regions without holes of objects that may overlap, those of larger objects first.

    Args:
        objects: Masks at full resolution.
        shape: (H, W).
        border_share: Columns cleared at each side, share of the width.

    Returns:
        Pairs of an object's index and a region.
    """
    border = round(border_share * shape[1])
    owner = paint(objects, shape)
    owner[:, :border] = 0
    owner[:, shape[1] - border :] = 0
    # Beside the rectangle that a region spans there is only what it does not cover: its holes lie within.
    parts = [(number - 1, replace(region, mask=fill_holes(region.mask))) for number, region in regions(owner)]
    # Smaller objects lie in front of the larger ones whose holes they filled.
    parts.sort(key=lambda part: -int(part[1].mask.sum()))
    owner = np.zeros(shape, np.int32)
    for number, (_, region) in enumerate(parts, start=1):
        owner[region.area][region.mask] = number
    return [(parts[number - 1][0], region) for number, region in regions(owner)]


def _describe(
    region: Region,
    found: ObjectMask,
    disparity: FloatArray,
    measured: BoolArray,
    camera: tuple[float, float, float],
    time_step_s: float,
    settings: FilterSettings,
) -> dict[str, Any] | None:
    """The row of a region, or None where it fails a limit."""
    mask, disparity = region.mask, disparity[region.area]
    area = int(mask.sum())
    known = mask & (disparity > 0)
    if area < settings.min_area_px or not known.any():
        return None
    if (mask & measured[region.area]).sum() < settings.min_measured_share * area:
        return None
    surface = float(surface_map(np.where(known, disparity, 0), *camera)[mask].sum())
    if surface < settings.min_surface_m2:
        return None
    top, left = region.rows.start - found.rows.start, region.columns.start - found.columns.start
    moved = found.displacement[top : top + mask.shape[0], left : left + mask.shape[1]]
    x0, y0, x1, y1 = region.box
    return {
        "area_px": area,
        "surface_m2": round(surface, 4),
        "consistency": round(found.consistency, 4),
        "score": round(found.score, 4),
        "depth_m": round(float(camera[0] * camera[2] / np.median(disparity[known])), 3),
        "speed_m_s": round(float(np.median(moved[known])) / time_step_s, 3),
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
    }
