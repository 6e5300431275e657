"""BDD100K panoptic truth in Scalabel form: a JSON of frames whose labels are RLE masks or polygons.

``labels/pan_seg/polygons/pan_seg_<split>.json`` (or the same under ``rles``), images as the adapter ``bdd`` has them. A
file is a list of frames, or a mapping with ``frames`` and ``config``. Labels are painted in the order of the file, so
that later ones cover earlier ones; pixels of no label are unlabeled (0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.data.adapters.bdd import FIRST_THING, find_image
from gestalt.data.coco_runs import decode_runs
from gestalt.data.label_spaces import raw_ids_by_name
from gestalt.data.polygons import paint_outlines
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap

FOLDERS = ("polygons", "rles")
# Of every picture of BDD100K; files may say otherwise.
USUAL_SIZE = (720, 1280)
# Names of void in labels: no category of the data set, so that maps that have it can be written too.
VOID_NAME = "void"
LARGEST_INSTANCE = np.iinfo(np.uint16).max
# No JPEG has more rows or columns.
LARGEST_LENGTH = np.iinfo(np.uint16).max
DECODER, NOT_SPACE = json.JSONDecoder(), re.compile(r"[^ \t\n\r]")


@dataclass(frozen=True)
class BddScalabelTruth:
    """Options of the ground truth.

    Attributes:
        split: ``train`` or ``val``.
        json: The JSON file, relative to the root; empty for the data set's own place.
        crowd_is_group: As of the adapter ``bdd``.
        skip_unknown: Leave out labels of categories that the panoptic data set does not have.
    """

    split: str = "val"
    json: str = ""
    crowd_is_group: bool = False
    skip_unknown: bool = False


@dataclass(frozen=True)
class ScalabelLabel:
    """One label of a frame: what its pixels become, and the ``rle`` or the ``poly2d`` of the file that says which."""

    name: str
    class_id: int
    instance: int
    rle: Mapping[str, Any] | None
    polygons: Sequence[Mapping[str, Any]]


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Frames in the order of the file.

    Objects keep their ids where all of the file are numbers that fit 16 bits (0 means none, as in bitmasks). Other ids
    are numbered as the data set's tools do for bitmasks: from 31, the first number after stuff, in the order of the
    labels; the objects of a video go on with the number they have.

    Raises:
        DataError: The file is missing, not in Scalabel form, or uses a category that is not known.
    """
    settings = parse_options(BddScalabelTruth, options, "bdd_scalabel")
    path = _find_json(root, settings)
    frames, config = read_scalabel(path)
    numbers = _Numbers(_keeps_ids(frames))
    for frame in frames:
        name, video = str(frame["name"]), str(frame.get("videoName") or "")
        try:
            labels = tuple(_labels(frame, video, numbers, settings, path))
            size = _size(frame.get("size") or config.get("imageSize"), path)
            number = int(frame.get("frameIndex") or 0)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path}, frame {name} is not in Scalabel form: {error!r}") from error
        stem = Path(name).stem
        yield GroundTruthFrame(
            safe_id(stem),
            find_image(root / "images" / "10k" / settings.split, stem),
            path,
            partial(paint_labels, labels, size, f"{path}, frame {name}"),
            video,
            number,
        )


def read_scalabel(path: Path) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """Frames and the config (empty where there is none) of a Scalabel file.

    Vertices become arrays frame by frame: as lists of numbers the polygons of a training split are gigabytes.

    Raises:
        DataError: The file is missing, no JSON, or not in this form.
    """
    form = "must be a list of frames, each with a name, or a mapping with such `frames`"
    try:
        # Some editors put a byte order mark first.
        text = path.read_text(encoding="utf-8-sig")
        start = _skip_space(text, 0)
        if text[start : start + 1] not in ("[", "{"):
            raise DataError(f"{path} is not in Scalabel form: it {form}")
        content: dict[str, Any] = {}
        if text[start] == "[":
            content["frames"], end = _decode_frames(text, start)
        else:
            content, end = _decode_mapping(text, start)
        if (rest := _skip_space(text, end)) < len(text):
            raise json.JSONDecodeError("expected the end", text, rest)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; the option json names another file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; it must be a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON, or cut short: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not in Scalabel form: it {form}. Got: {error!r}") from error
    if not isinstance(content.get("frames"), list):
        raise DataError(f"{path} is not in Scalabel form: it {form}")
    return content["frames"], content.get("config") or {}


def _decode_mapping(text: str, start: int) -> tuple[dict[str, Any], int]:
    """A JSON mapping that starts at ``start``, its ``frames`` one by one, and the place after it."""
    content: dict[str, Any] = {}
    place = _skip_space(text, start + 1)
    while text[place : place + 1] != "}":
        key, place = DECODER.raw_decode(text, place)
        place = _skip_space(text, place)
        if text[place : place + 1] != ":":
            raise json.JSONDecodeError("expected ':'", text, place)
        place = _skip_space(text, place + 1)
        if key == "frames" and text[place : place + 1] == "[":
            content[key], place = _decode_frames(text, place)
        else:
            content[key], place = DECODER.raw_decode(text, place)
        place = _next_item(text, place, "}")
    return content, place + 1


def _decode_frames(text: str, start: int) -> tuple[list[dict[str, Any]], int]:
    """Frames of a JSON list that starts at ``start``, and the place after it."""
    frames = []
    place = _skip_space(text, start + 1)
    while text[place : place + 1] != "]":
        frame, place = DECODER.raw_decode(text, place)
        frames.append(_pack_polygons(frame))
        place = _next_item(text, place, "]")
    return frames, place + 1


def _next_item(text: str, place: int, end: str) -> int:
    """Where the next item starts, or the end stands."""
    place = _skip_space(text, place)
    if text[place : place + 1] == ",":
        return _skip_space(text, place + 1)
    if text[place : place + 1] != end:
        raise json.JSONDecodeError(f"expected ',' or {end!r}", text, place)
    return place


def _skip_space(text: str, place: int) -> int:
    found = NOT_SPACE.search(text, place)
    return found.start() if found else len(text)


def _pack_polygons(frame: dict[str, Any]) -> dict[str, Any]:
    """The frame with vertices as arrays; those that are no list of points stay for the reader to complain about."""
    str(frame["name"])
    for label in frame.get("labels") or ():
        for polygon in label.get("poly2d") or ():
            with suppress(KeyError, TypeError, ValueError):
                polygon["vertices"] = np.array(polygon["vertices"], np.float64)
    return frame


def paint_labels(labels: Sequence[ScalabelLabel], size: tuple[int, int], where: str) -> PanopticMap:
    """Paint the labels of a frame over each other.

    Args:
        labels: In the order of painting.
        size: (H, W) of the map.
        where: For messages.

    Raises:
        DataError: A mask is broken, or of another size.
    """
    semantic, instance = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    for are_masks, neighbours in groupby(labels, key=lambda label: label.rle is not None):
        members = list(neighbours)
        if not are_masks:
            positions = _paint_polygons(members, size, where)
            inside = positions > 0
            semantic[inside] = np.array([0, *(label.class_id for label in members)], np.uint8)[
                positions[inside]
            ]
            instance[inside] = np.array([0, *(label.instance for label in members)], np.uint16)[
                positions[inside]
            ]
            continue
        for label in members:
            inside = _decode_mask(label, size, where)
            semantic[inside] = label.class_id
            instance[inside] = label.instance
    return PanopticMap(semantic, instance)


def _paint_polygons(
    labels: Sequence[ScalabelLabel], size: tuple[int, int], where: str
) -> npt.NDArray[np.int32]:
    """(H, W) int32, position of the label on top, from 1; 0 where none is."""
    try:
        outlines = [
            [(np.array(entry["vertices"], np.float64), str(entry["types"])) for entry in label.polygons]
            for label in labels
        ]
        return paint_outlines(outlines, size)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} has a broken polygon: {error!r}") from error


def _decode_mask(label: ScalabelLabel, size: tuple[int, int], where: str) -> npt.NDArray[np.bool_]:
    """(H, W) bool, the pixels of an RLE label."""
    height, width = size
    rle = label.rle or {}
    try:
        if tuple(rle["size"]) != size:
            raise DataError(f"the mask must be of {size}. Got: {tuple(rle['size'])}")
        lengths = decode_runs(str(rle["counts"]), height * width)
    except (DataError, KeyError, TypeError) as error:
        raise DataError(f"{where}: label {label.name} has a broken mask: {error}") from error
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


class _Numbers:
    """Instances of labels; see ``find_truth``."""

    def __init__(self, keeps_ids: bool) -> None:
        self._keeps_ids = keeps_ids
        self._of_video: dict[str, dict[str, int]] = {}

    def of(self, label_id: str, video: str, in_frame: int) -> int:
        """The instance of an object, the ``in_frame``-th (from 0) of its frame."""
        if self._keeps_ids:
            return int(label_id)
        if not video:
            return FIRST_THING + in_frame
        known = self._of_video.setdefault(video, {})
        return known.setdefault(label_id, FIRST_THING + len(known))


def _labels(
    frame: Mapping[str, Any], video: str, numbers: _Numbers, settings: BddScalabelTruth, path: Path
) -> Iterator[ScalabelLabel]:
    known = {**raw_ids_by_name("bdd"), VOID_NAME: VOID}
    n_objects = 0
    for entry in frame.get("labels") or ():
        category, rle, polygons = str(entry.get("category")), entry.get("rle"), entry.get("poly2d") or ()
        if rle is None and not polygons:
            continue
        if category not in known and not settings.skip_unknown:
            raise DataError(
                f"{path}, frame {frame['name']}: {category!r} is no category of BDD100K panoptic; the option "
                "skip_unknown leaves such labels out"
            )
        class_id = known.get(category, 0)
        if class_id == 0:
            continue
        instance = 0
        if FIRST_THING <= class_id < VOID:
            instance = numbers.of(str(entry["id"]), video, n_objects)
            n_objects += 1
        marks = entry.get("attributes") or {}
        if settings.crowd_is_group and (marks.get("crowd") or marks.get("ignored")):
            class_id, instance = class_id if class_id >= FIRST_THING else VOID, 0
        yield ScalabelLabel(f"{entry.get('id')} ({category})", class_id, instance, rle, polygons)


def _keeps_ids(frames: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the ids of all objects are numbers that can be instances."""
    raw_ids = raw_ids_by_name("bdd")
    ids = {
        str(entry.get("id"))
        for frame in frames
        for entry in frame.get("labels") or ()
        if raw_ids.get(str(entry.get("category")), 0) >= FIRST_THING
    }
    return all(text.isdecimal() and int(text) <= LARGEST_INSTANCE for text in ids)


def _find_json(root: Path, settings: BddScalabelTruth) -> Path:
    if settings.json:
        return root / settings.json
    candidates = [
        root / "labels" / "pan_seg" / folder / f"pan_seg_{settings.split}.json" for folder in FOLDERS
    ]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _size(entry: Any, path: Path) -> tuple[int, int]:
    if entry is None:
        return USUAL_SIZE
    try:
        size = int(entry["height"]), int(entry["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        size = (0, 0)
    if not all(0 < length <= LARGEST_LENGTH for length in size):
        raise DataError(
            f"{path}: a size must have a height and a width, 1 to {LARGEST_LENGTH}. Got: {entry!r}"
        )
    return size
