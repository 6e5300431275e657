"""BDD100K bitmasks, as the adapter ``bdd`` reads them: ``labels/pan_seg/bitmasks/val/<frame>.png``, 8-bit RGBA.

Red holds the category, green the marks (crowd on things without an instance), blue and alpha the two bytes of the
instance. Stuff has its category as instance, as the data set has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gestalt.data.adapters.bdd import CROWD, FIRST_THING, LAST_THING
from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import list_segments
from gestalt.data.writers.checks import check_dataset, check_segments
from gestalt.errors import DataError
from gestalt.panoptic import PanopticMap, UInt8Array
from gestalt.runtime import progress


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, the classes are not those of BDD, or stuff has instances.
    """
    check_dataset(dataset, "bdd", "bdd")
    known = [entry.raw_id for entry in raw_classes(dataset)]
    with folder_written_aside(out) as aside:
        for frame in progress(frames, label="bdd", unit="frame"):
            panoptic = frame.read()
            segments = list_segments(panoptic)
            check_segments(segments, frame, known)
            if ((segments.instance > 0) & (segments.class_id < FIRST_THING)).any():
                raise DataError(
                    f"frame {frame.frame_id} ({frame.annotation}): in the form bdd only categories from "
                    f"{FIRST_THING} on have instances, and here stuff has"
                )
            path = aside / "labels" / "pan_seg" / "bitmasks" / "val" / f"{frame.frame_id}.png"
            write_png(path, to_bitmask(panoptic))


def to_bitmask(panoptic: PanopticMap) -> UInt8Array:
    """(H, W, 4) uint8 of a map in BDD's raw ids; see the module."""
    category, instance = panoptic.semantic_map, panoptic.instance_map
    is_thing = (category >= FIRST_THING) & (category <= LAST_THING)
    marks = np.where(is_thing & (instance == 0), CROWD, 0)
    number = np.where(category < FIRST_THING, category, instance)
    return np.stack([category, marks, number >> 8, number & 255], axis=-1).astype(np.uint8)
