"""Geometry as features: height above ground, nearness, protrusion out of the row, vertical extent.

A deviation from CUPS, where depth only weighs two predictions: with features that are affordable without a
pre-trained network, depth helps most when it is clustered with them. ``semantics.geometry`` switches it off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gestalt.semantics.disparity import MIN_DISPARITY_PX, fill_disparity
from gestalt.semantics.ground import GroundLine, fit_ground_line

FloatArray = NDArray[np.float32]

# Centre and scale, metres, of the squashed heights: a kerb, what stands on the ground, low against tall.
HEIGHT_SCALES_M = ((0.06, 0.1), (0.0, 0.4), (1.0, 2.0))
# Widths, as share of the image, below which a thing can stand out: poles and persons, cars, lorries.
PROTRUSION_WIDTHS = (0.045, 0.13, 0.34)
# Added to the disparity that protrusion is divided by, pixels: far things stand out by noise alone.
PROTRUSION_OFFSET_PX = 3.0
# Heights, metres, at which a surface is looked for: near the ground, above cars and persons, above lorries.
EXTENT_HEIGHTS_M = (0.3, 2.2, 3.8)
# Disparities of one surface differ by less than this share plus this many pixels.
SAME_SURFACE_SHARE, SAME_SURFACE_PX = 0.12, 0.7
# Sizes of the groups of channels, in order: heights, nearness, protrusions, extents.
GROUPS = (len(HEIGHT_SCALES_M), 1, len(PROTRUSION_WIDTHS), len(EXTENT_HEIGHTS_M))
N_CHANNELS = sum(GROUPS)


def geometry_channels(disparity: FloatArray, stereo_baseline: float) -> FloatArray | None:
    """Describe where each pixel lies in the street.

    Args:
        disparity: (H, W) float, pixels, positive, below half a pixel where there is no match.
        stereo_baseline: Metres.

    Returns:
        (N_CHANNELS, H, W) float32, or None where nothing was measured: squashed heights above the ground in
        [-1, 1], the logarithm of disparity / (width * stereo baseline), that is of nearness in units of the
        field of view, protrusions in [0, 1) and vertical extents in [0, 1]. Without a ground in the image
        heights and extents are zero.
    """
    filled = np.maximum(fill_disparity(disparity), MIN_DISPARITY_PX).astype(np.float32)
    if filled.max() <= MIN_DISPARITY_PX:
        return None
    ground = fit_ground_line(disparity)
    nearness = np.log(filled / (filled.shape[1] * stereo_baseline))
    protrusions = [protrusion(filled, round(share * filled.shape[1])) for share in PROTRUSION_WIDTHS]
    if ground is None:
        nothing = np.zeros_like(filled)
        heights, extents = [nothing] * len(HEIGHT_SCALES_M), [nothing] * len(EXTENT_HEIGHTS_M)
    else:
        height = height_above_ground(filled, ground, stereo_baseline)
        heights = [np.tanh((height - centre) / scale) for centre, scale in HEIGHT_SCALES_M]
        extents = [vertical_extent(filled, ground, stereo_baseline, at_m) for at_m in EXTENT_HEIGHTS_M]
    return np.stack([*heights, nearness, *protrusions, *extents]).astype(np.float32)


def height_above_ground(filled: FloatArray, ground: GroundLine, stereo_baseline: float) -> FloatArray:
    """Height of each pixel's surface above the ground plane.

    Args:
        filled: (H, W) float32, disparity, pixels, positive everywhere.
        ground: Where the ground is.
        stereo_baseline: Metres.

    Returns:
        (H, W) float32, metres. With d = slope (v - horizon) on the ground and Y = b (v - horizon) / d, the
        focal length cancels; the camera is at b / slope.
    """
    rows = np.arange(filled.shape[0], dtype=np.float32)[:, None] - np.float32(ground.horizon)
    height: FloatArray = np.float32(stereo_baseline) * (np.float32(1 / ground.slope) - rows / filled)
    return height


def protrusion(filled: FloatArray, width_px: int) -> FloatArray:
    """How much nearer than what is around them things narrower than ``width_px`` are.

    Args:
        filled: (H, W) float32, disparity, pixels, positive everywhere.
        width_px: Width, pixels.

    Returns:
        (H, W) float32 in [0, 1): the white top-hat of the disparity along rows, divided by the disparity
        plus a constant.
    """
    # Imported here: machines that only train networks have no OpenCV.
    import cv2

    kernel = np.ones((1, 2 * (width_px // 2) + 1), np.uint8)
    # Beyond the border lies nothing: the edge of the image is no edge of a thing.
    opened = cv2.morphologyEx(filled, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE)
    relative: FloatArray = ((filled - opened) / (filled + PROTRUSION_OFFSET_PX)).clip(0).astype(np.float32)
    return relative


def vertical_extent(
    filled: FloatArray, ground: GroundLine, stereo_baseline: float, height_m: float
) -> FloatArray:
    """Whether there is more of the same surface straight above or below, ``height_m`` above the ground.

    Args:
        filled: (H, W) float32, disparity, pixels, positive everywhere.
        ground: Where the ground is.
        stereo_baseline: Metres.
        height_m: Height that is looked at, metres.

    Returns:
        (H, W) float32 in [0, 1]: 1 where the pixel's column has the pixel's disparity at that height, falling
        with the difference. Places above the image are looked for in its first row, those below in its last.
    """
    H = filled.shape[0]
    camera_m = stereo_baseline / ground.slope
    rows = np.round(ground.horizon + (camera_m - height_m) * filled / stereo_baseline).clip(0, H - 1)
    there = np.take_along_axis(filled, rows.astype(np.int64), axis=0)
    tolerance = SAME_SURFACE_SHARE * filled + SAME_SURFACE_PX
    likeness: FloatArray = np.exp(-(((there - filled) / tolerance) ** 2)).astype(np.float32)
    return likeness
