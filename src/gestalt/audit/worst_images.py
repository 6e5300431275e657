"""A sheet of the images that were predicted worst: photo, ground truth, prediction in classes, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.data.overlay import instance_outlines
from gestalt.panoptic import VOID, LabelSpace, PanopticMap, UInt8Array

# Of a panel.
WIDTH_PX = 480
CAPTION_PX, GAP_PX = 26, 6
PAPER, INK, OUTLINE = 255, (20, 20, 20), (255, 255, 255)
# Void keeps a grey of its own, so that it is told from dark classes.
VOID_GREY, NO_PHOTO = (70, 70, 70), (200, 200, 200)
WRONG, RIGHT, NOT_JUDGED = (214, 48, 49), (210, 222, 210), (120, 120, 120)
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.48
PANELS = ("ground truth", "prediction", "wrong class (red), void truth (grey)")


@dataclass(frozen=True, eq=False)
class WorstImage:
    """One line of the sheet.

    Attributes:
        caption: Name and number.
        photo: (H, W, 3) uint8 RGB; None where it is not here.
        truth: In classes.
        prediction: In classes; None where there is none.
    """

    caption: str
    photo: UInt8Array | None
    truth: PanopticMap
    prediction: PanopticMap | None


def worst_first(
    quality: npt.NDArray[np.float64], is_counted: npt.NDArray[np.bool_], n_images: int
) -> list[int]:
    """Places of the images with the lowest quality.

    Args:
        quality: (N,) of each image.
        is_counted: (N,) bool, the image has a segment that counts; others have no quality.
        n_images: How many at most.
    """
    order = np.argsort(quality, kind="stable")
    return [int(place) for place in order if is_counted[place]][:n_images]


def draw_worst(images: Sequence[WorstImage], space: LabelSpace) -> UInt8Array:
    """The sheet, a line per image; photos have a column where there is one.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    palette = space.palette()
    palette[VOID] = VOID_GREY
    has_photos = any(image.photo is not None for image in images)
    return np.concatenate([_line(image, palette, has_photos=has_photos) for image in images])


def _line(image: WorstImage, palette: UInt8Array, *, has_photos: bool) -> UInt8Array:
    height, width = image.truth.size
    prediction = image.prediction or PanopticMap(
        np.full((height, width), VOID, np.uint8), np.zeros((height, width), np.uint16)
    )
    photo = image.photo
    if photo is None or photo.shape[:2] != (height, width):
        photo = np.full((height, width, 3), NO_PHOTO, np.uint8)
    errors = np.full((height, width, 3), WRONG, np.uint8)
    errors[image.truth.semantic_map == prediction.semantic_map] = RIGHT
    errors[image.truth.semantic_map == VOID] = NOT_JUDGED
    panels = [_colour(image.truth, palette), _colour(prediction, palette), errors]
    names = [f"{image.caption}: {PANELS[0]}", *PANELS[1:]]
    if has_photos:
        panels, names = [photo, *panels], [image.caption, *PANELS]
    size = (WIDTH_PX, max(1, round(height * WIDTH_PX / width)))
    shrunk = [
        cv2.resize(panel, size, interpolation=cv2.INTER_AREA if panel is photo else cv2.INTER_NEAREST)
        for panel in panels
    ]
    gap = np.full((size[1], GAP_PX, 3), PAPER, np.uint8)
    row = np.concatenate([part for panel in shrunk for part in (panel, gap)], axis=1)
    caption = np.full((CAPTION_PX, row.shape[1], 3), PAPER, np.uint8)
    for place, what in enumerate(names):
        position = (place * (WIDTH_PX + GAP_PX) + GAP_PX, CAPTION_PX - 8)
        cv2.putText(caption, what, position, FONT, FONT_SCALE, INK, 1, cv2.LINE_AA)
    return np.concatenate([caption, row])


def _colour(panoptic: PanopticMap, palette: UInt8Array) -> UInt8Array:
    coloured: UInt8Array = palette[panoptic.semantic_map]
    coloured[instance_outlines(panoptic)] = OUTLINE
    return coloured
