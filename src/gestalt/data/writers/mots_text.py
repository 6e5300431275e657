"""MOTS as text, as the adapter ``mots_text`` reads it: ``instances_txt/<sequence>.txt`` and ``frames.txt``.

Text has no line for a frame without objects, so ``frames.txt`` says which frames there are and how large they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gestalt.data.adapters.mots_text import FRAMES_FILE
from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.coco_runs import encode_runs
from gestalt.data.records import GroundTruthFrame
from gestalt.data.writers.checks import check_dataset
from gestalt.data.writers.mots import to_object_ids
from gestalt.data.writers.video import DIGITS, by_sequence, frame_stem
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, UInt16Array
from gestalt.runtime import progress


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, the classes are not those of MOTS, a frame belongs to no video, a sequence
            has gaps or frames of several sizes, or the form has no room for a frame.
    """
    check_dataset(dataset, "mots", "mots_text")
    with folder_written_aside(out) as aside:
        folder = aside / "instances_txt"
        folder.mkdir()
        listed = []
        for sequence, members in by_sequence(frames, "mots_text").items():
            height, width = _write_sequence(folder / f"{sequence}.txt", sequence, members)
            listed.append(f"{sequence} {members[0].number} {members[-1].number} {height} {width}\n")
        (aside / FRAMES_FILE).write_text("".join(listed), encoding="utf-8")


def encode_objects(ids: UInt16Array) -> Iterator[tuple[int, str]]:
    """Each object of a frame, in ascending order, with its mask in COCO's run-length encoding.

    Args:
        ids: (H, W) uint16, 0 for background.
    """
    flat = ids.T.ravel()
    borders = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    starts, ends, owners = borders[:-1], borders[1:], flat[borders[:-1]]
    order = np.argsort(owners, kind="stable")
    starts, ends, owners = starts[order], ends[order], owners[order]
    firsts = np.flatnonzero(np.diff(owners.astype(np.int64), prepend=-1))
    for first, last in zip(firsts, np.append(firsts[1:], len(owners)), strict=True):
        if owners[first] > 0:
            inside = np.stack([starts[first:last], ends[first:last]], axis=-1).ravel()
            lengths = np.diff(inside, prepend=0, append=flat.size)
            # A mask that reaches the last pixel has nothing outside behind it.
            yield int(owners[first]), encode_runs(lengths[: len(lengths) - int(lengths[-1] == 0)])


def _write_sequence(path: Path, sequence: str, members: Sequence[GroundTruthFrame]) -> tuple[int, int]:
    """Write the file of a sequence; return the (H, W) of its frames."""
    _check_numbers(sequence, members)
    size: tuple[int, int] | None = None
    with path.open("w", encoding="utf-8") as file:
        for frame in progress(members, label=f"mots_text {sequence}", unit="frame"):
            ids = to_object_ids(frame.read(), frame, "mots_text")
            height, width = ids.shape
            size = size or (height, width)
            if size != ids.shape:
                raise DataError(
                    f"frame {frame.frame_id} ({frame.annotation}): in the form mots_text the frames of a sequence "
                    f"have one size (rows, columns). Got: {ids.shape} after {size}"
                )
            for object_id, runs in encode_objects(ids):
                class_id = object_id // INSTANCES_PER_CLASS
                file.write(f"{frame.number} {object_id} {class_id} {height} {width} {runs}\n")
    assert size is not None  # a sequence has a frame, or it would not be one
    return size


def _check_numbers(sequence: str, members: Sequence[GroundTruthFrame]) -> None:
    numbers = np.array([frame.number for frame in members])
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    if len(gaps):
        raise DataError(
            f"sequence {sequence}: the form mots_text has all frames from the first to the last. "
            f"Got: frame {members[gaps[0] + 1].frame_id} after {members[gaps[0]].frame_id}; the form mots holds gaps"
        )
    odd = next((frame for frame in members if len(frame_stem(frame)) != DIGITS), None)
    if odd is not None:
        raise DataError(
            f"frame {odd.frame_id} ({odd.annotation}): the form mots_text calls frames by sequence and {DIGITS} "
            f"digits, and it would be another frame, {sequence}_{odd.number:0{DIGITS}d}; the form mots keeps its name"
        )
