"""What is true about real video: optical flow, disparity, objects and camera motion of KITTI, and our errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.frames import FrameSettings
from gestalt.data.adapters import mots
from gestalt.data.frames import FrameGeometry, frame_geometry
from gestalt.data.images import read_png
from gestalt.data.kitti_maps import read_disparity, read_optical_flow
from gestalt.data.records import StereoFrame
from gestalt.errors import DataError
from gestalt.evaluation.intersections import IntersectionTable, intersect
from gestalt.panoptic import VOID, PanopticMap

# An outlier is wrong by more than both, as KITTI 2015 counts (Menze & Geiger, CVPR 2015).
OUTLIER_PX, OUTLIER_SHARE = 3.0, 0.05
MOTS_IGNORED = 10
OBJECT = 1


@dataclass(frozen=True)
class MatchingError:
    """Errors of one measurement against truth, at stored pixels.

    Attributes:
        end_point_px: Mean length of the error, of the pixels that both know.
        outlier_share: Share of the pixels with truth that are unknown, or wrong by more than 3 px and 5 %.
        known_share: Share of the pixels with truth that were measured.
        n_px: Pixels with truth, at working size.
    """

    end_point_px: float
    outlier_share: float
    known_share: float
    n_px: int


def matching_error(
    found: npt.NDArray[np.float32],
    true: npt.NDArray[np.float32],
    has_truth: npt.NDArray[np.bool_],
    scale: npt.NDArray[np.float64],
) -> MatchingError:
    """Compare a measurement with truth.

    Args:
        found: (C, H, W) float32, working pixels; NaN where unknown.
        true: (C, H, W) float32, working pixels.
        has_truth: (H, W) bool.
        scale: (C,) float, working pixels per stored pixel along each component.
    """
    per_stored = scale[:, None, None]
    error = np.sqrt((((found - true) / per_stored) ** 2).sum(0))[has_truth]
    length = np.sqrt(((true / per_stored) ** 2).sum(0))[has_truth]
    known = np.isfinite(error)
    wrong = ~known | ((error > OUTLIER_PX) & (error > OUTLIER_SHARE * length))
    n_px = len(error)
    return MatchingError(
        float(error[known].mean()) if known.any() else math.nan,
        float(wrong.mean()) if n_px else math.nan,
        float(known.mean()) if n_px else math.nan,
        n_px,
    )


def optical_flow_error(
    found: npt.NDArray[np.float32], frame: StereoFrame, settings: FrameSettings
) -> MatchingError | None:
    """Error of (2, H, W) optical flow, working pixels, against KITTI scene flow 2015; None without truth."""
    path = _beside(frame, "flow_occ", "flow_noc")
    if path is None:
        return None
    geometry = frame_geometry(frame.height, frame.width, settings)
    scale = _scale(geometry)
    true, valid = read_optical_flow(path)
    fitted = np.stack([_fit(plane * np.float32(factor), geometry) for plane, factor in zip(true, scale)])
    return matching_error(found, fitted, _fit(valid.astype(np.uint8), geometry) > 0, scale)


def disparity_error(
    found: npt.NDArray[np.float32], frame: StereoFrame, settings: FrameSettings
) -> MatchingError | None:
    """Error of an (H, W) disparity, working pixels, 0 where unknown; None without truth."""
    path = _beside(frame, "disp_occ_0", "disp_noc_0")
    if path is None:
        return None
    geometry = frame_geometry(frame.height, frame.width, settings)
    scale = _scale(geometry)[:1]
    true = _fit(read_disparity(path) * np.float32(scale[0]), geometry)
    known = np.where(found > 0, found, np.nan).astype(np.float32)
    return matching_error(known[None], true[None], true > 0, scale)


def moving_cars(
    instance_map: npt.NDArray[np.uint16], frame: StereoFrame, settings: FrameSettings
) -> IntersectionTable | None:
    """Proposals against KITTI 2015's moving cars (``obj_map``); None without truth.

    Other moving things, such as people, have no label there, so a proposal of one counts as wrong.
    """
    path = _beside(frame, "obj_map")
    if path is None:
        return None
    instances = read_png(path)
    if instances.ndim != 2:
        raise DataError(f"{path} must have one channel (KITTI obj_map). Got: {instances.shape}")
    cars = _fit(instances.astype(np.uint16), frame_geometry(frame.height, frame.width, settings))
    truth = PanopticMap(np.where(cars > 0, OBJECT, 0).astype(np.uint8), cars)
    return _intersect(frame, instance_map, truth)


def annotated_instances(
    instance_map: npt.NDArray[np.uint16],
    frame: StereoFrame,
    settings: FrameSettings,
    annotations: Mapping[str, Path],
) -> IntersectionTable | None:
    """Proposals against the cars and people of MOTS, moving or not; None without truth.

    Args:
        instance_map: (H, W) uint16, proposals.
        frame: The frame; MOTS names it ``<sequence>_<number>``.
        settings: Section ``frames``.
        annotations: Annotation files by frame id, see ``find_annotations``.
    """
    if frame.frame_id not in annotations:
        return None
    raw = mots.read_object_ids(annotations[frame.frame_id])
    geometry = frame_geometry(frame.height, frame.width, settings)
    if raw.size != geometry.stored:
        raise DataError(
            f"size mismatch: {annotations[frame.frame_id]} is {raw.size}, its frame {geometry.stored} (rows, columns)"
        )
    semantic = np.where(raw.instance_map > 0, OBJECT, 0)
    semantic = np.where(raw.semantic_map == MOTS_IGNORED, VOID, semantic).astype(np.uint8)
    instances = np.where(semantic == OBJECT, raw.instance_map, 0).astype(np.uint16)
    return _intersect(frame, instance_map, PanopticMap(_fit(semantic, geometry), _fit(instances, geometry)))


def find_annotations(folder: Path) -> dict[str, Path]:
    """MOTS annotations anywhere below ``folder``, by frame id."""
    roots = sorted(place.parent for place in folder.rglob("instances") if place.is_dir())
    return {frame.frame_id: frame.annotation for root in roots for frame in mots.find_truth(root, {})}


def ego_motion_error(
    ego_motion: npt.NDArray[np.float32] | None, frame: StereoFrame
) -> tuple[float, float] | None:
    """Error of the ego-motion against KITTI odometry's poses: metres and degrees; None without one of the two.

    Args:
        ego_motion: (4, 4) float32, takes standing points of the camera at t to that at t+1.
        frame: Below ``sequences/<s>/image_*``, with ``poses/<s>.txt`` beside ``sequences``.
    """
    places = frame.left.parents
    if ego_motion is None or len(places) < 4 or places[2].name != "sequences":
        return None
    path, number = places[3] / "poses" / f"{places[1].name}.txt", frame.left.stem
    if not path.is_file() or not number.isdigit():
        return None
    rows = np.atleast_2d(np.loadtxt(path, dtype=np.float64))
    if rows.shape[1] != 12 or len(rows) <= int(number) + 1:
        raise DataError(f"{path} must hold 12 numbers a line and a line per frame. Got: {rows.shape}")
    poses = [np.vstack([row.reshape(3, 4), [0, 0, 0, 1]]) for row in rows[int(number) : int(number) + 2]]
    # Poses take points of the camera to the world.
    difference = np.linalg.inv(np.linalg.inv(poses[1]) @ poses[0]) @ ego_motion.astype(np.float64)
    turn = math.degrees(math.acos(float(np.clip((np.trace(difference[:3, :3]) - 1) / 2, -1, 1))))
    return float(np.linalg.norm(difference[:3, 3])), turn


def _intersect(
    frame: StereoFrame, instance_map: npt.NDArray[np.uint16], truth: PanopticMap
) -> IntersectionTable:
    proposals = PanopticMap(np.where(instance_map > 0, OBJECT, 0).astype(np.uint8), instance_map)
    return intersect(f"{frame.batch}/{frame.frame_id}", proposals, truth)


def _beside(frame: StereoFrame, *kinds: str) -> Path | None:
    """The first of KITTI's truth folders, beside that of the left images, that has this frame."""
    candidates = [frame.left.parents[1] / kind / frame.left.name for kind in kinds]
    return next((path for path in candidates if path.is_file()), None)


def _scale(geometry: FrameGeometry) -> npt.NDArray[np.float64]:
    """Working pixels per stored pixel: x, y."""
    return np.array([geometry.scaled[axis] / geometry.stored[axis] for axis in (1, 0)])


def _fit(array: npt.NDArray[np.generic], geometry: FrameGeometry) -> npt.NDArray[np.generic]:
    """A stored map at working size: nearest pixels, then the centre crop or zeros around it."""
    if array.shape != geometry.stored:
        raise DataError(
            f"size mismatch: truth is {array.shape}, its images {geometry.stored} (rows, columns)"
        )
    fitted = cv2.resize(array, geometry.scaled[::-1], interpolation=cv2.INTER_NEAREST)
    top, left = geometry.offset
    rows, columns = geometry.size
    inside = fitted[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + columns]
    out = np.zeros((rows, columns), array.dtype)
    out[max(0, -top) : max(0, -top) + inside.shape[0], max(0, -left) : max(0, -left) + inside.shape[1]] = (
        inside
    )
    return out
