"""Calibration files: intrinsics of the left camera and the distance of the two cameras."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gestalt.errors import DataError

KITTI_PROJECTION_SIZE = 12
STEREO_BASELINE = "stereo_baseline"
FOLDER_KEYS = ("fx", "fy", "cx", "cy", STEREO_BASELINE, "frame_rate_hz")


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rectified stereo camera, or one camera.

    Attributes:
        intrinsics: (3, 3) float64 of both rectified cameras, pixels at stored size.
        stereo_baseline: Metres, positive: the right camera stands to the right of the left one. NaN where there
            is one camera.
    """

    intrinsics: npt.NDArray[np.float64]
    stereo_baseline: float


def calibration(
    fx: float, fy: float, cx: float, cy: float, stereo_baseline: float | None, *, origin: Path
) -> Calibration:
    """Check the numbers of a stereo camera, or of one camera.

    Args:
        fx: Horizontal focal length, pixels.
        fy: Vertical focal length, pixels.
        cx: Column of the principal point, pixels.
        cy: Row of the principal point, pixels.
        stereo_baseline: Metres; None where there is one camera.
        origin: Where the numbers come from, for messages.

    Raises:
        DataError: A number is not finite, or a focal length or the stereo baseline is not positive.
    """
    for name, value in (("fx", fx), ("fy", fy), ("stereo_baseline", stereo_baseline)):
        if value is None:
            continue
        if not np.isfinite(value) or value <= 0:
            raise DataError(
                f"bad calibration: {name} must be positive. Got: {value:g} in {origin}"
                + ("; are left and right swapped?" if name == "stereo_baseline" and value < 0 else "")
            )
    if not np.isfinite([cx, cy]).all():
        raise DataError(f"bad calibration: cx and cy must be finite. Got: {cx:g}, {cy:g} in {origin}")
    return Calibration(
        np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64),
        float("nan") if stereo_baseline is None else float(stereo_baseline),
    )


def read_cityscapes_camera(path: Path, *, monocular: bool = False) -> Calibration:
    """Cityscapes ``camera`` JSON: ``extrinsic.baseline`` and ``intrinsic.{fx,fy,u0,v0}``.

    Args:
        path: The file.
        monocular: There is one camera; ``extrinsic`` is not read.

    Raises:
        DataError: The file is missing, broken or says something impossible.
    """
    try:
        content = json.loads(_read_text(path))
        intrinsic = content["intrinsic"]
        numbers = [float(intrinsic[name]) for name in ("fx", "fy", "u0", "v0")]
        stereo_baseline = None if monocular else float(content["extrinsic"]["baseline"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"bad calibration: {path} is no Cityscapes camera file: {error!r}") from error
    fx, fy, cx, cy = numbers
    return calibration(fx, fy, cx, cy, stereo_baseline, origin=path)


def read_kitti_projections(path: Path, left: str, right: str | None) -> Calibration:
    """KITTI calibration: ``key: 12 numbers`` lines, each a 3x4 row-major projection.

    Args:
        path: ``calib_cam_to_cam.txt`` (keys ``P_rect_02``), or an odometry or object file (keys ``P2``).
        left: Key of the left camera.
        right: Key of the right camera; None where there is one camera.

    Returns:
        Intrinsics of the left camera; the stereo baseline is P_left[3]/P_left[0] - P_right[3]/P_right[0].

    Raises:
        DataError: The file is missing, lacks a key or says something impossible.
    """
    rows: dict[str, list[str]] = {}
    for line in _read_text(path).splitlines():
        key, colon, values = line.partition(":")
        if colon:
            rows[key.strip()] = values.split()
    projections = []
    for key in (left, *([] if right is None else [right])):
        try:
            numbers = [float(value) for value in rows[key]]
        except (KeyError, ValueError):
            numbers = []
        if len(numbers) != KITTI_PROJECTION_SIZE:
            raise DataError(
                f"bad calibration: {path} must have a line `{key}:` with {KITTI_PROJECTION_SIZE} numbers; "
                f"it has the keys {', '.join(rows) or '(none)'}"
            )
        projections.append(numbers)
    first = projections[0]
    if not all(projection[0] > 0 for projection in projections):
        names = left if right is None else f"{left} and {right}"
        raise DataError(f"bad calibration: focal lengths of {names} must be positive in {path}")
    stereo_baseline = None
    if right is not None:
        second = projections[1]
        stereo_baseline = first[3] / first[0] - second[3] / second[0]
    return calibration(first[0], first[5], first[2], first[6], stereo_baseline, origin=path)


def read_folder_calibration(path: Path, *, monocular: bool = False) -> tuple[Calibration, float]:
    """``calibration.yaml`` of a plain folder: fx, fy, cx, cy (pixels), stereo_baseline (m), frame_rate_hz.

    Args:
        path: The file.
        monocular: There is one camera; ``stereo_baseline`` may be missing and is not read.

    Returns:
        The calibration and the frame rate in Hz.

    Raises:
        DataError: The file is missing, has other keys, or says something impossible.
    """
    try:
        content: Any = YAML(typ="safe").load(_read_text(path))
    except YAMLError as error:
        raise DataError(f"bad calibration: {path} is not YAML: {error}") from error
    found = sorted(map(str, content)) if isinstance(content, dict) else []
    # One camera has no distance to another, but a file made for two serves as well.
    optional = {STEREO_BASELINE} if monocular else set()
    if not (set(FOLDER_KEYS) - optional <= set(found) <= set(FOLDER_KEYS)) or not all(
        isinstance(value, int | float) for value in content.values()
    ):
        raise DataError(
            f"bad calibration: {path} must hold exactly the numbers "
            f"{', '.join(key for key in FOLDER_KEYS if key not in optional)}. "
            f"Got: {', '.join(found) or 'no mapping'}"
        )
    values = {name: float(content[name]) for name in found}
    frame_rate_hz = values.pop("frame_rate_hz")
    stereo_baseline = values.pop(STEREO_BASELINE, None)
    if not np.isfinite(frame_rate_hz) or frame_rate_hz <= 0:
        raise DataError(f"bad calibration: frame_rate_hz must be positive. Got: {frame_rate_hz:g} in {path}")
    stereo_baseline = None if monocular else stereo_baseline
    return calibration(**values, stereo_baseline=stereo_baseline, origin=path), frame_rate_hz


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"missing calibration: {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"bad calibration: {path} cannot be read: {error}") from error
