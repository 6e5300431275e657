"""KITTI raw: ``<date>/<drive>_sync/image_02|image_03/data/<frame>.png`` and ``<date>/calib_cam_to_cam.txt``.

Frames that show the same moments as KITTI's panoptic validation images can be kept out of training.
"""

from __future__ import annotations

from collections import defaultdict
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
from gestalt.data.source import locate, parse_options
from gestalt.errors import DataError

SPLITS = Path(__file__).parents[1] / "splits"
EXCLUDED_DRIVES = SPLITS / "kitti_raw_excluded_drives.txt"
VALIDATION_FRAMES = SPLITS / "kitti_panoptic_validation_frames.txt"


@dataclass(frozen=True)
class KittiRawVideo:
    """Options of the video.

    Attributes:
        exclude_drives: Leave out calibration drives and drives that show one person walking about.
        exclude_validation: Leave out the frames of KITTI's panoptic validation images.
        excluded_frames: Text file, relative to the root, with a line ``<drive> <frame>`` per further frame
            to leave out; empty for none.
        excluded_radius: Frames before and after each of these that are left out with it.
        frame_rate_hz: Of the cameras.
        monocular: There is one camera: right images are neither expected nor used.
    """

    exclude_drives: bool = True
    exclude_validation: bool = True
    excluded_frames: str = ""
    excluded_radius: int = 5
    frame_rate_hz: float = 10.0
    monocular: bool = False


def find_pairs(root: Path, options: Mapping[str, Any]) -> Iterator[StereoPair | BrokenFrame]:
    """Pairs of all synchronised drives; a pair never crosses a gap that the exclusion leaves.

    Raises:
        DataError: The list of excluded frames is missing or broken.
    """
    settings = parse_options(KittiRawVideo, options, "kitti_raw")
    drives = frozenset(read_lines(EXCLUDED_DRIVES)) if settings.exclude_drives else frozenset()
    excluded = _excluded_frames(root, settings)
    for date in list_folders(root):
        for drive in list_folders(date):
            if not drive.name.endswith("_sync") or drive.name in drives:
                continue
            right = None if settings.monocular else drive / "image_03" / "data"
            frames = numbered_frames(drive / "image_02" / "data", right)
            if not frames:
                yield empty_sequence(drive / "image_02" / "data", drive.name)
                continue
            names = SequenceNames(drive.name, f"{drive.name}_{{number:010d}}")
            try:
                calibration = read_kitti_projections(
                    date / "calib_cam_to_cam.txt", "P_rect_02", None if settings.monocular else "P_rect_03"
                )
            except DataError as error:
                yield from broken_frames(frames.values(), str(error), names)
                continue
            yield from pair_frames(
                frames,
                calibration,
                names,
                time_step_s=1 / settings.frame_rate_hz,
                excluded=excluded.get(drive.name, frozenset()),
            )


def read_lines(path: Path) -> list[str]:
    """Lines of a list, without comments and empty ones.

    Raises:
        DataError: The file is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"the list {path} does not exist") from None
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]


def _excluded_frames(root: Path, settings: KittiRawVideo) -> dict[str, frozenset[int]]:
    lists = [VALIDATION_FRAMES] if settings.exclude_validation else []
    if settings.excluded_frames:
        lists.append(locate(root, settings.excluded_frames, origin=root))
    excluded: dict[str, set[int]] = defaultdict(set)
    for path in lists:
        for line in read_lines(path):
            drive, _, number = line.partition(" ")
            if not number.isdigit():
                raise DataError(f"{path}: a line must be `<drive> <frame>`. Got: {line!r}")
            first = int(number) - settings.excluded_radius
            excluded[drive] |= set(range(first, first + 2 * settings.excluded_radius + 1))
    return {drive: frozenset(numbers) for drive, numbers in excluded.items()}
