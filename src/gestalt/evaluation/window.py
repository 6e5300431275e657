"""The part of an image that a protocol evaluates: resized by nearest neighbour, cut to a central window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gestalt.evaluation.protocols import Protocol
from gestalt.panoptic import PanopticMap


def evaluated_window(panoptic: PanopticMap, protocol: Protocol) -> PanopticMap:
    """Resize and cut a map as the protocol says.

    Args:
        panoptic: Prediction or ground truth, at the size of the ground truth.
        protocol: ``short_side_px`` and ``crop``. An image that is smaller than the window counts as it is: padding
            would be void on both sides.

    Source:
        Nearest neighbour takes the source pixel floor(i * scale), as torch's ``nearest`` does, whose single precision
        takes the pixel before in a few sizes (none of Cityscapes'); the window starts at half of what is cut off,
        rounded as torchvision's ``center_crop`` does.
    """
    places = window_places(panoptic.size, protocol)
    if places is None:
        return panoptic
    where = np.ix_(*places)
    return PanopticMap(panoptic.semantic_map[where], panoptic.instance_map[where])


def window_places(
    size: tuple[int, int], protocol: Protocol
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Which rows and columns of an image of ``size`` (H, W) are evaluated; None where that is all of it."""
    if protocol.short_side_px is None and protocol.crop is None:
        return None
    height, width = size
    rows, columns = np.arange(height), np.arange(width)
    if protocol.short_side_px is not None:
        # The long side is rounded down, as torchvision's ``resize`` does.
        short = min(height, width)
        rows = _nearest(height, protocol.short_side_px * height // short)
        columns = _nearest(width, protocol.short_side_px * width // short)
    if protocol.crop is not None:
        rows, columns = _central(rows, protocol.crop[0]), _central(columns, protocol.crop[1])
    return rows, columns


def _nearest(source: int, target: int) -> npt.NDArray[np.int64]:
    return np.arange(target) * source // target


def _central(places: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    start = round(max(len(places) - length, 0) / 2)
    return places[start : start + length]
