"""What writers of ground truth have in common: refusals that name the frame, names of images."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from gestalt.data.images import IMAGE_SUFFIXES
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import SegmentTable
from gestalt.data.waymo_frames import EmbeddedJpeg
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, VOID


def check_segments(segments: SegmentTable, frame: GroundTruthFrame, known: Collection[int]) -> None:
    """Refuse a map that no form can hold.

    Args:
        segments: Of the map.
        frame: Whose map it is.
        known: Raw ids of the data set.

    Raises:
        DataError: A class is not one of the data set's, void has an instance, or an instance has two classes.
    """
    where = f"frame {frame.frame_id} ({frame.annotation})"
    strangers = sorted(set(segments.class_id.tolist()) - set(known) - {VOID})
    if strangers:
        raise DataError(
            f"{where}: raw ids {strangers} are no classes of the data set; `gestalt data check` says more"
        )
    has_instance = segments.instance > 0
    if (has_instance & (segments.class_id == VOID)).any():
        raise DataError(f"{where}: void has instances, which no form can hold")
    instances, counts = np.unique(segments.instance[has_instance], return_counts=True)
    if (counts > 1).any():
        twice = int(instances[counts > 1][0])
        classes = segments.class_id[segments.instance == twice].tolist()
        raise DataError(f"{where}: instance {twice} must have one class. Got: raw ids {classes}")


def check_numbers(segments: SegmentTable, frame: GroundTruthFrame, form: str) -> None:
    """Refuse objects that are not called ``class * 1000 + n``, where a form knows no other names.

    Raises:
        DataError: One is called otherwise.
    """
    is_foreign = (segments.instance > 0) & (segments.instance // INSTANCES_PER_CLASS != segments.class_id)
    if is_foreign.any():
        place = int(np.flatnonzero(is_foreign)[0])
        first = int(segments.class_id[place]) * INSTANCES_PER_CLASS
        raise DataError(
            f"frame {frame.frame_id} ({frame.annotation}): in the form {form} an object of class "
            f"{segments.class_id[place]} is called {first} to {first + INSTANCES_PER_CLASS - 1}. "
            f"Got: {segments.instance[place]}; --renumber gives objects such numbers"
        )


def check_dataset(dataset: str, expected: str, form: str) -> None:
    """Refuse classes of another data set where a form's numbers mean those of one.

    Raises:
        DataError: The two number their classes in different ways.
    """
    if raw_classes(dataset) != raw_classes(expected):
        raise DataError(
            f"the form {form} holds the classes of {expected}. Got ground truth with raw ids of {dataset}; "
            "coco_panoptic holds those of every data set"
        )


def image_name(frame: GroundTruthFrame) -> str:
    """What the image of a frame is called beside its truth: the frame's name with the image's own suffix."""
    if isinstance(frame.read_image, EmbeddedJpeg):
        return f"{frame.frame_id}.jpg"
    suffix = frame.image.suffix.lower()
    return f"{frame.frame_id}{suffix if suffix in IMAGE_SUFFIXES and frame.read_image is None else '.png'}"
