"""Waymo panoptic labels: the TFRecord files as they are delivered, or converted PNGs.

A root with ``*.tfrecord`` files, in it or in folders below, is read directly; ground truth and images are inside.
Converted, it holds ``images/<frame>.jpg`` (or png), ``semantic/<frame>.png`` (8 bit) and ``instance/<frame>.png`` (16
bit); where there is a ``sequences.json``, it says which frame belongs to which video.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.images import read_png
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.segments import list_segments
from gestalt.data.source import parse_options
from gestalt.data.waymo_frames import CAMERAS, EmbeddedJpeg, LabelledImage, find_labels
from gestalt.data.waymo_instances import LARGEST_ID, UNDEFINED, number_instances, read_panoptic
from gestalt.errors import ConfigError, DataError, name_some
from gestalt.panoptic import INSTANCES_PER_CLASS, VOID, PanopticMap

CONVERTED = "semantic"
SEQUENCES = "sequences.json"
MAIN_CAMERA = "front"
VALIDATION_FRAMES = Path(__file__).parents[1] / "splits" / "waymo_validation_frames.txt"
# What `frames` lists: segment and microseconds.
FrameKey = tuple[str, int]
# <segment>_<microseconds>[_<camera>]
FRAME_NAME = re.compile(rf"(\w+)_(\d{{16}})((?:_(?:{'|'.join(CAMERAS)}))?)")
SEGMENT_FILE = re.compile(r"segment-(\w+?)_with_camera_labels")


@dataclass(frozen=True)
class WaymoTruth:
    """Options of the ground truth in TFRecord files; converted PNGs have none.

    Attributes:
        camera: ``front``, ``front_left``, ``front_right``, ``side_left`` or ``side_right``.
        frames: Which frames count, all of which must be there: ``validation`` for the 1930 of the data set's own list,
            or a file below the root with a line ``segment,microseconds`` for each. Without it, all labelled frames.
        instance_ids: ``video``: an object has one id in all frames of its sequence. ``image``: ids are the label's
            values, which each image draws anew.
    """

    camera: str = MAIN_CAMERA
    frames: str = ""
    instance_ids: str = "video"


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames, video by video.

    Raises:
        ConfigError: An option is unknown or has a value that it cannot have.
        DataError: A file is damaged, or frames of the list are missing.
    """
    settings = parse_options(WaymoTruth, options, "waymo")
    if (root / CONVERTED).is_dir():
        if settings != WaymoTruth():
            raise ConfigError(
                f"source.yaml: options of the adapter waymo are for TFRecord files, and {root} holds converted PNGs. "
                f"Got: {', '.join(sorted(options))}"
            )
        return _find_converted(root)
    for name, value, known in (
        ("camera", settings.camera, tuple(CAMERAS)),
        ("instance_ids", settings.instance_ids, ("video", "image")),
    ):
        if value not in known:
            raise ConfigError(
                f"source.yaml: option {name} of the adapter waymo must be one of {', '.join(known)}. Got: {value!r}"
            )
    return _find_recorded(root, settings)


def _find_recorded(root: Path, settings: WaymoTruth) -> Iterator[GroundTruthFrame]:
    listed = VALIDATION_FRAMES if settings.frames == "validation" else root / settings.frames
    wanted = _read_frame_list(listed) if settings.frames else None
    files = [path for path in sorted(root.rglob("*.tfrecord")) if wanted is None or _may_hold(path, wanted)]
    labels = [label for path in files for label in find_labels(path)]
    if wanted is not None:
        _check_complete(wanted, labels, settings.camera, listed)
    elif files and not any(label.camera == settings.camera for label in labels):
        seen = ", ".join(
            f"{name} {count}" for name, count in Counter(label.camera for label in labels).items()
        )
        raise DataError(
            f"no frame in {len(files)} TFRecord files under {root} has a panoptic label of camera {settings.camera} "
            f"(labels of cameras: {seen or 'none'}); labels came with version 1.4.0 of the data set"
        )
    for sequence, members in _sequences(labels).items():
        members.sort(key=lambda label: label.timestamp_us)
        numbers = number_instances(members) if settings.instance_ids == "video" else [None] * len(members)
        pairs = [pair for pair in zip(members, numbers) if pair[0].camera == settings.camera]
        for number, (label, instances) in enumerate(pairs):
            if wanted is None or (label.context, label.timestamp_us) in wanted:
                yield _recorded_frame(label, sequence, number, instances)


def _recorded_frame(
    label: LabelledImage, sequence: str, number: int, instances: Mapping[int, int] | None
) -> GroundTruthFrame:
    view = "" if label.camera == MAIN_CAMERA else f"_{label.camera}"
    return GroundTruthFrame(
        safe_id(f"{label.context}_{label.timestamp_us}{view}"),
        label.record.path,
        label.record.path,
        partial(read_panoptic, label.record, label.camera, instances),
        f"{sequence}{view}",
        number,
        EmbeddedJpeg(label.record, label.camera),
    )


def _sequences(labels: Sequence[LabelledImage]) -> dict[str, list[LabelledImage]]:
    """Labels by sequence: a segment, or its parts where it was labelled in several."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        parts[label.context].add(label.sequence_id)
    found: defaultdict[str, list[LabelledImage]] = defaultdict(list)
    for label in labels:
        is_whole = len(parts[label.context]) == 1
        found[safe_id(label.context if is_whole else f"{label.context}-{label.sequence_id}")].append(label)
    return dict(sorted(found.items()))


def _read_frame_list(path: Path) -> frozenset[FrameKey]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; the option frames is `validation`, or names a file below the root"
        )
    wanted = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        segment, _, timestamp = line.strip().partition(",")
        if not timestamp.isdecimal():
            raise DataError(f"{path}, line {number} must be `segment,microseconds`. Got: {line!r}")
        wanted.add((segment, int(timestamp)))
    return frozenset(wanted)


def _may_hold(path: Path, wanted: frozenset[FrameKey]) -> bool:
    """Whether a file can hold one of the frames: those with the data set's names say which segment they are."""
    named = SEGMENT_FILE.match(path.name)
    return named is None or named[1] in {segment for segment, _ in wanted}


def _check_complete(
    wanted: frozenset[FrameKey], labels: Sequence[LabelledImage], camera: str, path: Path
) -> None:
    found = {(label.context, label.timestamp_us) for label in labels if label.camera == camera}
    if missing := sorted(wanted - found):
        shown = name_some([f"{segment} at {timestamp}" for segment, timestamp in missing])
        raise DataError(
            f"{len(missing)} of the {len(wanted)} frames in {path} have no panoptic label of camera {camera} here: "
            f"{shown}; fetch their segments, or shorten the list"
        )


def _find_converted(root: Path) -> Iterator[GroundTruthFrame]:
    places = _read_sequences(root / SEQUENCES)
    n_seen: Counter[str] = Counter()
    for annotation in sorted((root / CONVERTED).glob("*.png")):
        frame_id = safe_id(annotation.stem)
        named = FRAME_NAME.fullmatch(frame_id)
        sequence = f"{named[1]}{named[3]}" if named else ""
        number = n_seen[sequence] if named else 0
        n_seen[sequence] += 1
        if places is not None:
            sequence, number = places.get(frame_id, ("", 0))
        png = root / "images" / annotation.name
        yield GroundTruthFrame(
            frame_id,
            png if png.exists() else png.with_suffix(".jpg"),
            annotation,
            partial(read_semantic_and_instance, annotation, root / "instance" / annotation.name),
            sequence,
            number,
        )


def _read_sequences(path: Path) -> dict[str, tuple[str, int]] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(frame_id): (str(place[0]), int(place[1])) for frame_id, place in content.items()}
    except (ValueError, AttributeError, TypeError, LookupError, OverflowError) as error:
        raise DataError(f"{path} must map frame ids to [sequence, number]: {error!r}") from error


def read_semantic_and_instance(semantic_path: Path, instance_path: Path) -> PanopticMap:
    """A semantic PNG and an instance PNG; the undefined class has no instance.

    Args:
        semantic_path: 8 or 16 bit, classes.
        instance_path: 8 or 16 bit: 0, numbers 1..999 that classes may share, or whole ids from 1000 on, which may not
            repeat.

    Returns:
        Instances keep their identity: number n of class c is ``c * 1000 + n``, whole ids stay what they are.

    Raises:
        DataError: A file is missing or broken, the two do not fit together, or two objects would have one id.
    """
    semantic, instance = read_png(semantic_path), read_png(instance_path)
    if semantic.ndim != 2 or semantic.shape != instance.shape:
        raise DataError(
            f"{semantic_path} and {instance_path} must have one channel and one size. "
            f"Got: {semantic.shape} and {instance.shape}"
        )
    if semantic.max(initial=0) > VOID:
        raise DataError(f"{semantic_path} must hold classes up to {VOID}. Got: {semantic.max()}")
    numbers = np.where(semantic == UNDEFINED, 0, instance).astype(np.uint16)
    stored = PanopticMap(semantic.astype(np.uint8), numbers)
    _check_ids(stored, instance_path)
    offsets = stored.semantic_map.astype(np.uint16) * np.uint16(INSTANCES_PER_CLASS)
    is_number = (numbers > 0) & (numbers < INSTANCES_PER_CLASS)
    return PanopticMap(stored.semantic_map, np.where(is_number, offsets + numbers, numbers))


def _check_ids(stored: PanopticMap, path: Path) -> None:
    segments = list_segments(stored)
    is_instance = segments.instance > 0
    classes, numbers = segments.class_id[is_instance], segments.instance[is_instance]
    ids = np.where(numbers < INSTANCES_PER_CLASS, classes * INSTANCES_PER_CLASS + numbers, numbers)
    if ids.max(initial=0) > LARGEST_ID:
        raise DataError(
            f"{path}: class * {INSTANCES_PER_CLASS} + number must be at most {LARGEST_ID}. Got: class "
            f"{classes[ids.argmax()]} with number {numbers[ids.argmax()]}"
        )
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{path}: {int((counts > 1).sum())} ids mean two objects, such as {values[counts > 1][0]}; write "
            f"numbers below {INSTANCES_PER_CLASS} for each class, or ids from there on that no two share"
        )
