"""Cityscapes form, as the adapter ``cityscapes`` reads it: instanceIds (16 bit) and labelIds (8 bit) of each frame.

``gtFine/val/<city>/<frame>_gtFine_instanceIds.png`` holds ``class`` or ``class * 1000 + n``; the city is what the frame
id has before its first ``_``.
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
from gestalt.errors import DataError
from gestalt.panoptic import LAST_COUNTED_CLASS, VOID
from gestalt.runtime import progress

SPLIT = "val"


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, or has an object that is not called ``class * 1000 + n``.
    """
    known = [entry.raw_id for entry in raw_classes(dataset)]
    with folder_written_aside(out) as aside:
        for frame in progress(frames, label="cityscapes", unit="frame"):
            panoptic = frame.read()
            segments = list_segments(panoptic)
            check_segments(segments, frame, known)
            check_numbers(segments, frame, "cityscapes")
            if not_held := sorted(
                set(segments.class_id.tolist()) - set(range(LAST_COUNTED_CLASS + 1)) - {VOID}
            ):
                raise DataError(
                    f"frame {frame.frame_id} ({frame.annotation}): the form cityscapes holds classes up to "
                    f"{LAST_COUNTED_CLASS}. Got: {not_held}; coco_panoptic holds all"
                )
            ids = np.where(panoptic.instance_map > 0, panoptic.instance_map, panoptic.semantic_map)
            city = frame.frame_id.partition("_")[0]
            stem = aside / "gtFine" / SPLIT / city / f"{frame.frame_id}_gtFine"
            write_png(stem.with_name(f"{stem.name}_instanceIds.png"), ids.astype(np.uint16))
            write_png(stem.with_name(f"{stem.name}_labelIds.png"), panoptic.semantic_map)
