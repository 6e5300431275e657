"""The same image through several eyes: photo, truth, and each contestant in classes after matching.

Classes and marks are layers over the photo, so that a page can show one, the other or the photo alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.audit.overlay import fit_width
from gestalt.audit.page import embed
from gestalt.data.ground_truth import read_ground_truth
from gestalt.data.images import read_image
from gestalt.data.overlay import OUTLINE, instance_outlines
from gestalt.data.records import GroundTruthFrame
from gestalt.errors import DataError
from gestalt.evaluation.comparison import Comparison, Result, matched_map, right_pixels
from gestalt.evaluation.image_pairs import panoptic_of
from gestalt.panoptic import VOID, PanopticMap
from gestalt.runtime import progress

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

RED, GREEN = (222, 45, 38), (26, 160, 90)
# Where the image of a benchmark is not here.
NO_PHOTO = 128
CLASSES, ERRORS, CHANGES = "classes", "errors", "changes"


@dataclass(frozen=True)
class Cell:
    """One contestant, or the truth, on one image.

    Attributes:
        name: Of the contestant; empty for the truth.
        quality: PQ of the image by itself, percent; None for the truth and for images without prediction.
        difference: To the reference, percentage points; None for the reference and the truth.
        layers: Name of the view -> ``data:`` address of a picture with transparent pixels.
    """

    name: str
    quality: float | None
    difference: float | None
    layers: Mapping[str, str]


@dataclass(frozen=True)
class ComparedFrame:
    """One image.

    Attributes:
        frame_id: Its id.
        photo: ``data:`` address.
        size: (H, W) of the pictures.
        cells: Truth first, then the contestants in their order.
        classes: Ids of the classes that some layer shows.
    """

    frame_id: str
    photo: str
    size: tuple[int, int]
    cells: tuple[Cell, ...]
    classes: tuple[int, ...]


def draw_frames(
    comparison: Comparison,
    truth: Sequence[GroundTruthFrame],
    frame_ids: Sequence[str],
    *,
    width_px: int,
) -> list[ComparedFrame]:
    """Draw some images of a benchmark.

    Args:
        comparison: The measured contestants.
        truth: Images with ground truth.
        frame_ids: Which ones, in this order.
        width_px: Widest picture.
    """
    frames = {frame.frame_id: frame for frame in truth}
    places = {frame_id: place for place, frame_id in enumerate(comparison.image_ids)}
    drawn = []
    for frame_id in progress(frame_ids, label=f"{comparison.benchmark} pictures", unit="image"):
        drawn.append(_draw(comparison, frames[frame_id], places[frame_id], width_px))
    return drawn


def class_layer(panoptic: PanopticMap, palette: UInt8Array) -> UInt8Array:
    """(H, W, 4) uint8 RGBA: colours of classes, objects outlined, void transparent.

    Args:
        panoptic: In classes.
        palette: (256, 3) uint8 RGB.
    """
    layer = np.dstack(
        [palette[panoptic.semantic_map], 255 * (panoptic.semantic_map != VOID).astype(np.uint8)]
    )
    layer[instance_outlines(panoptic)] = (*OUTLINE, 255)
    return layer


def mark_layer(marks: Sequence[tuple[BoolArray, tuple[int, int, int]]], size: tuple[int, int]) -> UInt8Array:
    """(H, W, 4) uint8 RGBA: a colour where each mask is, transparent elsewhere."""
    layer = np.zeros((*size, 4), np.uint8)
    for mask, colour in marks:
        layer[mask] = (*colour, 255)
    return layer


def _draw(
    comparison: Comparison,
    frame: GroundTruthFrame,
    place: int,
    width_px: int,
) -> ComparedFrame:
    protocol, space = comparison.protocol, comparison.space
    true_map = read_ground_truth(frame, protocol.label_space, protocol.dataset)
    small_truth = _reduce(true_map, width_px)
    photo = fit_width(_photo(frame, true_map.size), width_px)
    maps = {
        name: _matched(comparison.results[name], frame.frame_id, true_map.size)
        for name, result in comparison.results.items()
        if result.evaluation is not None
    }
    right = {name: right_pixels(panoptic, true_map, space.thing_ids) for name, panoptic in maps.items()}
    small = {name: _reduce(panoptic, width_px) for name, panoptic in maps.items()}
    differences, base = comparison.image_differences(), right[comparison.reference]
    cells = [Cell("", None, None, {CLASSES: _embed(class_layer(small_truth, space.palette()))})]
    for name in maps:
        layers = {
            CLASSES: class_layer(small[name], space.palette()),
            ERRORS: mark_layer([(_reduce_mask(~right[name], width_px), RED)], small_truth.size),
        }
        if name != comparison.reference:
            lost = _reduce_mask(base & ~right[name], width_px)
            gained = _reduce_mask(right[name] & ~base, width_px)
            layers[CHANGES] = mark_layer([(lost, RED), (gained, GREEN)], small_truth.size)
        cells.append(
            Cell(
                name,
                float(comparison.results[name].image_quality[place]),
                float(differences[name][place]) if name in differences else None,
                {view: _embed(layer) for view, layer in layers.items()},
            )
        )
    present = {
        int(value)
        for panoptic in (small_truth, *small.values())
        for value in np.unique(panoptic.semantic_map)
    }
    classes = tuple(sorted(present - {VOID}))
    return ComparedFrame(frame.frame_id, embed(photo), small_truth.size, tuple(cells), classes)


def _matched(result: Result, frame_id: str, size: tuple[int, int]) -> PanopticMap:
    """A contestant's map in classes; all void where it has none."""
    read = result.pairs[frame_id].prediction
    if result.evaluation is None or read is None:
        return PanopticMap(np.full(size, VOID, np.uint8), np.zeros(size, np.uint16))
    return matched_map(panoptic_of(read()), result.evaluation)


def _photo(frame: GroundTruthFrame, size: tuple[int, int]) -> UInt8Array:
    """The image, or grey where it is not here or of another size."""
    grey = np.full((*size, 3), NO_PHOTO, np.uint8)
    if frame.read_image is None and not frame.image.is_file():
        return grey
    try:
        image = read_image(frame.image) if frame.read_image is None else frame.read_image()
    except DataError:
        return grey
    return image if image.shape[:2] == size else grey


def _reduce(panoptic: PanopticMap, width_px: int) -> PanopticMap:
    """No wider than ``width_px``; no new ids appear."""
    height, width = panoptic.size
    if width <= width_px:
        return panoptic
    size = (width_px, max(1, round(height * width_px / width)))
    return PanopticMap(
        np.asarray(cv2.resize(panoptic.semantic_map, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        np.asarray(cv2.resize(panoptic.instance_map, size, interpolation=cv2.INTER_NEAREST), np.uint16),
    )


def _reduce_mask(mask: BoolArray, width_px: int) -> BoolArray:
    reduced: BoolArray = fit_width(mask.astype(np.uint8), width_px, is_labels=True) > 0
    return reduced


def _embed(layer: UInt8Array) -> str:
    return embed(layer, is_labels=True)
