"""New numbers for objects, for forms that call them ``class * 1000 + n``; segments stay what they are."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import SegmentTable, list_segments
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, LAST_COUNTED_CLASS, PanopticMap, UInt16Array

# Of instances, which have 16 bits.
N_NUMBERS = 1 << 16


def renumber_objects(frames: Sequence[GroundTruthFrame]) -> list[GroundTruthFrame]:
    """The same frames with objects called ``class * 1000 + n``; reads every map once.

    An object of a video has one number in all frames of its sequence; n counts from 0 in the order of appearance,
    smaller old numbers first. Sequences, and single images, whose objects are all called so keep their numbers.

    Raises:
        DataError: A sequence has more than 1000 objects of a class, or objects of a class above 65.
    """
    tables = [list_segments(frame.read()) for frame in frames]
    groups: dict[str, list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        groups[f"sequence {frame.sequence}" if frame.sequence else f"frame {frame.frame_id}"].append(place)
    renumbered = list(frames)
    for name, places in groups.items():
        ordered = sorted(places, key=lambda place: frames[place].number)
        if all(_is_called_so(tables[place]) for place in ordered):
            continue
        numbers: dict[tuple[int, int], int] = {}
        n_of_class: dict[int, int] = defaultdict(int)
        for place in ordered:
            table = np.arange(N_NUMBERS, dtype=np.uint16)
            for class_id, instance in _objects(tables[place]):
                if (class_id, instance) not in numbers:
                    numbers[class_id, instance] = _next_number(class_id, n_of_class[class_id], name)
                    n_of_class[class_id] += 1
                table[instance] = numbers[class_id, instance]
            frame = frames[place]
            renumbered[place] = dataclasses.replace(frame, read=partial(_read_renumbered, frame.read, table))
    return renumbered


def _read_renumbered(read: Callable[[], PanopticMap], numbers: UInt16Array) -> PanopticMap:
    panoptic = read()
    return PanopticMap(panoptic.semantic_map, numbers[panoptic.instance_map])


def _objects(table: SegmentTable) -> list[tuple[int, int]]:
    has_instance = table.instance > 0
    return list(
        zip(table.class_id[has_instance].tolist(), table.instance[has_instance].tolist(), strict=True)
    )


def _is_called_so(table: SegmentTable) -> bool:
    return all(instance // INSTANCES_PER_CLASS == class_id for class_id, instance in _objects(table))


def _next_number(class_id: int, n_known: int, name: str) -> int:
    if not 0 < class_id <= LAST_COUNTED_CLASS or n_known >= INSTANCES_PER_CLASS:
        raise DataError(
            f"{name}: `class * 1000 + n` has room for {INSTANCES_PER_CLASS} objects of each class 1 to "
            f"{LAST_COUNTED_CLASS}. Got: object {n_known + 1} of class {class_id}; use the form coco_panoptic"
        )
    return class_id * INSTANCES_PER_CLASS + n_known
