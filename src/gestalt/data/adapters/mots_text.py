"""MOTS as text: ``instances_txt/<sequence>.txt`` or, as MOTSChallenge delivers it, ``train/MOTS20-<nr>/gt/gt.txt``.

A line is an object in a frame: ``frame id class height width runs``, the mask in COCO's run-length encoding. Frames
without objects have no line, and count: where images are found, every image is an annotated frame; otherwise
``frames.txt`` says which frames there are (``sequence first last height width``, the last one included); without
both they are those between the first and the last line. Images are looked for where the adapter ``mots`` does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.adapters.mots import (
    IGNORED_CLASS,
    IMAGE_SUFFIXES,
    MotsTruth,
    choose_sequences,
    find_image,
    from_object_ids,
    image_folders,
)
from gestalt.data.coco_runs import IntArray, decode_runs
from gestalt.data.images import inspect_image
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError, name_some
from gestalt.panoptic import INSTANCES_PER_CLASS, PanopticMap, UInt16Array

FRAMES_FILE = "frames.txt"
FIELDS = ("frame", "id", "class", "height", "width", "runs")
LARGEST_ID = np.iinfo(np.uint16).max
# Frames are called by six digits; a number beyond is a mistake that would cost memory.
LAST_FRAME = 999_999
WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class ObjectLine:
    """One object in one frame: a line of the file.

    Attributes:
        line: Its number, from 1.
        object_id: ``class * 1000 + track``.
        runs: The mask, run-length encoded.
    """

    line: int
    object_id: int
    runs: str


@dataclass(frozen=True)
class SequenceText:
    """A file of one sequence.

    Attributes:
        path: The file.
        size: (H, W) of its frames; None where no line says it.
        objects: Of each frame that has any.
    """

    path: Path
    size: tuple[int, int] | None
    objects: Mapping[int, tuple[ObjectLine, ...]]


@dataclass(frozen=True)
class SequenceFrames:
    """Which frames a sequence has: a line of ``frames.txt``."""

    first: int
    last: int
    size: tuple[int, int]


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of all sequences, those without any object among them.

    Raises:
        DataError: A line is not what it should be, nothing says how large the frames of a sequence are, or a sequence
            that is asked for is not there.
    """
    wanted = parse_options(MotsTruth, options, "mots_text").sequences
    listed = read_frames_file(root / FRAMES_FILE)
    files = _files(root, listed)
    for sequence in sorted(choose_sequences(files, wanted, root)):
        path = files[sequence]
        text = read_sequence(path)
        images = _numbered_images(root, sequence)
        numbers, size = _frames_of(text, images, listed.get(sequence))
        for number in numbers:
            yield GroundTruthFrame(
                safe_id(f"{sequence}_{number:06d}"),
                images[number] if number in images else find_image(root, sequence, f"{number:06d}"),
                path,
                partial(read_objects, path, size, text.objects.get(number, ())),
                sequence,
                number,
            )


def read_sequence(path: Path) -> SequenceText:
    """Parse the file of a sequence; masks are left encoded.

    Raises:
        DataError: A line is not what it should be; the message names file and line.
    """
    size: tuple[int, int] | None = None
    objects: dict[int, dict[int, ObjectLine]] = defaultdict(dict)
    ignored: dict[int, list[ObjectLine]] = defaultdict(list)
    for line, content in _lines(path):
        frame, object_id, class_id, *stated_size = _whole_numbers(
            content, len(FIELDS) - 1, FIELDS, path, line
        )
        if object_id // INSTANCES_PER_CLASS != class_id or class_id == 0 or object_id > LARGEST_ID:
            raise DataError(
                f"{path}, line {line}: the id must be class * {INSTANCES_PER_CLASS} + track, the class from 1 on and "
                f"the id at most {LARGEST_ID}. Got: id {object_id} and class {class_id}"
            )
        if frame > LAST_FRAME:
            raise DataError(f"{path}, line {line}: frames are 0 to {LAST_FRAME}. Got: {frame}")
        height, width = stated_size
        size = size or (height, width)
        if size != (height, width) or 0 in size:
            raise DataError(
                f"{path}, line {line}: all frames of a sequence must have one size (rows, columns), above 0. "
                f"Got: {(height, width)} after {size}"
            )
        found = ObjectLine(line, object_id, content[-1])
        if class_id == IGNORED_CLASS:
            ignored[frame].append(found)
        elif (before := objects[frame].setdefault(object_id, found)) is not found:
            raise DataError(
                f"{path}, line {line}: object {object_id} is in frame {frame} already, see line {before.line}"
            )
    frames = {number: (*objects[number].values(), *ignored[number]) for number in {*objects, *ignored}}
    return SequenceText(path, size, frames)


def read_objects(path: Path, size: tuple[int, int], objects: tuple[ObjectLine, ...]) -> PanopticMap:
    """The map of one frame.

    Args:
        path: The file, for messages.
        size: (H, W) of the frame.
        objects: Its lines.

    Raises:
        DataError: A mask is broken or of another size, or two masks share pixels.
    """
    height, width = size
    # All masks first: a size that is wrong is noticed before an array of that size is made.
    decoded = [_decode(entry, height * width, path) for entry in objects]
    ignored = np.zeros(height * width, np.bool_)
    starts, ends, owners = ([np.zeros(0, np.int64)] for _ in range(3))
    for place, (entry, lengths) in enumerate(zip(objects, decoded, strict=True)):
        if entry.object_id // INSTANCES_PER_CLASS == IGNORED_CLASS:
            ignored |= np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
            continue
        borders = np.cumsum(lengths)
        first, last = borders[:-1:2], borders[1::2]
        has_pixels = last > first
        starts.append(first[has_pixels])
        ends.append(last[has_pixels])
        owners.append(np.full(int(has_pixels.sum()), place))
    runs = np.concatenate(starts), np.concatenate(ends), np.concatenate(owners)
    ids = _paint(*runs, objects, path, len(ignored))
    if (shared := ids[ignored]).any():
        line = next(entry.line for entry in objects if entry.object_id == shared.max())
        raise DataError(
            f"{path}, line {line}: object {shared.max()} and an ignored region share pixels; masks of a frame must "
            "not overlap"
        )
    ids[ignored] = IGNORED_CLASS * INSTANCES_PER_CLASS
    return from_object_ids(np.ascontiguousarray(ids.reshape(width, height).T))


def read_frames_file(path: Path) -> dict[str, SequenceFrames]:
    """Which frames each sequence has, by its name; nothing where there is no such file.

    Raises:
        DataError: A line is not what it should be.
    """
    if not path.exists():
        return {}
    fields = ("sequence", "first", "last", "height", "width")
    listed = {}
    for line, content in _lines(path):
        first, last, height, width = _whole_numbers(content, 0, fields, path, line)
        if not first <= last <= LAST_FRAME or 0 in (height, width):
            raise DataError(
                f"{path}, line {line}: no frames within 0 to {LAST_FRAME}, or no pixels, in {' '.join(content)!r}"
            )
        listed[content[0]] = SequenceFrames(first, last, (height, width))
    return listed


def _files(root: Path, listed: Mapping[str, SequenceFrames]) -> dict[str, Path]:
    files = {path.stem: path for path in (root / "instances_txt").glob("*.txt")}
    for path in (root / "train").glob("MOTS20-*/gt/gt.txt"):
        # The pictures call sequence MOTS20-02 0002; so do frame ids.
        files.setdefault(f"00{path.parts[-3].removeprefix('MOTS20-')}", path)
    if absent := sorted(set(listed) - set(files)):
        raise DataError(f"{root / FRAMES_FILE} lists {name_some(absent)}, which have no annotation file")
    return files


def _numbered_images(root: Path, sequence: str) -> dict[int, Path]:
    for folder in image_folders(root, sequence):
        found = {
            int(path.stem): path
            for path in sorted(folder.glob("*"))
            if path.suffix in IMAGE_SUFFIXES and path.stem.isdigit()
        }
        if found:
            return found
    return {}


def _frames_of(
    text: SequenceText, images: Mapping[int, Path], listed: SequenceFrames | None
) -> tuple[list[int], tuple[int, int]]:
    """Numbers of the frames of a sequence, and their size."""
    if listed:
        numbers = list(range(listed.first, listed.last + 1))
    elif images:
        numbers = sorted(images)
    else:
        numbers = list(range(min(text.objects, default=0), max(text.objects, default=-1) + 1))
    if strangers := sorted(set(text.objects) - set(numbers)):
        line = text.objects[strangers[0]][0].line
        raise DataError(
            f"{text.path}, line {line}: frame {strangers[0]} does not exist; "
            f"{FRAMES_FILE if listed else 'the folder of images'} has {len(numbers)} frames, "
            f"{numbers[0]} to {numbers[-1]}"
        )
    if listed and text.size not in (None, listed.size):
        raise DataError(
            f"{text.path} has frames of {text.size}, {FRAMES_FILE} of {listed.size} (rows, columns)"
        )
    size = text.size or (listed.size if listed else inspect_image(images[numbers[0]]) if images else None)
    if size is None:
        raise DataError(
            f"{text.path} has no line, so nothing says which frames there are; add the images, or a line "
            f"`{text.path.stem} first last height width` to {FRAMES_FILE} beside the folder"
        )
    return numbers, size


def _paint(
    starts: IntArray,
    ends: IntArray,
    owners: IntArray,
    objects: tuple[ObjectLine, ...],
    path: Path,
    n_pixels: int,
) -> UInt16Array:
    """(n_pixels,) uint16 ids of all pixels, column by column, from the runs of the objects."""
    order = np.argsort(starts, kind="stable")
    starts, ends, owners = starts[order], ends[order], owners[order]
    overlaps = np.flatnonzero(starts[1:] < ends[:-1])
    if len(overlaps):
        one, other = objects[owners[overlaps[0]]], objects[owners[overlaps[0] + 1]]
        raise DataError(
            f"{path}, line {max(one.line, other.line)}: objects {one.object_id} and {other.object_id} (line "
            f"{min(one.line, other.line)}) share pixels; masks of a frame must not overlap"
        )
    # Background before each run and after the last one.
    lengths = np.diff(np.stack([starts, ends], axis=-1).ravel(), prepend=0, append=n_pixels)
    ids = np.zeros(len(lengths), np.uint16)
    ids[1::2] = np.array([entry.object_id for entry in objects], np.uint16)[owners]
    return np.repeat(ids, lengths)


def _decode(entry: ObjectLine, n_pixels: int, path: Path) -> IntArray:
    try:
        return decode_runs(entry.runs, n_pixels)
    except DataError as error:
        raise DataError(f"{path}, line {entry.line}: object {entry.object_id}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    for line, text in enumerate(content.splitlines(), start=1):
        if text.strip():
            yield line, text.split()


def _whole_numbers(
    content: list[str], text: int, fields: tuple[str, ...], path: Path, line: int
) -> list[int]:
    """All fields of a line as numbers, without the one in place ``text``."""
    numbers = content[:text] + content[text + 1 :]
    if len(content) != len(fields) or not all(WHOLE_NUMBER.fullmatch(entry) for entry in numbers):
        raise DataError(
            f"{path}, line {line}: expected `{' '.join(fields)}`, whole numbers but for {fields[text]}. "
            f"Got: {' '.join(content)[:60]!r}"
        )
    return [int(entry) for entry in numbers]
