"""COCO panoptic form: one JSON with ``images`` and ``annotations``, a folder of RGB PNGs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.images import read_png
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID, PanopticMap, rgb_to_ids


@dataclass(frozen=True)
class CocoPanopticTruth:
    """Options of the ground truth.

    Attributes:
        json: The JSON file, relative to the root.
        annotations: Folder of the PNGs.
        images: Folder of the images.
        raw_ids: Data set whose raw ids the categories are.
        crowd_is_void: Make crowds void; otherwise they are pixels of their class without an instance.
    """

    json: str = "panoptic.json"
    annotations: str = "panoptic"
    images: str = "images"
    raw_ids: str = "cityscapes"
    crowd_is_void: bool = False


@dataclass(frozen=True)
class CocoSegment:
    """One entry of ``segments_info``."""

    id: int
    category_id: int
    is_thing: bool
    is_crowd: bool


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated images, in the order of their annotation files.

    Raises:
        DataError: The JSON is missing or not in COCO panoptic form.
    """
    settings = parse_options(CocoPanopticTruth, options, "coco_panoptic")
    path = root / settings.json
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        things = {entry["id"] for entry in content["categories"] if entry.get("isthing", 0)}
        images = {entry["id"]: entry["file_name"] for entry in content["images"]}
        entries = sorted(content["annotations"], key=lambda entry: str(entry["file_name"]))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not in COCO panoptic form: {error!r}") from error
    for entry in entries:
        annotation = root / settings.annotations / entry["file_name"]
        segments = tuple(
            CocoSegment(
                info["id"], info["category_id"], info["category_id"] in things, bool(info.get("iscrowd", 0))
            )
            for info in entry["segments_info"]
        )
        yield GroundTruthFrame(
            safe_id(annotation.stem),
            root / settings.images / Path(images.get(entry["image_id"], f"{annotation.stem}.jpg")).name,
            annotation,
            partial(read_segments, annotation, segments, crowd_is_void=settings.crowd_is_void),
        )


def read_segments(path: Path, segments: tuple[CocoSegment, ...], *, crowd_is_void: bool) -> PanopticMap:
    """A COCO panoptic PNG; pixels of no segment are void.

    Raises:
        DataError: The PNG is missing, broken or not RGB, holds a segment that is not listed, or a category
            does not fit 8 bits.
    """
    try:
        ids = rgb_to_ids(read_png(path))
    except ShapeError as error:
        raise DataError(f"{path}: {error}") from error
    semantic = np.full(ids.shape, VOID, np.uint8)
    instance = np.zeros(ids.shape, np.uint16)
    n_instances = 0
    for segment in segments:
        if not 0 <= segment.category_id < VOID:
            raise DataError(f"{path}: categories must be 0..{VOID - 1}. Got: {segment.category_id}")
        inside = ids == segment.id
        if segment.is_crowd and crowd_is_void:
            continue
        semantic[inside] = segment.category_id
        if segment.is_thing and not segment.is_crowd:
            n_instances += 1
            instance[inside] = n_instances
    unlisted = np.setdiff1d(ids, [0, *(segment.id for segment in segments)])
    if len(unlisted):
        raise DataError(f"{path} holds segment {unlisted[0]}, which the JSON does not list")
    return PanopticMap(semantic, instance)
