"""Converted Waymo, as the adapter ``waymo`` reads it: ``semantic/<frame>.png`` (8 bit), ``instance/<frame>.png`` (16).

``sequences.json`` says which frame belongs to which video. Images belong into ``images/``; `gestalt data convert` puts
those that are inside records there byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gestalt.data.adapters.waymo import CONVERTED, SEQUENCES
from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import SegmentTable, list_segments
from gestalt.data.waymo_instances import UNDEFINED
from gestalt.data.writers.checks import check_dataset, check_segments
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS
from gestalt.runtime import progress


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, the classes are not those of Waymo, or it has instances that the form has no
            room for: below 1000, or of the undefined class.
    """
    check_dataset(dataset, "waymo", "waymo")
    known = [entry.raw_id for entry in raw_classes(dataset)]
    with folder_written_aside(out) as aside:
        for frame in progress(frames, label="waymo", unit="frame"):
            panoptic = frame.read()
            segments = list_segments(panoptic)
            check_segments(segments, frame, known)
            _check_instances(segments, frame)
            write_png(aside / CONVERTED / f"{frame.frame_id}.png", panoptic.semantic_map)
            write_png(aside / "instance" / f"{frame.frame_id}.png", panoptic.instance_map)
        if any(frame.sequence for frame in frames):
            places = {frame.frame_id: [frame.sequence, frame.number] for frame in frames}
            (aside / SEQUENCES).write_text(json.dumps(places, indent=1) + "\n", encoding="utf-8")


def _check_instances(segments: SegmentTable, frame: GroundTruthFrame) -> None:
    where = f"frame {frame.frame_id} ({frame.annotation})"
    is_instance = segments.instance > 0
    if (is_instance & (segments.class_id == UNDEFINED)).any():
        raise DataError(
            f"{where}: in the form waymo the undefined class {UNDEFINED} has no instances, and here it has"
        )
    # Numbers below belong to a class and would come back as another id.
    if (is_instance & (segments.instance < INSTANCES_PER_CLASS)).any():
        smallest = int(np.min(segments.instance[is_instance]))
        raise DataError(
            f"{where}: in the form waymo an instance is {INSTANCES_PER_CLASS} or more, best class * "
            f"{INSTANCES_PER_CLASS} + n. Got: {smallest}; --renumber gives objects such numbers"
        )
