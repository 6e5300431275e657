"""KITTI's 16-bit PNG of optical flow and disparity.

Eight-bit readers destroy these files silently, so they are read and written here only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gestalt.data.images import read_png, write_png
from gestalt.errors import DataError, ShapeError

FloatArray = npt.NDArray[np.float32]

DISPARITY_UNITS_PER_PX = 256.0
OPTICAL_FLOW_UNITS_PER_PX = 64.0
OPTICAL_FLOW_ZERO = 32768.0
LARGEST = np.iinfo(np.uint16).max


def read_optical_flow(path: Path) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Optical flow and where it is known.

    Returns:
        (2, H, W) float32, pixels (x, y), 0 where unknown; (H, W) bool.

    Raises:
        DataError: The file is missing, broken or not 16-bit with three channels.
    """
    array = read_png(path)
    if array.dtype != np.uint16 or array.ndim != 3 or array.shape[-1] != 3:
        raise DataError(
            f"{path} must be a 16-bit PNG with three channels (KITTI optical flow). "
            f"Got: {array.dtype} {array.shape}"
        )
    valid = array[..., 2] > 0
    moved = np.moveaxis(array[..., :2], -1, 0).astype(np.float32)
    optical_flow = (moved - OPTICAL_FLOW_ZERO) / OPTICAL_FLOW_UNITS_PER_PX
    return np.where(valid, optical_flow, 0).astype(np.float32), valid


def write_optical_flow(path: Path, optical_flow: FloatArray, valid: npt.NDArray[np.bool_]) -> None:
    """Inverse of ``read_optical_flow`` up to 1/128 px; beyond +-512 px values are clipped.

    Args:
        path: The PNG.
        optical_flow: (2, H, W) float, pixels.
        valid: (H, W) bool.
    """
    if optical_flow.ndim != 3 or optical_flow.shape[0] != 2 or optical_flow.shape[1:] != valid.shape:
        raise ShapeError(
            f"optical flow must be (2, H, W) and valid (H, W). Got: {optical_flow.shape} and {valid.shape}"
        )
    stored = np.zeros((*valid.shape, 3), np.uint16)
    units = np.rint(np.nan_to_num(optical_flow) * OPTICAL_FLOW_UNITS_PER_PX + OPTICAL_FLOW_ZERO)
    stored[..., :2] = np.moveaxis(np.clip(units, 0, LARGEST), 0, -1)
    stored[..., 2] = valid
    stored[~valid] = 0
    write_png(path, stored)


def read_disparity(path: Path) -> FloatArray:
    """Disparity, (H, W) float32, pixels, 0 where unknown.

    Raises:
        DataError: The file is missing, broken or not 16-bit with one channel.
    """
    array = read_png(path)
    if array.dtype != np.uint16 or array.ndim != 2:
        raise DataError(
            f"{path} must be a 16-bit PNG with one channel (KITTI disparity). "
            f"Got: {array.dtype} {array.shape}"
        )
    return unpack_disparity(array)


def write_disparity(path: Path, disparity: FloatArray) -> None:
    """Inverse of ``read_disparity`` up to 1/512 px."""
    write_png(path, pack_disparity(disparity))


def pack_disparity(disparity: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """(H, W) float pixels -> uint16 pixels * 256; 0 where not positive or not finite.

    A positive disparity below 1/512 px becomes 1, not "unknown"; above 255.99 px it is clipped.
    """
    known = np.isfinite(disparity) & (disparity > 0)
    units = np.rint(np.where(known, disparity, 0).astype(np.float64) * DISPARITY_UNITS_PER_PX)
    return np.where(known, np.clip(units, 1, LARGEST), 0).astype(np.uint16)


def unpack_disparity(units: npt.NDArray[np.uint16]) -> FloatArray:
    """Inverse of ``pack_disparity``: (H, W) float32 pixels, 0 where unknown."""
    return (units / np.float32(DISPARITY_UNITS_PER_PX)).astype(np.float32)
