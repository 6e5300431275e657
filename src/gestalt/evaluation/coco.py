"""COCO panoptic files (JSON and PNG) into intersection tables, for predictions of any tool.

Segments of a category are kept as they are listed; nothing is merged. Everything that the JSON says about a
picture is checked against the picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.intersections import (
    NO_PREDICTION,
    IntersectionTable,
    build_table,
    count_tuples,
    merge_tables,
)
from gestalt.panoptic import VOID

# Ids are R + 256 G + 65536 B.
ID_BITS = 0xFFFFFF
SHOWN_NAMES = 10


@dataclass(frozen=True)
class CocoCategory:
    """One entry of ``categories``."""

    id: int
    name: str
    is_thing: bool


@dataclass(frozen=True)
class CocoSegment:
    """One entry of ``segments_info``; ``area`` is None where the file does not state it."""

    id: int
    category_id: int
    is_crowd: bool
    area: int | None


@dataclass(frozen=True)
class CocoImage:
    """One entry of ``annotations``."""

    image_id: str
    picture: Path
    segments: tuple[CocoSegment, ...]


@dataclass(frozen=True)
class CocoPanoptic:
    """A panoptic JSON file and its folder of pictures.

    Attributes:
        path: The JSON file.
        categories: In the order of the file; empty for predictions that list none.
        images: By image id as text.
    """

    path: Path
    categories: tuple[CocoCategory, ...]
    images: Mapping[str, CocoImage]


def read_coco_panoptic(path: Path, folder: Path) -> CocoPanoptic:
    """Read a panoptic JSON file; pictures are opened later.

    Raises:
        DataError: The file or the folder is missing, or an entry lacks a field.
    """
    for needed in (path, folder):
        if not needed.exists():
            raise DataError(f"{needed} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    try:
        categories = tuple(
            CocoCategory(int(entry["id"]), str(entry.get("name", entry["id"])), bool(entry["isthing"]))
            for entry in content.get("categories", ())
        )
        images = [_image(entry, folder) for entry in content["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not in COCO panoptic form: {error!r} is missing or of the wrong kind"
        ) from error
    by_id = {image.image_id: image for image in images}
    if len(by_id) != len(images):
        raise DataError(f"{path}: {len(images) - len(by_id)} images are annotated twice")
    return CocoPanoptic(path, categories, by_id)


def intersect_coco(truth: CocoPanoptic, predictions: CocoPanoptic) -> IntersectionTable:
    """One table of all images of the ground truth.

    Classes are positions in ``truth.categories``; instances are positions in ``segments_info``, from 1. An
    image without prediction counts as missed, a prediction without ground truth for nothing.

    Raises:
        DataError: No category or no image, a picture is missing or unreadable, JSON and picture disagree, or
            a prediction uses a category that the ground truth does not list.
        ShapeError: The two pictures of an image differ in size.
    """
    if not truth.categories:
        raise DataError(f"{truth.path} lists no categories; they must stand in the ground truth")
    if not truth.images:
        raise DataError(f"{truth.path} annotates no image")
    if len(truth.categories) > VOID:
        raise DataError(f"{truth.path} lists {len(truth.categories)} categories; at most {VOID} are possible")
    class_of = {category.id: index for index, category in enumerate(truth.categories)}
    if len(class_of) != len(truth.categories):
        raise DataError(f"{truth.path}: a category id is listed twice")
    return merge_tables(
        _intersect_image(image, predictions.images.get(image_id), class_of, truth.path, predictions.path)
        for image_id, image in truth.images.items()
    )


def names_without(first: CocoPanoptic, second: CocoPanoptic) -> list[str]:
    """Image ids of ``first`` that ``second`` lacks, sorted."""
    return sorted(set(first.images) - set(second.images))


def read_segment_ids(path: Path) -> npt.NDArray[np.int32]:
    """Decode a panoptic picture: (H, W) int32 segment ids, 0 where void.

    Raises:
        DataError: The file is missing, unreadable or not an 8-bit colour picture.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist, but the JSON file names it")
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise DataError(f"{path} cannot be decoded as a PNG")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (3, 4):
        raise DataError(
            f"{path} must be an 8-bit RGB picture whose colours are segment ids. "
            f"Got: {picture.shape} {picture.dtype}"
        )
    conversion = cv2.COLOR_BGR2RGBA if picture.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    # Four bytes a pixel in the order R, G, B, A are one little-endian number; A is cut off.
    packed = np.ascontiguousarray(cv2.cvtColor(picture, conversion)).view("<u4")[..., 0]
    ids: npt.NDArray[np.int32] = (packed & ID_BITS).astype(np.int32)
    return ids


def _image(entry: dict[str, Any], folder: Path) -> CocoImage:
    segments = tuple(
        CocoSegment(
            int(segment["id"]),
            int(segment["category_id"]),
            bool(segment.get("iscrowd", 0)),
            int(segment["area"]) if "area" in segment else None,
        )
        for segment in entry["segments_info"]
    )
    return CocoImage(str(entry["image_id"]), folder / str(entry["file_name"]), segments)


def _intersect_image(
    truth: CocoImage,
    prediction: CocoImage | None,
    class_of: Mapping[int, int],
    truth_json: Path,
    predicted_json: Path,
) -> IntersectionTable:
    true_ids = read_segment_ids(truth.picture)
    if prediction is None:
        (true_values,), n_pixels = count_tuples(true_ids)
        predicted = (np.full(len(n_pixels), NO_PREDICTION, np.int64), np.zeros(len(n_pixels), np.int64))
    else:
        predicted_ids = read_segment_ids(prediction.picture)
        if true_ids.shape != predicted_ids.shape:
            raise ShapeError(
                f"image {truth.image_id}: prediction and ground truth must have one size (H, W). Got: "
                f"{prediction.picture} {predicted_ids.shape}, {truth.picture} {true_ids.shape}"
            )
        (true_values, predicted_values), n_pixels = count_tuples(true_ids, predicted_ids)
        predicted = _name_segments(predicted_values, n_pixels, prediction, class_of, predicted_json)[:2]
    true_class, true_instance, is_crowd = _name_segments(true_values, n_pixels, truth, class_of, truth_json)
    return build_table(
        (truth.image_id,),
        image=np.zeros(len(n_pixels), np.int64),
        predicted_class=predicted[0],
        predicted_instance=predicted[1],
        true_class=true_class,
        true_instance=true_instance,
        is_crowd=is_crowd,
        n_pixels=n_pixels,
    )


def _name_segments(
    ids: npt.NDArray[np.int64],
    n_pixels: npt.NDArray[np.int64],
    image: CocoImage,
    class_of: Mapping[int, int],
    origin: Path,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Class, instance and crowd flag of each row, after checking the picture against the JSON file."""
    values, row_value = np.unique(ids, return_inverse=True)
    areas = dict(zip(values.tolist(), np.bincount(row_value, weights=n_pixels).astype(int).tolist()))
    areas.pop(0, None)
    listed = {segment.id: (position, segment) for position, segment in enumerate(image.segments, start=1)}
    where = f"{origin}, image {image.image_id}, picture {image.picture}"
    if len(listed) != len(image.segments):
        raise DataError(f"{where}: a segment id is listed twice in segments_info")
    if unlisted := sorted(set(areas) - set(listed)):
        raise DataError(f"{where}: ids {_some(unlisted)} are in the picture but not in segments_info")
    if absent := sorted(set(listed) - set(areas)):
        raise DataError(f"{where}: ids {_some(absent)} are in segments_info but have no pixel in the picture")
    columns = np.zeros((len(values), 3), np.int64)
    columns[:, 0] = VOID
    for row, value in enumerate(values.tolist()):
        if value == 0:
            continue
        position, segment = listed[value]
        if segment.category_id not in class_of:
            raise DataError(
                f"{where}: segment {value} has category {segment.category_id}, which the ground truth "
                "does not list"
            )
        if segment.area is not None and segment.area != areas[value]:
            raise DataError(
                f"{where}: segment {value} should have {segment.area} pixels. Got: {areas[value]}; the "
                "picture and the JSON file do not belong together"
            )
        columns[row] = class_of[segment.category_id], position, segment.is_crowd
    of_row = columns[row_value]
    return of_row[:, 0], of_row[:, 1], of_row[:, 2].astype(np.bool_)


def _some(ids: list[int]) -> str:
    more = f" and {len(ids) - SHOWN_NAMES} more" if len(ids) > SHOWN_NAMES else ""
    return ", ".join(map(str, ids[:SHOWN_NAMES])) + more
