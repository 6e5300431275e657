"""Masks completed where nothing can be measured: at the sides, where an object leaves one of the four images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gestalt.motion.object_filters import EIGHT, Proposal

# Holes at a side are looked for this many columns deep.
SIDE_PX = 2
# Markers of the watershed: free pixels and the background; instance i is i + BACKGROUND.
FREE, BACKGROUND = 0, 1

BoolArray = npt.NDArray[np.bool_]
InstanceMap = npt.NDArray[np.uint16]


def side_holes(unmeasured: BoolArray, radius: int) -> BoolArray:
    """Unmeasured pixels of regions that reach the left or right side of the image.

    There the right camera sees no counterpart, or the point has left the image at t+1. Holes elsewhere are
    mostly what an object hides, which is background.

    Args:
        unmeasured: (H, W) bool.
        radius: Bridges narrower than twice this do not connect a hole to the side, pixels.
    """
    wide = ndimage.binary_opening(unmeasured, EIGHT, iterations=radius) if radius else unmeasured
    labels, count = ndimage.label(wide, EIGHT)
    at_side = np.zeros(count + 1, np.bool_)
    at_side[labels[:, :SIDE_PX]] = True
    at_side[labels[:, -SIDE_PX:]] = True
    at_side[0] = False
    found = at_side[labels]
    if radius:
        found = ndimage.binary_dilation(found, EIGHT, iterations=radius, mask=unmeasured)
    return np.asarray(found, np.bool_)


def complete_masks(
    instance_map: InstanceMap,
    measured: BoolArray,
    image: npt.NDArray[np.uint8],
    *,
    radius: int,
    border: int = 0,
) -> InstanceMap:
    """Grow masks over the holes at the sides of the image, up to the edges of the image.

    Only what is connected to a mask without crossing a stronger edge than towards the background joins it.

    Args:
        instance_map: (H, W) uint16, 0 = none.
        measured: (H, W) bool, pixels with a whole, consistent measurement.
        image: (H, W, 3) uint8 RGB left image at t.
        radius: Spread of the Gaussian that takes texture away, and width of bridges that do not count, pixels.
        border: Columns at each side that stay empty.

    Returns:
        (H, W) uint16; every region of ``instance_map`` keeps its pixels.

    Source:
        Marker-controlled watershed (Meyer 1994) as OpenCV implements it. CUPS leaves these pixels empty.
    """
    if radius == 0 or not instance_map.any():
        return instance_map
    free = side_holes(~measured & (instance_map == 0), radius)
    markers = np.where(free, FREE, instance_map.astype(np.int32) + BACKGROUND)
    smooth = cv2.GaussianBlur(image, (0, 0), radius)
    grown = cv2.watershed(smooth, markers)
    # Ridges between basins are -1; they stay background.
    joined = free & (grown > BACKGROUND)
    completed = np.where(joined, grown - BACKGROUND, instance_map).astype(np.uint16)
    completed[:, :border] = 0
    completed[:, completed.shape[1] - border :] = 0
    return completed


def recount(proposals: list[Proposal], instance_map: InstanceMap) -> list[Proposal]:
    """Proposals 1..N with the area and box of their masks; what was measured of them stays."""
    areas = np.bincount(instance_map.ravel(), minlength=len(proposals) + 1)
    boxes = ndimage.find_objects(instance_map, max_label=len(proposals))
    return [
        replace(
            proposal,
            area_px=int(areas[proposal.instance]),
            x0=columns.start,
            y0=rows.start,
            x1=columns.stop,
            y1=rows.stop,
        )
        for proposal, (rows, columns) in zip(proposals, boxes)
    ]
