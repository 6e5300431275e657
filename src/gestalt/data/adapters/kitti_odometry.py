"""KITTI odometry: ``sequences/<s>/image_2|image_3`` (colour) or ``image_0|image_1`` (grey), ``calib.txt``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gestalt.data.adapters.sequence_pairs import (
    SequenceNames,
    broken_frames,
    empty_sequence,
    list_folders,
    numbered_frames,
    pair_frames,
)
from gestalt.data.calibration import read_kitti_projections
from gestalt.data.records import BrokenFrame, StereoPair
from gestalt.data.source import parse_options
from gestalt.errors import DataError

# Left and right camera; colour first.
CAMERAS = ((2, 3), (0, 1))


@dataclass(frozen=True)
class KittiOdometryVideo:
    """Options of the video.

    Attributes:
        frame_rate_hz: Of the cameras.
        monocular: There is one camera: right images are neither expected nor used.
    """

    frame_rate_hz: float = 10.0
    monocular: bool = False


def find_pairs(root: Path, options: Mapping[str, Any]) -> Iterator[StereoPair | BrokenFrame]:
    """Pairs of all sequences, from the colour cameras where they are there, else from the grey ones."""
    settings = parse_options(KittiOdometryVideo, options, "kitti_odometry")
    for sequence in list_folders(root / "sequences"):
        for left, right in CAMERAS:
            frames = numbered_frames(
                sequence / f"image_{left}", None if settings.monocular else sequence / f"image_{right}"
            )
            if frames:
                break
        else:
            yield empty_sequence(sequence / f"image_{left}", sequence.name)
            continue
        names = SequenceNames(sequence.name, f"{sequence.name}_{{number:06d}}")
        try:
            calibration = read_kitti_projections(
                sequence / "calib.txt", f"P{left}", None if settings.monocular else f"P{right}"
            )
        except DataError as error:
            yield from broken_frames(frames.values(), str(error), names)
            continue
        yield from pair_frames(frames, calibration, names, time_step_s=1 / settings.frame_rate_hz)
