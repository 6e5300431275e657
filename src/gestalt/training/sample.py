"""One labelled image on its way into the network: from pseudo-label maps to training targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError
from gestalt.panoptic import VOID, UInt8Array, UInt16Array, Vocabulary

# Channel of the semantic head that stands for every thing class; stuff index s is label s + 1.
THING_LABEL = 0


@dataclass(frozen=True, eq=False)
class TrainingSample:
    """An image and its labels as maps; masks never overlap because a pixel has one instance.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        semantic: (H, W) uint8: 0 thing, 1..S stuff index + 1, 255 void.
        instance: (H, W) uint16: 0 none, otherwise 1..N; an id may have lost all of its pixels.
        classes: Thing index of instance 1..N.
    """

    image: UInt8Array
    semantic: UInt8Array
    instance: UInt16Array
    classes: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.semantic.shape[0]), int(self.semantic.shape[1])


def sample_from_pseudo_label(
    image: UInt8Array,
    semantic: UInt8Array,
    instance: UInt16Array,
    vocabulary: Vocabulary,
    *,
    ignore_uncovered_things: bool,
    name: str,
) -> TrainingSample:
    """Express a pseudo-label in the classes that the network learns.

    Args:
        image: (H, W, 3) uint8 RGB.
        semantic: (H, W) uint8 pseudo-class, 255 void.
        instance: (H, W) uint16, 0 = none.
        vocabulary: The thing-stuff split.
        ignore_uncovered_things: Thing pixels without an instance become void instead of thing.
        name: The frame, for messages.

    Returns:
        The sample. An instance takes the thing class that most of its pixels have, void not counted; one
        whose majority is stuff is no object, and its area is void.

    Raises:
        DataError: Image and maps differ in size, or a pseudo-class is not in the vocabulary.
    """
    if image.shape[:2] != semantic.shape or semantic.shape != instance.shape:
        raise DataError(
            f"{name}: image {image.shape[:2]}, semantic {semantic.shape} and instance {instance.shape} "
            "map must have one size; the labels were made with another section `frames`: run "
            "`dvc repro pseudo_labels`"
        )
    unified = vocabulary.unified_table()[semantic]
    unknown = np.unique(semantic[(unified == VOID) & (semantic != VOID)])
    if len(unknown):
        raise DataError(
            f"{name}: pseudo-classes {unknown.tolist()} are not in the vocabulary of "
            f"{vocabulary.n_pseudo_classes}; run `dvc repro thing_stuff`"
        )
    n_stuff = len(vocabulary.stuff)
    is_thing = (unified >= n_stuff) & (unified != VOID)
    target = np.where(unified == VOID, VOID, np.where(is_thing, THING_LABEL, unified + 1)).astype(np.uint8)

    ids, compact = np.unique(instance, return_inverse=True)
    votes = count_pairs(compact.reshape(instance.shape), unified, (len(ids), VOID + 1))[:, :VOID]
    winner = votes.argmax(1)
    is_object = (winner >= n_stuff) & (votes.max(1) > 0) & (ids > 0)
    new_id = np.where(is_object, np.cumsum(is_object), 0).astype(np.uint16)
    new_instance = new_id[compact.reshape(instance.shape)]
    target[(instance > 0) & (new_instance == 0)] = VOID
    target[new_instance > 0] = THING_LABEL
    if ignore_uncovered_things:
        target[(target == THING_LABEL) & (new_instance == 0)] = VOID
    classes = tuple(int(unified_class) - n_stuff for unified_class in winner[is_object])
    return TrainingSample(image, target, new_instance, classes)


def mask_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask that is not empty; x1 and y1 are the first column and row outside."""
    columns = np.flatnonzero(mask.any(0))
    rows = np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def count_pairs(
    first: npt.NDArray[Any], second: npt.NDArray[Any], shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """How often each pair of values occurs at one pixel: (shape) int64."""
    pairs = first.astype(np.int64) * shape[1] + second
    return np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
