"""Records that cross rooms: stereo pairs of a batch, annotated images of a benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError
from gestalt.panoptic import PanopticMap, UInt8Array

# Frame ids name members of archives and exported files on every system.
FRAME_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]+")


@dataclass(frozen=True, eq=False)
class StereoFrame:
    """A usable stereo pair at time t with the pair at t+1: one ``ok`` row of a manifest.

    Attributes:
        batch: The delivery it belongs to.
        sequence: Piece of video from one camera; pairs never cross sequences.
        frame_id: Unique in its batch and safe as a file name.
        left: Left image at t; labels are made for this image.
        right: Right image at t. None where all three stored measurements exist, and in monocular video.
        left_next: Left image at t+1.
        right_next: Right image at t+1. None as ``right`` is.
        height: Rows of all images as stored.
        width: Columns of all images as stored.
        intrinsics: (3, 3) float64, pixels at stored size, pixel centres at whole numbers.
        stereo_baseline: Distance of the two cameras, metres, positive; NaN in monocular video.
        time_step_s: Seconds from t to t+1.
        optical_flow: Stored left t -> left t+1, KITTI 16-bit form.
        disparity: Stored disparity of the left image at t, KITTI 16-bit form.
        disparity_next: Stored disparity at t+1 at the pixel positions of t, KITTI 16-bit form.
    """

    batch: str
    sequence: str
    frame_id: str
    left: Path
    right: Path | None
    left_next: Path
    right_next: Path | None
    height: int
    width: int
    intrinsics: npt.NDArray[np.float64]
    stereo_baseline: float
    time_step_s: float
    optical_flow: Path | None = None
    disparity: Path | None = None
    disparity_next: Path | None = None

    @property
    def has_measurements(self) -> bool:
        """Whether optical flow and both disparities are stored, so that none has to be computed."""
        return None not in (self.optical_flow, self.disparity, self.disparity_next)

    @property
    def is_monocular(self) -> bool:
        """Whether nothing tells its depth: a right image is missing, and so are stored measurements."""
        return None in (self.right, self.right_next) and not self.has_measurements


@dataclass(frozen=True, eq=False)
class StereoPair:
    """What an adapter found: as ``StereoFrame``, before anything of the images was looked at."""

    sequence: str
    frame_id: str
    left: Path
    right: Path | None
    left_next: Path
    right_next: Path | None
    intrinsics: npt.NDArray[np.float64]
    stereo_baseline: float
    time_step_s: float
    optical_flow: Path | None = None
    disparity: Path | None = None
    disparity_next: Path | None = None


@dataclass(frozen=True)
class BrokenFrame:
    """A frame that should have been part of a pair and cannot be, with the reason.

    Attributes:
        sequence: Piece of video it belongs to.
        frame_id: The frame at t.
        left: Its left image.
        reason: ``kind: what is wrong, where``; the kind is the same for all frames with this trouble.
    """

    sequence: str
    frame_id: str
    left: Path
    reason: str


@dataclass(frozen=True)
class GroundTruthFrame:
    """One annotated image.

    Attributes:
        frame_id: Unique in its benchmark and safe as a file name.
        image: Where the image is; ground truth that lies apart from its images has none there.
        annotation: The (semantic) annotation file.
        read: Reads the annotation as a panoptic map of the data set's *raw* ids; picklable. Instances keep the
            identity they have in the file, so an object of a video has one id in all its frames.
        sequence: Piece of video the frame belongs to; empty where frames are single images.
        number: Place in the sequence; numbers may have gaps.
        read_image: Reads the image, (H, W, 3) uint8 RGB, where it is no file of its own; picklable.
    """

    frame_id: str
    image: Path
    annotation: Path
    read: Callable[[], PanopticMap]
    sequence: str = ""
    number: int = 0
    read_image: Callable[[], UInt8Array] | None = None


def safe_id(text: str) -> str:
    """``text`` with every run of characters that file names should not have replaced by a dash."""
    return UNSAFE.sub("-", text).lstrip("-._") or "frame"


def check_frame_id(frame_id: str) -> None:
    """Raise unless ``frame_id`` is safe as a file name.

    Raises:
        DataError: It is not.
    """
    if not FRAME_ID.fullmatch(frame_id):
        raise DataError(
            "a frame id must start with a letter or digit and hold only letters, digits, '_', '-' and '.'. "
            f"Got: {frame_id!r}"
        )
