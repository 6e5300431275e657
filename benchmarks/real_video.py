"""Stereo video of data sets below a folder: which adapters read it, which pairs are usable, and why others are not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.config.frames import ManifestSettings
from gestalt.data.adapters import video_adapter
from gestalt.data.images import inspect_image
from gestalt.data.manifest import BROKEN, build_manifest, read_manifest, write_manifest
from gestalt.data.records import StereoFrame, StereoPair
from gestalt.delivery import write_source

# What the root of a data set holds, as a pattern below it; see the modules of gestalt.data.adapters.
SIGNS = {
    "kitti_odometry": "sequences/*/image_[02]",
    "kitti_scene_flow": "*/image_2/*_10.png",
    "kitti_raw": "*/*_sync/image_02",
    "cityscapes": "leftImg8bit_sequence/*",
    "folder": "calibration.yaml",
}
# Layouts whose splits are deliveries of their own: the folders that one sign matches begin with the split.
SPLIT_DEPTH = {"kitti_scene_flow": 0, "cityscapes": 1}
# Folders of a result in KITTI's scene flow form.
RESULT = ("disp_0", "disp_1", "flow")


@dataclass(frozen=True)
class Delivery:
    """Video that one adapter reads.

    Attributes:
        name: Path below the searched folder, with the split.
        adapter: Who reads it.
        root: The folder that the adapter is given.
        options: What the adapter is told besides.
    """

    name: str
    adapter: str
    root: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Video:
    """The pairs of a delivery.

    Attributes:
        delivery: Where they come from.
        frames: Usable pairs.
        half: Pairs whose left images alone are there: enough for optical flow.
        skipped: Frame id and reason of every pair that is not in ``frames``.
    """

    delivery: Delivery
    frames: tuple[StereoFrame, ...]
    half: tuple[StereoFrame, ...]
    skipped: tuple[tuple[str, str], ...]


def find_deliveries(folder: Path) -> Iterator[Delivery]:
    """Every data set below ``folder`` whose layout an adapter reads, by name.

    Results in KITTI's scene flow form, wherever they lie, are told to that adapter as stored measurements.
    """
    folders = sorted(Path(place) for place, _, _ in os.walk(folder))
    results = [place for place in folders if all((place / name).is_dir() for name in RESULT)]
    for place in folders:
        for adapter, sign in SIGNS.items():
            found = sorted(place.glob(sign))
            if not found:
                continue
            name = place.relative_to(folder).as_posix()
            if adapter not in SPLIT_DEPTH:
                yield Delivery(name, adapter, place)
                continue
            depth = SPLIT_DEPTH[adapter]
            for split in sorted({path.relative_to(place).parts[depth] for path in found}):
                yield Delivery(f"{name}/{split}", adapter, place, {"split": split})
                for result in results if adapter == "kitti_scene_flow" else ():
                    options = {"split": split, "measurements": os.path.relpath(result, place)}
                    yield Delivery(f"{name}/{split} ({result.name})", adapter, place, options)


def unread_folders(folder: Path, deliveries: list[Delivery]) -> list[str]:
    """Folders directly below ``folder`` in which no adapter finds stereo video."""
    roots = [delivery.root for delivery in deliveries]
    return [
        place.name
        for place in sorted(folder.iterdir())
        if place.is_dir() and not any(root.is_relative_to(place) for root in roots)
    ]


def open_video(delivery: Delivery, settings: ManifestSettings) -> Video:
    """Check the pairs of a delivery as the stage ``manifest`` does.

    Pairs with stored measurements belong to the delivery that names them, and to no other.

    Raises:
        DataError: The adapter finds no pair at all.
    """
    batch = delivery.name.replace("/", "-")
    with tempfile.TemporaryDirectory() as source:
        write_source(Path(source), delivery.adapter, str(delivery.root.absolute()), dict(delivery.options))
        table = build_manifest(Path(source), batch, settings)
        frames: list[StereoFrame] = []
        if (table["status"] != BROKEN).any():
            write_manifest(table, Path(source) / "pairs.parquet")
            frames = read_manifest(Path(source) / "pairs.parquet")
    is_stored = "measurements" in delivery.options
    frames = [frame for frame in frames if frame.has_measurements == is_stored]
    broken = table[table["status"] == BROKEN]
    skipped = dict(zip(broken["frame_id"], broken["reason"], strict=True))
    if is_stored:
        return Video(delivery, tuple(frames), (), ())
    pairs = video_adapter(delivery.adapter)(delivery.root, delivery.options)
    half = [
        _left_only(pair, batch) for pair in pairs if isinstance(pair, StereoPair) and pair.frame_id in skipped
    ]
    return Video(
        delivery, tuple(frames), tuple(frame for frame in half if frame is not None), tuple(skipped.items())
    )


def _left_only(pair: StereoPair, batch: str) -> StereoFrame | None:
    """A pair without its right images, or None where a left one is missing."""
    if not (pair.left.is_file() and pair.left_next.is_file()):
        return None
    height, width = inspect_image(pair.left)
    return StereoFrame(
        batch, pair.sequence, pair.frame_id, pair.left, None, pair.left_next, None, height, width,
        np.asarray(pair.intrinsics, np.float64), pair.stereo_baseline, pair.time_step_s,
    )  # fmt: skip
