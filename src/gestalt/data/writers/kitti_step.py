"""KITTI-STEP form, as the adapter ``kitti_step`` reads it: 8-bit RGB ``panoptic_maps/val/<sequence>/<frame>.png``.

Red is the class, green * 256 + blue the instance: its place among those of its class, from 1 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import list_segments
from gestalt.data.writers.checks import check_numbers, check_segments
from gestalt.data.writers.video import by_sequence, frame_stem
from gestalt.panoptic import INSTANCES_PER_CLASS, PanopticMap, UInt8Array
from gestalt.runtime import progress

SPLIT = "val"


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, belongs to no video, or has an object that is not called
            ``class * 1000 + n``.
    """
    known = [entry.raw_id for entry in raw_classes(dataset)]
    with folder_written_aside(out) as aside:
        for sequence, members in by_sequence(frames, "kitti_step").items():
            folder = aside / "panoptic_maps" / SPLIT / sequence
            for frame in progress(members, label=f"kitti_step {sequence}", unit="frame"):
                panoptic = frame.read()
                segments = list_segments(panoptic)
                check_segments(segments, frame, known)
                check_numbers(segments, frame, "kitti_step")
                write_png(folder / f"{frame_stem(frame)}.png", to_step_colours(panoptic))


def to_step_colours(panoptic: PanopticMap) -> UInt8Array:
    """(H, W, 3) uint8 of a map whose instances are ``class * 1000 + n``; see the module."""
    number = np.where(panoptic.instance_map > 0, panoptic.instance_map % INSTANCES_PER_CLASS + 1, 0)
    return np.stack([panoptic.semantic_map, number >> 8, number & 255], axis=-1).astype(np.uint8)
