"""KITTI scene flow 2015: ``<split>/image_2|image_3/<id>_10.png, _11.png``, ``calib_cam_to_cam/<id>.txt``.

Results in KITTI's scene flow form (``disp_0``, ``disp_1``, ``flow``) can take the place of the right images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gestalt.data.calibration import read_kitti_projections
from gestalt.data.records import BrokenFrame, StereoPair, safe_id
from gestalt.data.source import locate, parse_options
from gestalt.errors import DataError

NOW, NEXT = "_10.png", "_11.png"


@dataclass(frozen=True)
class KittiSceneFlowVideo:
    """Options of the video.

    Attributes:
        split: ``training`` or ``testing``.
        measurements: Folder of stored results, relative to the root; empty for none.
        complete_only: Leave out frames that have neither all four images nor stored results.
        frame_rate_hz: Of the cameras.
        monocular: There is one camera: right images are neither expected nor used.
    """

    split: str = "training"
    measurements: str = ""
    complete_only: bool = False
    frame_rate_hz: float = 10.0
    monocular: bool = False


def find_pairs(root: Path, options: Mapping[str, Any]) -> Iterator[StereoPair | BrokenFrame]:
    """One pair per frame; its name is ``<split>_<id>`` and each is a sequence of its own."""
    settings = parse_options(KittiSceneFlowVideo, options, "kitti_scene_flow")
    folder = root / settings.split
    for left in sorted((folder / "image_2").glob(f"*{NOW}")):
        identity = left.name.removesuffix(NOW)
        stored = _stored(root, settings, left.name)
        right, right_next = folder / "image_3" / left.name, folder / "image_3" / f"{identity}{NEXT}"
        left_next = left.with_name(f"{identity}{NEXT}")
        has_partners = settings.monocular or (right.exists() and right_next.exists())
        is_complete = left_next.exists() and (bool(stored) or has_partners)
        if settings.complete_only and not is_complete:
            continue
        name = safe_id(f"{settings.split}_{identity}")
        try:
            calibration = read_kitti_projections(
                folder / "calib_cam_to_cam" / f"{identity}.txt",
                "P_rect_02",
                None if settings.monocular else "P_rect_03",
            )
        except DataError as error:
            yield BrokenFrame(name, name, left, str(error))
            continue
        yield StereoPair(
            sequence=name,
            frame_id=name,
            left=left,
            # A right image that is not there is missed only where nothing takes its place.
            right=_expected(right, settings, stored),
            left_next=left_next,
            right_next=_expected(right_next, settings, stored),
            intrinsics=calibration.intrinsics,
            stereo_baseline=calibration.stereo_baseline,
            time_step_s=1 / settings.frame_rate_hz,
            **stored,
        )


def _expected(right: Path, settings: KittiSceneFlowVideo, stored: Mapping[str, Path]) -> Path | None:
    """The right image, or None where nobody will miss it."""
    if settings.monocular or (stored and not right.exists()):
        return None
    return right


def _stored(root: Path, settings: KittiSceneFlowVideo, name: str) -> dict[str, Path]:
    """Stored measurements of a frame: all three of them or none."""
    # Stored disparities come from two cameras.
    if not settings.measurements or settings.monocular:
        return {}
    folder = locate(root, settings.measurements, origin=root)
    paths = {
        "optical_flow": folder / "flow" / name,
        "disparity": folder / "disp_0" / name,
        "disparity_next": folder / "disp_1" / name,
    }
    return paths if all(path.exists() for path in paths.values()) else {}
