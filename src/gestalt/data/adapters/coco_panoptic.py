"""COCO panoptic form: one JSON with ``images`` and ``annotations``, a folder of RGB PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.coco_files import (
    CocoAnnotation,
    CocoPanoptic,
    CocoSegment,
    read_coco_panoptic,
    read_segment_ids,
    segment_positions,
)
from gestalt.data.images import IMAGE_SUFFIXES
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap

LARGEST_INSTANCE = np.iinfo(np.uint16).max


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
class NamedSegment:
    """What the pixels of a segment become: a class, and an instance or 0."""

    class_id: int
    instance: int


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated images, in the order of their annotation files.

    Raises:
        DataError: The JSON is missing or not in COCO panoptic form.
    """
    settings = parse_options(CocoPanopticTruth, options, "coco_panoptic")
    content = read_coco_panoptic(root / settings.json, root / settings.annotations, is_complete=True)
    for annotation, read in readers(content, crowd_is_void=settings.crowd_is_void):
        stem = annotation.picture.stem
        yield GroundTruthFrame(
            safe_id(stem),
            _find_image(root / settings.images, annotation.image_name or f"{stem}.jpg"),
            annotation.picture,
            read,
            annotation.sequence,
            annotation.number,
        )


def readers(
    content: CocoPanoptic, *, crowd_is_void: bool
) -> Iterator[tuple[CocoAnnotation, partial[PanopticMap]]]:
    """Each annotation with what reads its picture.

    Objects are the segments of thing categories that are no crowds. They keep their ids as instances where all ids of
    the file fit 16 bits, so that an object of a video stays the same in all its frames; in other files, whose ids are
    colours drawn anew in each picture, they are numbered 1..N in ascending order of their ids.
    """
    things = content.thing_ids
    keeps_ids = all(
        segment.id <= LARGEST_INSTANCE
        for annotation in content.annotations
        for segment in annotation.segments
        if _is_object(segment, things)
    )
    for annotation in content.annotations:
        objects = sorted(segment.id for segment in annotation.segments if _is_object(segment, things))
        instances = {number: number if keeps_ids else place for place, number in enumerate(objects, start=1)}
        named = tuple(
            NamedSegment(
                VOID if segment.is_crowd and crowd_is_void else segment.category_id,
                instances.get(segment.id, 0) if _is_object(segment, things) else 0,
            )
            for segment in annotation.segments
        )
        yield annotation, partial(read_segments, annotation.picture, annotation.segments, named)


def read_segments(path: Path, segments: Sequence[CocoSegment], named: Sequence[NamedSegment]) -> PanopticMap:
    """A COCO panoptic PNG; pixels of no segment are void.

    Args:
        path: The PNG.
        segments: What the JSON lists.
        named: What each of them becomes.

    Raises:
        DataError: The PNG is missing, broken or not RGB, disagrees with the JSON, or a category does not fit 8 bits.
    """
    if strangers := [segment.category_id for segment in segments if not 0 <= segment.category_id < VOID]:
        raise DataError(f"{path}: categories must be 0..{VOID - 1}. Got: {strangers[0]}")
    positions = segment_positions(read_segment_ids(path), segments, path)
    classes = np.array([VOID, *(name.class_id for name in named)], np.uint8)
    instances = np.array([0, *(name.instance for name in named)], np.uint16)
    return PanopticMap(classes[positions], instances[positions])


def _is_object(segment: CocoSegment, things: frozenset[int]) -> bool:
    return segment.category_id in things and not segment.is_crowd


def _find_image(folder: Path, name: str) -> Path:
    """The image as the JSON calls it, or without the folders of its name, or of another kind."""
    named, flat = folder / name, folder / Path(name).name
    candidates = [named, flat, *(flat.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)]
    return next((path for path in candidates if path.is_file()), named)
