"""Cityscapes: stereo sequences with camera files, and gtFine ground truth.

Video: ``leftImg8bit_sequence/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png``, the same under
``rightImg8bit_sequence``, and ``camera/<split>/<city>/..._camera.json`` of one frame of each snippet or more.
Truth: ``gtFine/<split>/<city>/..._gtFine_instanceIds.png``, images under ``leftImg8bit``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.adapters.sequence_pairs import (
    NumberedFrame,
    SequenceNames,
    broken_frames,
    list_folders,
    pair_frames,
)
from gestalt.data.calibration import read_cityscapes_camera
from gestalt.data.images import IMAGE_SUFFIXES, read_png
from gestalt.data.records import BrokenFrame, GroundTruthFrame, StereoPair, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID, PanopticMap, from_instance_ids

LEFT, RIGHT, CAMERA = "_leftImg8bit.png", "_rightImg8bit.png", "_camera.json"
TRUTH = "_gtFine_instanceIds.png"
# The annotated frame, which has the camera file, is the 20th of 30.
MAX_CALIBRATION_DISTANCE = 20


@dataclass(frozen=True)
class CityscapesVideo:
    """Options of the video.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        snippet_length: Frames of a snippet.
        frame_rate_hz: Of the cameras.
        monocular: There is one camera: right images are neither expected nor used.
    """

    split: str = "train"
    snippet_length: int = 30
    frame_rate_hz: float = 17.0
    monocular: bool = False


@dataclass(frozen=True)
class CityscapesTruth:
    """Options of the ground truth.

    Attributes:
        split: ``train``, ``val`` or ``test``; empty for all.
        raw_ids: Data set whose raw ids the classes are, where another one is written in this form.
    """

    split: str = ""
    raw_ids: str = "cityscapes"


def find_pairs(root: Path, options: Mapping[str, Any]) -> Iterator[StereoPair | BrokenFrame]:
    """Pairs of all snippets of a split.

    Frames of one sequence id are cut into snippets: where the frame numbers jump by at least half a snippet,
    and after every ``snippet_length`` numbers. Smaller jumps are gaps and are reported. Counting numbers, not
    files, a missing frame shifts nothing, and a subset of the frames of each snippet works.
    """
    settings = parse_options(CityscapesVideo, options, "cityscapes")
    videos = root / "leftImg8bit_sequence" / settings.split
    for city in list_folders(videos):
        sequences: dict[str, dict[int, NumberedFrame]] = defaultdict(dict)
        for left in sorted(city.glob(f"*{LEFT}")):
            sequence, _, number = left.name.removesuffix(LEFT).rpartition("_")
            name = left.name.removesuffix(LEFT) + RIGHT
            right = root / "rightImg8bit_sequence" / settings.split / city.name / name
            if number.isdigit():
                sequences[sequence][int(number)] = NumberedFrame(
                    int(number), left, None if settings.monocular else right
                )
        cameras = _cameras(root / "camera" / settings.split / city.name)
        for sequence, frames in sorted(sequences.items()):
            for snippet in cut_snippets(frames, settings.snippet_length):
                yield from _pairs_of_snippet(sequence, snippet, cameras.get(sequence, {}), settings)


def cut_snippets(frames: Mapping[int, NumberedFrame], length: int) -> list[dict[int, NumberedFrame]]:
    """Cut the frames of one sequence id into snippets of ``length`` frame numbers; see ``find_pairs``."""
    snippets: list[dict[int, NumberedFrame]] = []
    start, before = 0, None
    for number in sorted(frames):
        if before is None or number - before >= max(2, length / 2):
            start = number
            snippets.append({})
        elif number - start >= length:
            start += (number - start) // length * length
            snippets.append({})
        snippets[-1][number] = frames[number]
        before = number
    return snippets


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of gtFine."""
    settings = parse_options(CityscapesTruth, options, "cityscapes")
    truth = root / "gtFine"
    splits = [truth / settings.split] if settings.split else list_folders(truth)
    for annotation in sorted(path for split in splits for path in split.glob(f"*/*{TRUTH}")):
        split, city = annotation.parts[-3:-1]
        stem = annotation.name.removesuffix(TRUTH)
        image = find_image(root / "leftImg8bit" / split / city, stem)
        yield GroundTruthFrame(safe_id(stem), image, annotation, partial(read_instance_ids, annotation))


def find_image(folder: Path, frame_id: str) -> Path:
    """The left image of a frame: a PNG, as the data set has them, unless another kind is there."""
    usual = folder / f"{frame_id}{LEFT}"
    candidates = [usual, *(usual.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)]
    return next((path for path in candidates if path.is_file()), usual)


def read_instance_ids(path: Path) -> PanopticMap:
    """A 16-bit PNG in Cityscapes form: ``class``, or ``class * 1000 + n`` for an instance.

    Raises:
        DataError: The file is missing, broken or of another form.
    """
    array = read_png(path)
    if array.dtype == np.uint8 and (array == VOID).any():
        raise DataError(
            f"{path}: 16-bit ids were probably clipped to 8 bits, so that every object became {VOID}, which is void; "
            f"write them as 16-bit PNG, {VOID} too where it is meant"
        )
    try:
        return from_instance_ids(array)
    except (DataError, ShapeError) as error:
        raise DataError(f"{path}: {error}") from error


def _pairs_of_snippet(
    sequence: str, snippet: dict[int, NumberedFrame], cameras: Mapping[int, Path], settings: CityscapesVideo
) -> Iterator[StereoPair | BrokenFrame]:
    first = min(snippet)
    # The stem holds city, sequence and frame, which is the id that ground truth uses too.
    names = SequenceNames(f"{sequence}_{first:06d}", f"{sequence}_{{number:06d}}")
    nearest = min(cameras, key=lambda number: (_distance(number, snippet), number), default=None)
    if nearest is None or _distance(nearest, snippet) >= MAX_CALIBRATION_DISTANCE:
        reason = (
            f"missing calibration: no camera file of {sequence} is less than "
            f"{MAX_CALIBRATION_DISTANCE} frames away from every frame of the snippet that starts at {first}"
        )
        yield from broken_frames(snippet.values(), reason, names)
        return
    try:
        calibration = read_cityscapes_camera(cameras[nearest], monocular=settings.monocular)
    except DataError as error:
        yield from broken_frames(snippet.values(), str(error), names)
        return
    yield from pair_frames(snippet, calibration, names, time_step_s=1 / settings.frame_rate_hz)


def _distance(number: int, snippet: Mapping[int, NumberedFrame]) -> int:
    return max(abs(number - member) for member in snippet)


def _cameras(folder: Path) -> dict[str, dict[int, Path]]:
    """Camera files of a city by sequence id and frame number."""
    cameras: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.glob(f"*{CAMERA}")):
        sequence, _, number = path.name.removesuffix(CAMERA).rpartition("_")
        if number.isdigit():
            cameras[sequence][int(number)] = path
    return cameras
