"""COCO panoptic files: the JSON of a folder of RGB PNGs, the segment ids of a picture, and whether the two agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.data.images import PNG_END, PNG_SIGNATURE, read_file
from gestalt.errors import DataError, name_some

# In the header of a PNG: the byte that says what a pixel is, and the kinds whose pixels are colours.
PNG_KIND_BYTE = 25
PNG_COLOUR_KINDS = (2, 3, 6)
MAX_BITS = 8
# What tells a segment from other entries of a JSON file.
SEGMENT_KEYS = {"id", "category_id"}
# Supercategory of what is annotated and no class of anybody.
VOID_KIND = "void"


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """One entry of ``categories``; those that are void are nobody's class."""

    id: int
    name: str
    is_thing: bool
    is_void: bool = False


@dataclass(frozen=True, slots=True)
class CocoSegment:
    """One entry of ``segments_info``; ``area`` and ``score`` are None where the file does not state them."""

    id: int
    category_id: int
    is_crowd: bool
    area: int | None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One entry of ``annotations`` with what ``images`` says about its image.

    Attributes:
        image_id: As in the file, as text.
        picture: The PNG of segment ids.
        segments: In the order of the file.
        image_name: File name of the image; empty where the file lists none.
        sequence: Piece of video, empty for single images.
        number: Place in the sequence.
    """

    image_id: str
    picture: Path
    segments: tuple[CocoSegment, ...]
    image_name: str = ""
    sequence: str = ""
    number: int = 0


@dataclass(frozen=True)
class CocoPanoptic:
    """A panoptic JSON file and its pictures.

    Attributes:
        path: The JSON file.
        categories: In the order of the file; empty for predictions that list none.
        annotations: Sorted by their pictures.
    """

    path: Path
    categories: tuple[CocoCategory, ...]
    annotations: tuple[CocoAnnotation, ...]

    @property
    def thing_ids(self) -> frozenset[int]:
        """Categories that are countable."""
        return frozenset(category.id for category in self.categories if category.is_thing)

    @cached_property
    def images(self) -> Mapping[str, CocoAnnotation]:
        """Annotations by image id."""
        return {annotation.image_id: annotation for annotation in self.annotations}


def read_coco_panoptic(path: Path, folder: Path | None = None, *, is_complete: bool = False) -> CocoPanoptic:
    """Read a panoptic JSON file; no picture is opened.

    Args:
        path: The JSON file.
        folder: Its pictures; beside the file if None.
        is_complete: Ask for ``images`` and for every category that is used; predictions of many tools have neither.

    Raises:
        DataError: The file is missing, no JSON, or lacks a field; a category is listed twice, or used and not listed;
            an image is annotated twice.
    """
    content = _read_json(path)
    folder = path.parent if folder is None else folder
    try:
        listed = content["categories"] if is_complete else content.get("categories", ())
        categories = tuple(
            CocoCategory(
                int(entry["id"]),
                str(entry.get("name", entry["id"])),
                bool(entry["isthing"]),
                entry.get("supercategory") == VOID_KIND,
            )
            for entry in listed
        )
        of_images = content["images"] if is_complete else content.get("images", ())
        images = {str(entry["id"]): entry for entry in of_images}
        annotations = [
            _annotation(entry, images.get(str(entry["image_id"]), {}), folder)
            for entry in content["annotations"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise _other_form(path, error) from error
    annotations.sort(key=lambda annotation: annotation.picture)
    known = Counter(category.id for category in categories)
    if double := [category_id for category_id, n in known.items() if n > 1]:
        raise DataError(f"{path}: a category must be listed once. Got twice: {name_some(double)}")
    if is_complete:
        used = {segment.category_id: entry for entry in annotations for segment in entry.segments}
        if strangers := sorted(set(used) - set(known)):
            raise DataError(
                f"{path}: every category must stand in `categories`. Got: {name_some(strangers)}, such as in "
                f"{used[strangers[0]].picture.name}"
            )
    times = Counter(entry.image_id for entry in annotations)
    if twice := [image_id for image_id, n in times.items() if n > 1]:
        raise DataError(f"{path}: {len(twice)} images are annotated twice, such as {name_some(twice)}")
    return CocoPanoptic(path, categories, tuple(annotations))


def read_segment_ids(path: Path) -> npt.NDArray[np.int32]:
    """Decode a panoptic picture: (H, W) int32 segment ids, id = R + 256 G + 65536 B, 0 where void.

    Raises:
        DataError: As for ``read_colours``.
    """
    colours = read_colours(path)
    ids = colours[..., 2].astype(np.int32)
    for channel in (1, 0):
        np.left_shift(ids, 8, out=ids)
        np.bitwise_or(ids, colours[..., channel], out=ids)
    return ids


def read_colours(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a panoptic picture: (H, W, 3) uint8 RGB whose colours are segment ids, R + 256 G + 65536 B.

    Raises:
        DataError: The file is missing, cut short, damaged or not an 8-bit colour PNG.
    """
    if not path.exists():
        raise DataError(f"missing image: {path} does not exist, but the JSON file names it")
    content = read_file(path)
    if not content.startswith(PNG_SIGNATURE) or len(content) <= PNG_KIND_BYTE:
        raise DataError(f"unreadable image: {path} is not a PNG ({len(content)} bytes)")
    bits, kind = content[PNG_KIND_BYTE - 1], content[PNG_KIND_BYTE]
    if bits > MAX_BITS or kind not in PNG_COLOUR_KINDS:
        what = "colour" if kind in PNG_COLOUR_KINDS else "grey"
        raise DataError(
            f"no COCO panoptic picture: {path} must be an 8-bit RGB picture whose colours are segment ids, R + 256 G "
            f"+ 65536 B (16-bit ids are another form, such as cityscapes). Got: {bits}-bit {what}; `gestalt data "
            "convert` makes the COCO form of others"
        )
    # Decoders fill what is missing with black, which would be void.
    if not content.rstrip(b"\0").endswith(PNG_END):
        raise DataError(f"unreadable image: {path} is cut short at {len(content)} bytes; fetch it again")
    colours = cv2.imdecode(
        np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if colours is None:
        raise DataError(f"unreadable image: {path} cannot be decoded as a PNG")
    return np.asarray(colours, np.uint8)


def segment_positions(
    ids: npt.NDArray[np.int32], segments: Sequence[CocoSegment], path: Path
) -> npt.NDArray[Any]:
    """The place in ``segments`` that each pixel's id has, from 1; JSON and picture are checked against each other.

    Args:
        ids: (H, W) int32 from ``read_segment_ids``.
        segments: What the JSON says.
        path: The picture, for messages.

    Returns:
        (H, W) of the smallest unsigned integer that holds them, 0 where void.

    Raises:
        DataError: A segment is listed twice, not listed, listed and not in the picture, or has another area.
    """
    numbers = [segment.id for segment in segments]
    if len(set(numbers)) != len(numbers) or not all(0 < number < 1 << 24 for number in numbers):
        raise DataError(
            f"JSON is no list of segments: {path}: ids must be above 0, fit 24 bits and be listed once each. "
            f"Got: {name_some(numbers)}"
        )
    largest = max(int(ids.max(initial=0)), *numbers, 0)
    # One lookup for all segments; of a table that is large and mostly zero only the few pages used are ever touched.
    table = np.zeros(largest + 1, np.min_scalar_type(len(segments)))
    table[numbers] = np.arange(1, len(segments) + 1)
    positions = table[ids]
    areas = np.bincount(positions.ravel(), minlength=len(segments) + 1)
    if areas[0] and (unlisted := np.unique(ids[(positions == 0) & (ids > 0)]).tolist()):
        what = "segment" if len(unlisted) == 1 else "segments"
        raise DataError(
            f"JSON and PNG disagree: {path} holds {what} {name_some(unlisted)}, which the JSON does not list"
        )
    if absent := [segment.id for segment, area in zip(segments, areas[1:].tolist(), strict=True) if not area]:
        raise DataError(
            f"JSON and PNG disagree: {path} has no pixel of {name_some(absent)}, which the JSON lists"
        )
    for segment, area in zip(segments, areas[1:].tolist(), strict=True):
        if segment.area not in (None, area):
            raise DataError(
                f"JSON and PNG disagree: {path}: segment {segment.id} should have {segment.area} pixels. "
                f"Got: {area}; picture and JSON file do not belong together"
            )
    return positions


def _read_json(path: Path) -> Any:
    """The content with every segment as a ``CocoSegment``."""
    try:
        # Some editors put a byte order mark first.
        return json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_shrink_segment)
    except FileNotFoundError:
        there = sorted(entry.name for entry in path.parent.glob("*.json"))
        raise DataError(
            f"{path} does not exist; JSON files in {path.parent}: {name_some(there) or 'none'}"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; it must be a JSON file") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON, or cut short: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise _other_form(path, error) from error


def _other_form(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not in COCO panoptic form: {error!r} is missing or of the wrong kind")


def _shrink_segment(entry: dict[str, Any]) -> Any:
    """A segment as soon as it is read: all of them as dictionaries would take ten times the memory."""
    if not entry.keys() >= SEGMENT_KEYS or "image_id" in entry:
        return entry
    return CocoSegment(
        int(entry["id"]),
        int(entry["category_id"]),
        bool(entry.get("iscrowd", 0)),
        int(entry["area"]) if "area" in entry else None,
        float(entry["score"]) if entry.get("score") is not None else None,
    )


def _annotation(entry: Mapping[str, Any], image: Mapping[str, Any], folder: Path) -> CocoAnnotation:
    segments = tuple(entry["segments_info"])
    for segment in segments:
        if not isinstance(segment, CocoSegment):
            raise KeyError(f"id or category_id of a segment of {entry['file_name']}")
    return CocoAnnotation(
        str(entry["image_id"]),
        folder / str(entry["file_name"]),
        segments,
        str(image.get("file_name", "")),
        str(image.get("sequence", "")),
        int(image.get("number", 0)),
    )
