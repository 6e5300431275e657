"""Pairs of consecutive frames: what all stereo video has in common, whatever its folders are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gestalt.data.calibration import Calibration
from gestalt.data.images import IMAGE_SUFFIXES
from gestalt.data.records import BrokenFrame, StereoPair, safe_id


@dataclass(frozen=True)
class NumberedFrame:
    """Both images of one moment, or the one of monocular video.

    Attributes:
        number: Frame number; consecutive frames differ by one.
        left: Left image, there or not.
        right: Right image, there or not; None in monocular video, where none is expected.
    """

    number: int
    left: Path
    right: Path | None


@dataclass(frozen=True)
class SequenceNames:
    """How a piece of video and its frames are called.

    Attributes:
        sequence: Name of the piece.
        frame_id: Format of frame ids, with ``{number}``, or ``{stem}`` for the stem of the left image.
    """

    sequence: str
    frame_id: str

    def of(self, frame: NumberedFrame) -> str:
        """The frame id of a frame."""
        return safe_id(self.frame_id.format(number=frame.number, stem=frame.left.stem))


def pair_frames(
    frames: Mapping[int, NumberedFrame],
    calibration: Calibration,
    names: SequenceNames,
    *,
    time_step_s: float,
    excluded: frozenset[int] = frozenset(),
) -> Iterator[StereoPair | BrokenFrame]:
    """Pair each frame with the next one of an uninterrupted piece of video.

    Args:
        frames: By frame number.
        calibration: Of all of them.
        names: Of the piece and its frames.
        time_step_s: Seconds between consecutive frames.
        excluded: Frame numbers that must not be used; leaving them out is no gap.

    Yields:
        A pair per frame but the last; a broken frame for a video of one frame, and before each gap.
    """
    sequence, numbers = names.sequence, sorted(frames)
    used = [number for number in numbers if number not in excluded]
    if len(numbers) == 1:
        frame = frames[numbers[0]]
        yield BrokenFrame(
            sequence,
            names.of(frame),
            frame.left,
            f"one-frame sequence: {sequence} has one frame, {frame.left}; a pair needs two",
        )
        return
    following = dict(pairwise(numbers))
    for number in used:
        if number not in following or following[number] in excluded:
            continue
        frame, after = frames[number], frames[following[number]]
        name = names.of(frame)
        if after.number != number + 1:
            yield BrokenFrame(
                sequence,
                name,
                frame.left,
                f"frame gap: after frame {number} of {sequence} comes frame {after.number}",
            )
            continue
        yield StereoPair(
            sequence=sequence,
            frame_id=name,
            left=frame.left,
            right=frame.right,
            left_next=after.left,
            right_next=after.right,
            intrinsics=calibration.intrinsics,
            stereo_baseline=calibration.stereo_baseline,
            time_step_s=time_step_s,
        )


def broken_frames(
    frames: Iterable[NumberedFrame], reason: str, names: SequenceNames
) -> Iterator[BrokenFrame]:
    """Every frame but the last as broken, for trouble that all of them share."""
    ordered = sorted(frames, key=lambda frame: frame.number)
    for frame in ordered[:-1] or ordered:
        yield BrokenFrame(names.sequence, names.of(frame), frame.left, reason)


def empty_sequence(left: Path, sequence: str) -> BrokenFrame:
    """The record of a sequence whose left images are missing."""
    what = "holds no image" if left.is_dir() else "does not exist"
    return BrokenFrame(
        sequence, sequence, left, f"empty sequence: {sequence} has no left image, {left} {what}"
    )


def list_images(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder, sorted; none when the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def numbered_frames(left: Path, right: Path | None) -> dict[int, NumberedFrame]:
    """Frames of two folders, or of one, whose images carry the frame number as their name."""
    return {
        int(path.stem): NumberedFrame(int(path.stem), path, None if right is None else right / path.name)
        for path in list_images(left)
        if path.stem.isdigit()
    }


def list_folders(folder: Path) -> list[Path]:
    """Sub-folders of a folder, sorted; none when the folder is missing."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
