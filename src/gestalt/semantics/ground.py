"""The ground seen by a level stereo camera: a line in v-disparity, found by voting, refined by least squares.

Source: Labayrade, Aubert & Tarel, "Real time obstacle detection in stereovision on non flat road geometry
through v-disparity representation" (IV 2002). We vote over a grid of lines with a penalty for points under
the ground, which replaces the Hough transform and needs no random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gestalt.semantics.disparity import is_measured

FloatArray = NDArray[np.float32]

# The horizon of a driving camera lies between these shares of the height.
HORIZON_SHARES = (0.2, 0.65)
N_HORIZONS = 46
N_BOTTOM_DISPARITIES = 96
# Disparity bins of the vote, pixels; a line owns the bin it hits and the two beside it.
BIN_PX = 0.5
# Nothing lies under the ground: what is this much farther than the ground in its row speaks against a line.
UNDER_PX = 1.5
# The ground is not looked for nearer to the horizon than this disparity.
MIN_LINE_PX = 1.0
# Every second row is enough to vote.
ROW_STEP = 2
# A line needs this many measured pixels and this share of the voting ones.
MIN_PIXELS, MIN_SHARE = 200, 0.05
REFINEMENTS = 3
INLIER_PX, INLIER_SHARE = 0.75, 0.04


@dataclass(frozen=True)
class GroundLine:
    """Disparity of the ground: ``slope * (row - horizon)``, pixels, for rows below the horizon.

    Attributes:
        slope: Pixels of disparity per row, positive: stereo baseline / height of the camera.
        horizon: Row at which the ground is infinitely far.
    """

    slope: float
    horizon: float


def fit_ground_line(disparity: FloatArray) -> GroundLine | None:
    """Find the ground.

    Args:
        disparity: (H, W) float, pixels, below half a pixel where there is no match.

    Returns:
        The line, or None where too little of the image lies on one.
    """
    H = len(disparity)
    rows = np.arange(int(HORIZON_SHARES[0] * H), H, ROW_STEP)
    sampled = disparity[rows]
    measured = is_measured(disparity)[rows]
    if measured.sum() < MIN_PIXELS:
        return None
    row_of = np.broadcast_to(np.arange(len(rows))[:, None], sampled.shape)[measured]
    values = sampled[measured]
    support, under = _histograms(row_of, values, len(rows))
    horizons = np.linspace(HORIZON_SHARES[0] * H, HORIZON_SHARES[1] * H, N_HORIZONS)
    bottoms = np.geomspace(1.0, max(float(values.max()), 2.0), N_BOTTOM_DISPARITIES)
    slopes = bottoms / (H - horizons[:, None])
    # (horizon, bottom disparity, row)
    line = slopes[..., None] * (rows - horizons[:, None, None])
    is_below_horizon = line > MIN_LINE_PX
    votes = np.where(is_below_horizon, _at(support, line), 0).sum(-1)
    score = votes - np.where(is_below_horizon, _at(under, line - UNDER_PX), 0).sum(-1)
    best = np.unravel_index(int(score.argmax()), score.shape)
    if votes[best] < MIN_SHARE * len(values):
        return None
    return _refine(
        slopes[best], horizons[best[0]], rows[row_of].astype(np.float64), values.astype(np.float64)
    )


def _histograms(row_of: NDArray[np.int64], values: FloatArray, n_rows: int) -> tuple[FloatArray, FloatArray]:
    """Of each (row, bin): pixels in the bin and the two beside it, and pixels in all farther bins."""
    n_bins = int(np.ceil(values.max() / BIN_PX)) + 3
    flat = row_of * n_bins + (values / BIN_PX).astype(np.int64)
    counts = np.bincount(flat, minlength=n_rows * n_bins).reshape(n_rows, n_bins).astype(np.float32)
    support = counts.copy()
    support[:, 1:] += counts[:, :-1]
    support[:, :-1] += counts[:, 1:]
    return support, np.cumsum(counts, axis=1, dtype=np.float32) - counts


def _at(histogram: FloatArray, line: NDArray[np.float64]) -> FloatArray:
    """Values of the bins that lines (..., rows) hit."""
    n_rows, n_bins = histogram.shape
    bins = (line.clip(0) / BIN_PX).astype(np.int64).clip(0, n_bins - 1)
    values: FloatArray = histogram.ravel()[np.arange(n_rows) * n_bins + bins]
    return values


def _refine(
    slope: float, horizon: float, rows: NDArray[np.float64], values: NDArray[np.float64]
) -> GroundLine | None:
    for _ in range(REFINEMENTS):
        line = slope * (rows - horizon)
        near = (np.abs(values - line) < np.maximum(INLIER_PX, INLIER_SHARE * line)) & (line > MIN_LINE_PX)
        if near.sum() < MIN_PIXELS:
            return None
        v, d = rows[near], values[near]
        variance = v.var()
        if variance < 1.0:
            return None
        slope = float(((v - v.mean()) * (d - d.mean())).mean() / variance)
        if slope <= 0:
            return None
        horizon = float(v.mean() - d.mean() / slope)
    return GroundLine(slope, horizon)
