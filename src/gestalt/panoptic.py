"""The vocabulary of panoptic segmentation: maps, label spaces, pseudo-class vocabularies, encodings.

Every room speaks through these types. They hold rules of the problem and no algorithm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError

# The one id of ignored pixels, in every map, loss and metric.
VOID = 255

# Cityscapes writes `class * 1000 + instance`; more instances of a class do not fit.
INSTANCES_PER_CLASS = 1000
# Instances of a larger one would not fit 16 bits.
LAST_COUNTED_CLASS = np.iinfo(np.uint16).max // INSTANCES_PER_CLASS
# What the lookup of classes says of values that are none.
NO_CLASS = 254

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """One image's panoptic segmentation in two channels.

    Attributes:
        semantic_map: (H, W) uint8, class or pseudo-class id of each pixel, 255 where void.
        instance_map: (H, W) uint16, 0 where no instance is, otherwise its id, unique in the image
            whatever the class. Stuff has instance 0; a thing pixel with instance 0 belongs to a group
            whose members nobody separated.

    Raises:
        ShapeError: The maps are not (H, W), differ in size, or have another dtype.
    """

    semantic_map: UInt8Array
    instance_map: UInt16Array

    def __post_init__(self) -> None:
        for name, array, dtype in (
            ("semantic_map", self.semantic_map, np.uint8),
            ("instance_map", self.instance_map, np.uint16),
        ):
            if array.ndim != 2 or array.dtype != dtype:
                raise ShapeError(
                    f"{name} must be (H, W) {np.dtype(dtype).name}. Got: {array.shape} {array.dtype}"
                )
        if self.semantic_map.shape != self.instance_map.shape:
            raise ShapeError(
                "semantic_map and instance_map must have one size. "
                f"Got: {self.semantic_map.shape} and {self.instance_map.shape}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.semantic_map.shape
        return height, width


@dataclass(frozen=True)
class LabelClass:
    """One class of a label space."""

    id: int
    name: str
    is_thing: bool
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class LabelSpace:
    """The classes a ground truth is expressed in, such as ``cityscapes19``; ids are 0..C-1."""

    name: str
    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        ids = [entry.id for entry in self.classes]
        if ids != list(range(len(ids))):
            raise DataError(f"label space {self.name}: class ids must be 0..C-1 in order. Got: {ids}")

    @property
    def thing_ids(self) -> tuple[int, ...]:
        """Ids of the countable classes."""
        return tuple(entry.id for entry in self.classes if entry.is_thing)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        """Ids of the uncountable classes."""
        return tuple(entry.id for entry in self.classes if not entry.is_thing)

    def palette(self) -> UInt8Array:
        """(256, 3) uint8 RGB colour of each id; void and unknown ids are black."""
        palette = np.zeros((256, 3), np.uint8)
        for entry in self.classes:
            palette[entry.id] = entry.colour
        return palette


@dataclass(frozen=True)
class Vocabulary:
    """The thing-stuff split of the pseudo-classes, in the order that the network's outputs follow.

    Attributes:
        things: Pseudo-classes (cluster ids) that are things; position = thing index 0..T-1.
        stuff: Pseudo-classes that are stuff; position = stuff index 0..S-1.

    In the **unified** space of predictions, stuff index s is id s and thing index t is id S + t.
    """

    things: tuple[int, ...]
    stuff: tuple[int, ...]

    def __post_init__(self) -> None:
        everything = sorted(self.things + self.stuff)
        if everything != list(range(len(everything))):
            raise DataError(
                "a vocabulary must hold each pseudo-class 0..P-1 once, as thing or as stuff. "
                f"Got: things {self.things}, stuff {self.stuff}"
            )

    @property
    def n_pseudo_classes(self) -> int:
        """P = T + S."""
        return len(self.things) + len(self.stuff)

    @property
    def unified_things(self) -> tuple[int, ...]:
        """Unified ids of the things: S..S+T-1."""
        return tuple(range(len(self.stuff), self.n_pseudo_classes))

    @property
    def unified_stuff(self) -> tuple[int, ...]:
        """Unified ids of the stuff: 0..S-1."""
        return tuple(range(len(self.stuff)))

    def unified_table(self) -> UInt8Array:
        """(256,) uint8 lookup from pseudo-class id to unified id; everything else is void."""
        table = np.full(256, VOID, np.uint8)
        for position, pseudo_class in enumerate(self.stuff + self.things):
            table[pseudo_class] = position
        return table

    def save(self, path: Path) -> None:
        """Write as JSON."""
        content = {"things": list(self.things), "stuff": list(self.stuff)}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what ``save`` or the stage ``thing_stuff`` wrote; other keys of the file are left alone.

        Raises:
            DataError: The file is missing or is not a vocabulary.
        """
        if not path.exists():
            raise DataError(f"{path} does not exist; `dvc repro thing_stuff` makes it")
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            return cls(things=tuple(content["things"]), stuff=tuple(content["stuff"]))
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} must hold the lists `things` and `stuff`: {error!r}") from error


def from_instance_ids(ids: npt.NDArray[Any]) -> PanopticMap:
    """Read Cityscapes form: values below 1000 are classes, others ``class * 1000 + n``.

    Args:
        ids: (H, W) integer.

    Returns:
        Instances keep their value, so an object has one id in all frames of a video, and nothing of ``ids`` is lost.
        Classes are 0..65 and 255 (void).

    Raises:
        ShapeError: ``ids`` is not (H, W).
        DataError: A value is neither a class nor an instance of one, as where 16-bit ids lost their upper 8 bits.
    """
    if ids.ndim != 2:
        raise ShapeError(f"an instance-id map must be (H, W). Got: {ids.shape}")
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise DataError(f"an instance-id map must hold 0..{np.iinfo(np.uint16).max}. Got: {low}..{high}")
    values = ids.astype(np.uint16, copy=False)
    semantic = _class_table()[values]
    is_wrong = semantic == NO_CLASS
    if is_wrong.any():
        _explain_instance_ids(np.unique(values[is_wrong]), high)
    return PanopticMap(semantic, values * (values >= INSTANCES_PER_CLASS))


@cache
def _class_table() -> UInt8Array:
    """(65536,) uint8: class of each value in Cityscapes form, ``NO_CLASS`` where it has none."""
    values = np.arange(np.iinfo(np.uint16).max + 1)
    is_class = (values <= LAST_COUNTED_CLASS) | (values == VOID)
    without_instance = np.where(is_class, values, NO_CLASS)
    return np.where(values < INSTANCES_PER_CLASS, without_instance, values // INSTANCES_PER_CLASS).astype(
        np.uint8
    )


def _explain_instance_ids(wrong: UInt16Array, high: int) -> NoReturn:
    listed = ", ".join(map(str, wrong[:10].tolist())) + (", ..." if len(wrong) > 10 else "")
    reason = (
        "No value needs more than 8 bits, so 16-bit ids were probably saved with 8; write them as 16-bit PNG"
        if high < 2**8
        else "Write instances as class * 1000 + number, and pixels without one as their class"
    )
    raise DataError(
        f"an instance-id map must hold classes 0..{LAST_COUNTED_CLASS}, {VOID} where void, and "
        f"class * {INSTANCES_PER_CLASS} + number. Got: {listed}. {reason}"
    )


def ids_to_rgb(ids: npt.NDArray[Any]) -> UInt8Array:
    """COCO panoptic colours of segment ids: (H, W) integer -> (H, W, 3) uint8, id = R + 256 G + 65536 B."""
    # The lowest byte comes first in memory, so the colours are the first three of four.
    stored = np.ascontiguousarray(ids, np.dtype("<u4"))
    return np.ascontiguousarray(stored.view(np.uint8).reshape(*ids.shape, 4)[..., :3])


def rgb_to_ids(rgb: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Inverse of ``ids_to_rgb``: (H, W, 3 or 4) uint8 -> (H, W) int32.

    Raises:
        ShapeError: ``rgb`` has another shape.
    """
    if rgb.ndim != 3 or rgb.shape[-1] not in (3, 4):
        raise ShapeError(f"a COCO panoptic image must be (H, W, 3). Got: {rgb.shape}")
    wide = rgb.astype(np.int32)
    return wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]


def segment_ids(panoptic: PanopticMap) -> npt.NDArray[np.int32]:
    """(H, W) int32, one id per segment: 0 where void, otherwise ``1 + class + 256 * instance``."""
    ids = 1 + panoptic.semantic_map.astype(np.int32) + 256 * panoptic.instance_map.astype(np.int32)
    return np.where(panoptic.semantic_map == VOID, 0, ids).astype(np.int32)


def segments_info(panoptic: PanopticMap, thing_ids: Sequence[int] = ()) -> list[dict[str, Any]]:
    """COCO ``segments_info`` that belongs to ``ids_to_rgb(segment_ids(panoptic))``.

    Returns:
        A record per segment: id, category_id, area (pixels), bbox (x, y, width, height), iscrowd
        (1 for a thing class without an instance id), sorted by id.
    """
    from scipy import ndimage

    # One pass for all segments: numbers 1..N in place of ids, then boxes and areas of the numbers. Instances that are
    # there get small ids first, because those of a long video are large and so would be the table.
    pixels = np.bincount(panoptic.instance_map.ravel(), minlength=1)
    pixels[0] = 1  # 0 stays 0, be it there or not
    instances = np.flatnonzero(pixels)
    small = np.zeros(len(pixels), np.uint16)
    small[instances] = np.arange(len(instances))
    ids = segment_ids(PanopticMap(panoptic.semantic_map, small[panoptic.instance_map]))
    values = np.unique(ids)
    values = values[values > 0]
    table = np.zeros(int(values.max(initial=0)) + 1, np.int32)
    table[values] = np.arange(1, len(values) + 1)
    numbers = table[ids]
    areas = np.bincount(numbers.ravel(), minlength=len(values) + 1)[1:]
    records = []
    for segment, area, (rows, columns) in zip(
        values.tolist(), areas.tolist(), ndimage.find_objects(numbers), strict=True
    ):
        instance, category = divmod(segment - 1, 256)
        records.append(
            {
                "id": 1 + category + 256 * int(instances[instance]),
                "category_id": category,
                "area": area,
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": int(category in thing_ids and segment <= VOID),
            }
        )
    return records
