"""One module per form of ground truth: ``write_truth``, the inverse of the adapter of the same name.

What a writer wrote, that adapter reads from the same folder without options (``raw_ids`` apart, which says whose ids
the classes are), and the maps are equal, classes and instances, for every frame. What a form has no room for is a
``DataError`` that names the frame. Everything is written aside first: ``out`` appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gestalt.data.records import GroundTruthFrame
from gestalt.data.writers import (
    bdd,
    bdd_scalabel,
    cityscapes,
    coco_panoptic,
    kitti_step,
    mots,
    mots_text,
    waymo,
)
from gestalt.errors import ConfigError

# Frames, the folder to write (which must not exist, or be empty), and the data set whose raw ids the maps use.
WriteTruth = Callable[[Sequence[GroundTruthFrame], Path, str], None]

TRUTH_WRITERS: dict[str, WriteTruth] = {
    "bdd": bdd.write_truth,
    "bdd_scalabel": bdd_scalabel.write_truth,
    "cityscapes": cityscapes.write_truth,
    "coco_panoptic": coco_panoptic.write_truth,
    "kitti_step": kitti_step.write_truth,
    "mots": mots.write_truth,
    "mots_text": mots_text.write_truth,
    "waymo": waymo.write_truth,
}


def truth_writer(name: str) -> WriteTruth:
    """The ``write_truth`` of a form.

    Raises:
        ConfigError: There is no writer of that form.
    """
    if name not in TRUTH_WRITERS:
        raise ConfigError(
            f"the form of ground truth is {name!r}; forms that can be written: {', '.join(TRUTH_WRITERS)}"
        )
    return TRUTH_WRITERS[name]
