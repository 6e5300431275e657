"""What semantics needs from a disparity map: no holes, metric depth, a mask of what was measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gestalt.errors import ShapeError

FloatArray = NDArray[np.float32]

# A smaller disparity is no match: it would be a point hundreds of metres away, known to no digit.
MIN_DISPARITY_PX = 0.5


def is_measured(disparity: FloatArray) -> NDArray[np.bool_]:
    """(H, W) bool, where the disparity is a finite match of at least half a pixel.

    Raises:
        ShapeError: ``disparity`` is not (H, W) floating point.
    """
    if disparity.ndim != 2 or not np.issubdtype(disparity.dtype, np.floating):
        raise ShapeError(f"disparity must be (H, W) float. Got: {disparity.shape} {disparity.dtype}")
    return np.isfinite(disparity) & (disparity >= MIN_DISPARITY_PX)


def disparity_to_depth(
    disparity: FloatArray, focal_length: float, stereo_baseline: float, max_depth_m: float
) -> FloatArray:
    """Metric depth, where no match counts as far away.

    Args:
        disparity: (H, W) float, pixels; below half a pixel or not finite where there is no match.
        focal_length: Horizontal, pixels of this image.
        stereo_baseline: Metres.
        max_depth_m: Depth of pixels without a match, and the largest of all.

    Returns:
        (H, W) float32, metres, in (0, max_depth_m].

    Source:
        Z = f b / d. The published CUPS code gives depth 0 to disparity 0, so that sky counts as near.
    """
    measured = is_measured(disparity)
    depth = focal_length * stereo_baseline / np.where(measured, disparity, 1.0)
    return np.where(measured, np.minimum(depth, max_depth_m), max_depth_m).astype(np.float32)


def fill_disparity(disparity: FloatArray) -> FloatArray:
    """Close holes with the background beside them.

    A hole in a row takes the smaller of the two measured values around it, since holes lie where the farther
    surface is hidden from one camera (as the KITTI stereo tools do); rows without any measurement take the
    nearest row that has one.

    Args:
        disparity: (H, W) float, pixels.

    Returns:
        (H, W) float32; all zero where nothing was measured at all.
    """
    measured = is_measured(disparity)
    H, W = disparity.shape
    columns = np.arange(W)
    left = np.maximum.accumulate(np.where(measured, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(measured, columns, W)[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(np.where(measured, disparity, 0), ((0, 0), (1, 1)), constant_values=np.inf)
    rows = np.arange(H)[:, None]
    filled = np.minimum(padded[rows, left + 1], padded[rows, right + 1])
    known = np.flatnonzero(measured.any(axis=1))
    if not len(known):
        return np.zeros((H, W), np.float32)
    after = np.searchsorted(known, np.arange(H)).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    is_before_nearer = np.abs(known[before] - np.arange(H)) <= np.abs(known[after] - np.arange(H))
    nearest: FloatArray = filled[known[np.where(is_before_nearer, before, after)]].astype(np.float32)
    return nearest
