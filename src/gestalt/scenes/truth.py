"""Exact truth of rendered views: depth, disparity, optical flow, raw ids, instances, and a table of objects.

Everything is about the point that a pixel's centre sees. Pixel centres have integer coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.panoptic import INSTANCES_PER_CLASS
from gestalt.scenes.casting import GROUND, SKY, Hits
from gestalt.scenes.motion import turn
from gestalt.scenes.primitives import STATIC, FloatArray
from gestalt.scenes.raw_ids import THINGS, RawId
from gestalt.scenes.render import View
from gestalt.scenes.world import World

IntMap = npt.NDArray[np.int32]


def object_map(world: World, hits: Hits) -> IntMap:
    """(H, W) index into ``world.objects`` of what each pixel sees; 0 is everything static."""
    index = world.primitives.object_index[np.maximum(hits.surface, 0)]
    return np.where(hits.surface >= 0, index, STATIC).astype(np.int32)


def raw_id_map(world: World, view: View) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 Cityscapes raw id of each pixel."""
    hits = view.hits
    ids = world.primitives.raw_id[np.maximum(hits.surface, 0)].astype(np.uint8)
    ids[hits.surface == SKY] = RawId.SKY
    ground = hits.surface == GROUND
    x, _, z = _points(view)
    s, lateral = world.road.locate(x[ground], z[ground])
    ids[ground] = world.road.ground_ids(s, lateral, hits.raised[ground])
    return ids


def instance_values(world: World) -> IntMap:
    """(objects,) Cityscapes ``raw id * 1000 + n``, n counted per class; 0 for the static world.

    An object keeps its value through all frames of its scene.
    """
    values = np.zeros(len(world.objects), np.int32)
    counted = dict.fromkeys(THINGS, 0)
    for index, item in enumerate(world.objects):
        if index != STATIC:
            values[index] = item.raw_id * INSTANCES_PER_CLASS + counted[item.raw_id]
            counted[item.raw_id] += 1
    return values


def instance_map(world: World, view: View) -> IntMap:
    """(H, W) int32 as in gtFine's instanceIds: the raw id of stuff, ``raw id * 1000 + n`` of things."""
    values = instance_values(world)[object_map(world, view.hits)]
    return np.where(values > 0, values, raw_id_map(world, view)).astype(np.int32)


def disparity(world: World, depth: npt.NDArray[Any], stereo_baseline: float) -> FloatArray:
    """(H, W) float32 pixels, positive; 0 in the sky. For the left and for the right view alike."""
    focal_length = world.camera.intrinsics[0, 0]
    return np.asarray(focal_length * stereo_baseline / depth, np.float32)


def moved_points(world: World, view: View, time: float, other_time: float) -> npt.NDArray[np.float64]:
    """Where the points that the left view at ``time`` sees are at ``other_time``, in the left camera of then.

    Args:
        world: The world.
        view: Left view.
        time: Of the view, s.
        other_time: s.

    Returns:
        (3, H, W) float64 metres. Points of the sky are directions: they turn with the camera only.
    """
    points = np.stack(_points(view))
    owner = object_map(world, view.hits)
    for index in np.unique(owner):
        item = world.objects[index]
        if item.is_moving:
            inside = owner == index
            (start, yaw), (end, other_yaw) = item.pose(time), item.pose(other_time)
            rotation = turn(other_yaw - yaw)
            points[:, inside] = rotation @ (points[:, inside] - start[:, None]) + end[:, None]
    rotation, centre = world.camera.pose(other_time)
    sky = view.hits.surface == SKY
    seen = points - centre[:, None, None]
    seen[:, sky] = np.stack([axis[sky] for axis in view.rays.directions()])
    return np.asarray(np.einsum("wc,whk->chk", rotation, seen))


def optical_flow(world: World, view: View, time: float, other_time: float) -> tuple[FloatArray, FloatArray]:
    """Optical flow of a left view and the disparity-scale depth at its end.

    Returns:
        optical flow (2, H, W) float32, pixels, x then y; and depth (H, W) float32 at ``other_time``, metres,
        infinite in the sky. Points that pass behind the camera have an optical flow that is not a number.
    """
    x, y, z = moved_points(world, view, time, other_time)
    intrinsics = world.camera.intrinsics
    height, width = z.shape
    rows, columns = np.mgrid[:height, :width]
    ahead = np.where(z > 0, z, np.nan)
    shift_x = x / ahead * intrinsics[0, 0] + intrinsics[0, 2] - columns
    shift_y = y / ahead * intrinsics[1, 1] + intrinsics[1, 2] - rows
    depth = np.where(view.hits.surface == SKY, np.inf, ahead)
    return np.stack([shift_x, shift_y]).astype(np.float32), depth.astype(np.float32)


def exact_geometry(
    world: World,
    views: Mapping[tuple[int, str], View],
    frame: int,
    times: tuple[float, float],
    stereo_baseline: float,
) -> dict[str, npt.NDArray[Any]]:
    """Everything that is measured between the stereo pairs of ``frame`` and of the frame after it.

    Args:
        world: The world.
        views: By frame number and ``left`` or ``right``.
        frame: Number of the earlier frame.
        times: Of both frames, s.
        stereo_baseline: m.

    Returns:
        depth (float16), disparity, disparity_next (left grid of the later frame), disparity_next_warped (at
        the pixels of the earlier one), disparity_right, disparity_right_next, optical_flow_forward and
        optical_flow_backward (2, H, W), all float32; instance_values (H, W) int32.
    """
    now, after = views[frame, "left"], views[frame + 1, "left"]
    forward, depth_after = optical_flow(world, now, *times)
    backward, _ = optical_flow(world, after, times[1], times[0])
    return {
        "depth": now.hits.depth.astype(np.float16),
        "disparity": disparity(world, now.hits.depth, stereo_baseline),
        "disparity_next": disparity(world, after.hits.depth, stereo_baseline),
        "disparity_next_warped": disparity(world, depth_after, stereo_baseline),
        "disparity_right": disparity(world, views[frame, "right"].hits.depth, stereo_baseline),
        "disparity_right_next": disparity(world, views[frame + 1, "right"].hits.depth, stereo_baseline),
        "optical_flow_forward": forward,
        "optical_flow_backward": backward,
        "instance_values": instance_map(world, now),
    }


def object_table(world: World, view: View, frame_id: str, time: float) -> list[dict[str, Any]]:
    """A row for every object that a left view shows, however small; the columns of ``objects.parquet``."""
    counts = np.bincount(object_map(world, view.hits).ravel(), minlength=len(world.objects))
    values = instance_values(world)
    _, centre = world.camera.pose(time)
    rows = []
    for index in np.nonzero(counts)[0]:
        if index == STATIC:
            continue
        item = world.objects[index]
        position, _ = item.pose(time)
        rows.append(
            {
                "frame_id": frame_id,
                "instance": int(values[index]),
                "class": item.raw_id.name.lower(),
                "is_moving": item.is_moving,
                "speed_m_s": float(item.speed),
                "distance_m": float(np.hypot(position[0] - centre[0], position[2] - centre[2])),
                "n_pixels": int(counts[index]),
            }
        )
    return rows


def _points(view: View) -> tuple[npt.NDArray[np.float64], ...]:
    """World x, y, z of what each pixel sees; not finite in the sky."""
    with np.errstate(invalid="ignore"):
        return tuple(
            origin + axis.astype(np.float64) * view.hits.depth
            for origin, axis in zip(view.rays.origin, view.rays.directions())
        )
