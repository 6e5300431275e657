"""Video files: frames in, one after the other; pictures out, as a file that appears whole or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from gestalt.errors import DataError
from gestalt.panoptic import UInt8Array

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

# Of a file that does not say how fast it is.
USUAL_FRAME_RATE_HZ = 25.0
# Some containers know their length in seconds only, and the number of frames comes out wrong by one or two.
MISCOUNTED_FRAMES = 2

# Between the number of the process that writes a video and the suffix.
ASIDE = ".tmp"


@dataclass(frozen=True, eq=False)
class Video:
    """An open video.

    Attributes:
        frames: (H, W, 3) uint8 RGB each, read when asked for.
        n_frames: How many the file says it has; None when it does not say.
        frame_rate_hz: Frames per second.
    """

    frames: Iterator[UInt8Array]
    n_frames: int | None
    frame_rate_hz: float

    def missing_frames(self, n_read: int) -> int:
        """Frames that the file promises and does not hold, as far as the promise can be trusted."""
        missing = (self.n_frames or 0) - n_read
        return missing if missing > MISCOUNTED_FRAMES else 0


def open_video(path: Path) -> Video:
    """Open a video file.

    Raises:
        DataError: It does not exist or cannot be opened.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give an image, a folder of images or a video")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise DataError(f"{path} cannot be opened as a video; convert it, for example to H.264 in .mp4")
    n_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frame_rate_hz = float(capture.get(cv2.CAP_PROP_FPS))
    return Video(
        _read_frames(capture),
        n_frames if n_frames > 0 else None,
        frame_rate_hz if frame_rate_hz > 0 else USUAL_FRAME_RATE_HZ,
    )


class VideoFile:
    """Writes a video from its first picture on, beside its place, and moves it there at the end.

    Without a picture there is no file; nor is there one when the block ends with an error. What a run that was
    killed left of the same video is removed.
    """

    def __init__(self, path: Path, frame_rate_hz: float) -> None:
        self._path, self._frame_rate_hz = path, frame_rate_hz
        # The suffix stays last: the writer chooses the container by it.
        self._aside = path.with_name(f".{path.stem}.{os.getpid()}{ASIDE}{path.suffix}")
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None:
            self._aside.replace(self._path)
        self._aside.unlink(missing_ok=True)

    def add(self, picture: UInt8Array) -> None:
        """Append an (H, W, 3) uint8 RGB picture; all of a file have one size.

        Raises:
            DataError: No video can be written there.
        """
        if self._writer is None:
            _remove_leftovers(self._path)
            height, width = picture.shape[:2]
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._aside), codec, self._frame_rate_hz, (width, height))
            if not self._writer.isOpened():
                raise DataError(f"{self._path} cannot be written as a video; is the folder writable?")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _remove_leftovers(path: Path) -> None:
    """Delete what processes that are gone wrote beside ``path``; another one may be writing right now."""
    start, end = f".{path.stem}.", f"{ASIDE}{path.suffix}"
    for aside in path.parent.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
        process = aside.name.removeprefix(start).removesuffix(end)
        if process.isdecimal() and not _is_running(int(process)):
            aside.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # It is there and somebody else's.
        return True
    return True


def _read_frames(capture: cv2.VideoCapture) -> Iterator[UInt8Array]:
    try:
        is_read, frame = capture.read()
        while is_read:
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
            is_read, frame = capture.read()
    finally:
        capture.release()
