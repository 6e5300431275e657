"""Pictures a person wants to see: semantics, instances, disparity, optical flow, sheets of many.

Everything is drawn with NumPy and OpenCV into (H, W, 3) uint8 RGB arrays; colours depend on ids alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.errors import ShapeError
from gestalt.panoptic import VOID, PanopticMap

UInt8Array = npt.NDArray[np.uint8]

# Successive hues a golden angle apart never come close to each other.
GOLDEN_SHARE = 0.61803398875
# Hue alone tells about ten colours apart, so saturation and value take turns.
SATURATIONS, VALUES = (0.75, 0.5, 0.9), (0.95, 0.75, 0.55)

CAPTION_PX = 20
GAP_PX = 4


def distinct_colours(n: int, *, start: float = 0.0) -> UInt8Array:
    """(256, 3) uint8 RGB: colours of ids 0..n-1 that are easy to tell apart; everything else is black.

    Args:
        n: Number of ids, at most 255.
        start: Share of the colour circle that id 0 starts at.
    """
    palette = np.zeros((256, 3), np.uint8)
    ids = np.arange(n)
    hue = (start + ids * GOLDEN_SHARE) % 1.0
    saturation = np.array(SATURATIONS)[ids % len(SATURATIONS)]
    value = np.array(VALUES)[(ids // len(SATURATIONS)) % len(VALUES)]
    palette[:n] = _hsv_to_rgb(hue, saturation, value)
    return palette


def colour_semantic(semantic_map: UInt8Array, palette: UInt8Array) -> UInt8Array:
    """Colours of a class map.

    Args:
        semantic_map: (H, W) uint8.
        palette: (256, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB; void is black.
    """
    if semantic_map.ndim != 2:
        raise ShapeError(f"semantic_map must be (H, W). Got: {semantic_map.shape}")
    coloured = palette[semantic_map]
    coloured[semantic_map == VOID] = 0
    return coloured


def colour_instances(instance_map: npt.NDArray[Any]) -> UInt8Array:
    """(H, W, 3) uint8 RGB: a colour per instance id, black where there is none."""
    colours = distinct_colours(255)
    shown = colours[(instance_map.astype(np.int64) - 1) % 255]
    shown[instance_map == 0] = 0
    return shown


def blend(image: UInt8Array, colours: UInt8Array, share: float = 0.5) -> UInt8Array:
    """``colours`` over ``image``; black pixels of ``colours`` leave the image as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        colours: (H, W, 3) uint8 RGB.
        share: Weight of the colours, in [0, 1].
    """
    mixed = image * (1 - share) + colours * share
    painted = (colours > 0).any(axis=-1, keepdims=True)
    return np.where(painted, mixed, image).astype(np.uint8)


def outline_instances(image: UInt8Array, instance_map: npt.NDArray[Any], *, width_px: int = 2) -> UInt8Array:
    """``image`` with the border of each instance in its colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        instance_map: (H, W) integer, 0 where no instance is.
        width_px: Width of the line where two instances meet; half of it lies in each.
    """
    drawn = image.copy()
    ids = instance_map.astype(np.float32)  # morphology takes no 32-bit integers; ids are far below 2**24
    side = 2 * max(width_px, 2) - 1
    kernel = np.ones((side, side), np.uint8)
    border = (cv2.erode(ids, kernel) != ids) | (cv2.dilate(ids, kernel) != ids)
    border &= instance_map > 0
    drawn[border] = colour_instances(instance_map)[border]
    return drawn


def draw_panoptic(image: UInt8Array, panoptic: PanopticMap, palette: UInt8Array) -> UInt8Array:
    """Semantic colours over the image, instances outlined: the picture of a panoptic map."""
    return outline_instances(
        blend(image, colour_semantic(panoptic.semantic_map, palette), 0.55), panoptic.instance_map
    )


def colour_disparity(disparity: npt.NDArray[np.floating[Any]], largest: float | None = None) -> UInt8Array:
    """Near is warm, far is cold, unknown is black.

    Args:
        disparity: (H, W) float, pixels; zero or less where unknown.
        largest: Drawn in the warmest colour; the 98th percentile when left out.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    known = disparity > 0
    if largest is None:
        largest = float(np.percentile(disparity[known], 98)) if known.any() else 1.0
    level = np.clip(disparity / max(largest, 1e-6), 0, 1)
    return _colour_levels(level, known)


def colour_optical_flow(
    optical_flow: npt.NDArray[np.floating[Any]], largest: float | None = None
) -> UInt8Array:
    """Direction as hue, length as saturation.

    Args:
        optical_flow: (2, H, W) float, pixels (x right, y down); NaN where unknown.
        largest: Length drawn fully saturated; the 98th percentile when left out.

    Returns:
        (H, W, 3) uint8 RGB: white where nothing moves, black where unknown.
    """
    if optical_flow.ndim != 3 or optical_flow.shape[0] != 2:
        raise ShapeError(f"optical_flow must be (2, H, W). Got: {optical_flow.shape}")
    known = np.isfinite(optical_flow).all(axis=0)
    x, y = np.where(known, optical_flow, 0)
    length = np.hypot(x, y)
    if largest is None:
        largest = float(np.percentile(length[known], 98)) if known.any() else 1.0
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1.0
    coloured = _hsv_to_rgb(hue, np.clip(length / max(largest, 1e-6), 0, 1), np.ones_like(hue))
    coloured[~known] = 0
    return coloured


def fit_width(image: UInt8Array, width_px: int, *, is_labels: bool = False) -> UInt8Array:
    """``image`` no wider than ``width_px``; labels keep their colours unmixed."""
    height, width = image.shape[:2]
    if width <= width_px:
        return image
    size = (width_px, max(1, round(height * width_px / width)))
    interpolation = cv2.INTER_NEAREST if is_labels else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def contact_sheet(pictures: Sequence[UInt8Array], captions: Sequence[str], columns: int) -> UInt8Array:
    """Pictures in a grid, each with a line of text above it.

    Args:
        pictures: (H, W, 3) uint8 RGB each; smaller ones are padded.
        captions: A line per picture; ASCII.
        columns: Pictures in a row.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ShapeError: There is no picture, or not one caption each.
    """
    if not pictures or len(pictures) != len(captions):
        raise ShapeError(
            f"a contact sheet needs pictures with a caption each. Got: {len(pictures)} and {len(captions)}"
        )
    height = max(picture.shape[0] for picture in pictures) + CAPTION_PX + GAP_PX
    width = max(picture.shape[1] for picture in pictures) + GAP_PX
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height, min(columns, len(pictures)) * width, 3), 255, np.uint8)
    for number, (picture, caption) in enumerate(zip(pictures, captions)):
        top, left = (number // columns) * height, (number % columns) * width
        place = (left + 2, top + CAPTION_PX - 6)
        cv2.putText(sheet, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
        top += CAPTION_PX
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _colour_levels(level: npt.NDArray[np.floating[Any]], known: npt.NDArray[np.bool_]) -> UInt8Array:
    """(H, W) in [0, 1] -> a perceptually ordered scale from cold to warm; black where unknown."""
    steps = np.rint(np.nan_to_num(level) * 255).astype(np.uint8)
    coloured = np.asarray(
        cv2.cvtColor(cv2.applyColorMap(steps, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB), np.uint8
    )
    coloured[~known] = 0
    return coloured


def _hsv_to_rgb(hue: npt.NDArray[Any], saturation: npt.NDArray[Any], value: npt.NDArray[Any]) -> UInt8Array:
    """Any shape of shares in [0, 1] -> the same shape plus 3, uint8."""
    sector = (hue * 6)[..., None] + np.array([5.0, 3.0, 1.0])
    ramp = np.clip(np.minimum(sector % 6, 4 - sector % 6), 0, 1)
    rgb = value[..., None] * (1 - saturation[..., None] * ramp)
    return np.asarray(np.rint(rgb * 255), np.uint8)
