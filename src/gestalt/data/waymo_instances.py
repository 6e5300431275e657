"""Instances of Waymo's panoptic labels as raw ids: ``class * 1000 + n`` with one n for an object in all its frames.

A label numbers its objects anew and says which number means which object of the sequence (its global id). Global ids
of long sequences pass 999, so they are given smaller numbers then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from gestalt.data.tfrecord import Record
from gestalt.data.waymo_frames import InstanceName, LabelledImage, read_label
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, VOID, PanopticMap

LAST_NUMBER = INSTANCES_PER_CLASS - 1
UNDEFINED = 0
LARGEST_ID = np.iinfo(np.uint16).max


def number_instances(labels: Sequence[LabelledImage]) -> list[dict[int, int] | None]:
    """Numbers 1..999 of the instances of a sequence; a tracked object has one in all labels, whatever the camera.

    Numbers are the global ids where all of them fit. Otherwise tracked objects come first, in the order of their global
    ids, and others, which are objects of one label only, take turns with the numbers that are left, so that one comes
    back only when all others were used.

    Args:
        labels: Of one sequence, all cameras.

    Returns:
        Local instance -> number for each of ``labels``, in their order; None for all where no label knows global ids.

    Raises:
        DataError: There are more tracked objects than numbers.
    """
    if not any(label.instances for label in labels):
        return [None] * len(labels)
    if all(map(_fits, labels)):
        return [{name.local_id: name.global_id for name in label.instances} for label in labels]
    tracked = [_tracked(label) for label in labels]
    rank = {global_id: place for place, global_id in enumerate(sorted(set().union(*tracked)), start=1)}
    untracked = [
        sorted({name.local_id for name in label.instances} - set(known.values()))
        for label, known in zip(labels, tracked)
    ]
    n_free, most = LAST_NUMBER - len(rank), max(map(len, untracked))
    if most > n_free:
        raise DataError(
            f"{labels[0].context}: {len(rank)} tracked objects and up to {most} others in an image do not fit the "
            f"numbers 1..{LAST_NUMBER}; with the option `instance_ids: image` objects are numbered image by image"
        )
    numbers: list[dict[int, int] | None] = [None] * len(labels)
    n_used: Counter[str] = Counter()
    for place in sorted(range(len(labels)), key=lambda place: labels[place].timestamp_us):
        used = n_used[labels[place].camera]
        numbers[place] = {local_id: rank[global_id] for global_id, local_id in tracked[place].items()} | {
            local_id: len(rank) + 1 + (used + turn) % n_free for turn, local_id in enumerate(untracked[place])
        }
        n_used[labels[place].camera] += len(untracked[place])
    return numbers


def read_panoptic(record: Record, camera: str, numbers: Mapping[int, int] | None) -> PanopticMap:
    """A panoptic label in Waymo's raw ids.

    Args:
        record: The frame.
        camera: A key of ``CAMERAS``.
        numbers: Local instance -> number 1..999. Instances that are not in it get the largest numbers that are free.
            None takes the numbers of the label.

    Returns:
        Instances are ``class * 1000 + number``; the undefined class has none.

    Raises:
        DataError: The record or the label is broken, or a class or a number does not fit.
    """
    label = read_label(record, camera)
    name = f"panoptic label {camera} of {record.name}"
    present = np.flatnonzero(np.bincount(label.values.ravel(), minlength=1 << 16))
    classes, local_ids = np.divmod(present, label.divisor)
    is_instance = (local_ids > 0) & (classes != UNDEFINED)
    if numbers is not None:
        known = _fill_up(numbers, np.unique(local_ids[is_instance]).tolist())
        local_ids = np.array([known.get(number, 0) for number in local_ids.tolist()], np.int64)
    ids = np.where(is_instance, classes * INSTANCES_PER_CLASS + local_ids, 0)
    if (
        classes.max(initial=0) >= VOID
        or local_ids[is_instance].max(initial=0) > LAST_NUMBER
        or (ids > LARGEST_ID).any()
    ):
        raise DataError(
            f"{name} must hold class * {label.divisor} + number with classes of the data set and numbers up to "
            f"{LAST_NUMBER}. Got values up to {present.max()}"
        )
    semantic, instance = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint16)
    semantic[present], instance[present] = classes, ids
    return PanopticMap(semantic[label.values], instance[label.values])


def _fits(label: LabelledImage) -> bool:
    """Whether global ids can be the numbers as they are."""
    global_ids = {name.global_id for name in label.instances}
    return len(global_ids) == len(label.instances) and all(0 < number <= LAST_NUMBER for number in global_ids)


def _tracked(label: LabelledImage) -> dict[int, int]:
    """Global id -> local id; of two instances in one image that claim to be one object, the first is."""
    found: dict[int, InstanceName] = {}
    for name in label.instances:
        if name.is_tracked:
            found.setdefault(name.global_id, name)
    return {global_id: name.local_id for global_id, name in found.items()}


def _fill_up(numbers: Mapping[int, int], local_ids: Sequence[int]) -> dict[int, int]:
    """``numbers`` with the largest free ones for the instances that have none."""
    strangers = [local_id for local_id in local_ids if local_id not in numbers]
    taken = set(numbers.values())
    free = (number for number in range(LAST_NUMBER, 0, -1) if number not in taken)
    return dict(numbers) | dict(zip(strangers, free))
