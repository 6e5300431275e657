"""Plain folders: ``left`` and ``right`` with images in order of time, and a ``calibration.yaml``.

Either directly under the root (one sequence), or ``<sequence>/left`` and ``<sequence>/right`` for several,
each with its own ``calibration.yaml`` or one for all of them in the root. Video of one camera has no ``right``
(option ``monocular``), and its calibration needs no ``stereo_baseline``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gestalt.data.adapters.sequence_pairs import (
    NumberedFrame,
    SequenceNames,
    broken_frames,
    empty_sequence,
    list_folders,
    list_images,
    pair_frames,
)
from gestalt.data.calibration import read_folder_calibration
from gestalt.data.records import BrokenFrame, StereoPair, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError

CALIBRATION_FILE = "calibration.yaml"
TRAILING_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class FolderVideo:
    """Options of the video.

    Attributes:
        left: Name of the folder of left images.
        right: Name of the folder of right images.
        monocular: There is one camera: right images are neither expected nor used.
    """

    left: str = "left"
    right: str = "right"
    monocular: bool = False


def find_pairs(root: Path, options: Mapping[str, Any]) -> Iterator[StereoPair | BrokenFrame]:
    """Pairs of one or several sequences.

    Left and right belong together by their names; where no name is on both sides, and both have as many
    images, by their order. Frame numbers are the trailing digits of the names in units of their usual step.
    """
    settings = parse_options(FolderVideo, options, "folder")
    sequences = [root] if (root / settings.left).is_dir() else list_folders(root)
    for folder in sequences:
        left = list_images(folder / settings.left)
        name = safe_id(folder.name) if folder != root else "sequence"
        if not left:
            # A folder that has nothing to do with stereo video is no sequence.
            if (folder / settings.left).is_dir() or (folder / settings.right).is_dir():
                yield empty_sequence(folder / settings.left, name)
            continue
        frames = _frames(left, None if settings.monocular else folder / settings.right)
        names = SequenceNames(name, f"{name}_{{stem}}")
        own = folder / CALIBRATION_FILE
        try:
            calibration, frame_rate_hz = read_folder_calibration(
                own if own.exists() else root / CALIBRATION_FILE, monocular=settings.monocular
            )
        except DataError as error:
            yield from broken_frames(frames.values(), str(error), names)
            continue
        yield from pair_frames(frames, calibration, names, time_step_s=1 / frame_rate_hz)


def _frames(left: list[Path], right_folder: Path | None) -> dict[int, NumberedFrame]:
    if right_folder is None:
        return {
            number: NumberedFrame(number, path, None)
            for number, path in zip(_numbers(left), left, strict=True)
        }
    right = list_images(right_folder)
    by_stem = {path.stem: path for path in right}
    if not any(path.stem in by_stem for path in left) and len(right) == len(left):
        partners = right
    else:
        partners = [by_stem.get(path.stem, right_folder / path.name) for path in left]
    return {
        number: NumberedFrame(number, path, partner)
        for number, path, partner in zip(_numbers(left), left, partners)
    }


def _numbers(images: list[Path]) -> list[int]:
    """Frame numbers: the names' trailing digits divided by their most frequent step, else the order."""
    found = [TRAILING_NUMBER.search(path.stem) for path in images]
    values = [int(match.group(1)) for match in found if match]
    steps = [after - before for before, after in pairwise(values)]
    if len(values) < len(images) or any(step <= 0 for step in steps):
        return list(range(len(images)))
    if not steps:
        return values
    # Recordings that keep every n-th frame count in steps of n.
    step = min(Counter(steps).items(), key=lambda entry: (-entry[1], entry[0]))[0]
    numbers = [0]
    for jump in steps:
        numbers.append(numbers[-1] + (1 if jump <= step else -(-jump // step)))
    return numbers
