"""Where frames of video go in forms that have a folder or a file per sequence."""

from __future__ import annotations

from collections.abc import Sequence

from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.errors import DataError

# Places of a frame's number in the names of the video forms' files.
DIGITS = 6


def by_sequence(frames: Sequence[GroundTruthFrame], form: str) -> dict[str, list[GroundTruthFrame]]:
    """Frames of each sequence in the order of time; sequences by name, safe as file names.

    Raises:
        DataError: A frame belongs to no video, two have one place in it, or a name would not survive.
    """
    sequences: dict[str, dict[int, GroundTruthFrame]] = {}
    for frame in frames:
        if not frame.sequence:
            raise DataError(
                f"frame {frame.frame_id} ({frame.annotation}): the form {form} holds video, and this frame belongs to "
                "no sequence; coco_panoptic and cityscapes hold single images"
            )
        if not _is_number(frame_stem(frame), frame.number):
            raise DataError(
                f"frame {frame.frame_id} ({frame.annotation}): in the form {form} frames are called by sequence and "
                f"number, and it would be another frame, {safe_id(frame.sequence)}_{frame.number:0{DIGITS}d}"
            )
        before = sequences.setdefault(safe_id(frame.sequence), {}).setdefault(frame.number, frame)
        if before is not frame:
            raise DataError(f"{before.annotation} and {frame.annotation} are both frame {frame.frame_id}")
    return {
        sequence: [found[number] for number in sorted(found)] for sequence, found in sorted(sequences.items())
    }


def frame_stem(frame: GroundTruthFrame) -> str:
    """What the frame's id has after its sequence: the frame's number, and the name of its file."""
    return frame.frame_id.removeprefix(f"{safe_id(frame.sequence)}_")


def _is_number(stem: str, number: int) -> bool:
    return stem.isascii() and stem.isdigit() and int(stem) == number
