"""Sparse tables of the intersections between predicted and true segments: the core of every metric.

In come two panoptic maps of an image, out comes a row per pair of segments that share pixels. Tables of
images merge; matching, conventions and class masks are functions of a table and never see pixels again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID, PanopticMap

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Rows of weights that are floating-point numbers at a time.
ROWS_AT_ONCE = 50

# Predicted class of images without any prediction. Unlike void it is never forgiven: otherwise a convention
# that leaves predicted void out of the union would reward a method for failing on an image.
NO_PREDICTION = 256

# Of a COCO panoptic picture: red, green, blue.
COLOURS = 3
COLOUR_WEIGHTS = np.array([1, 2**8, 2**16], np.int64)


@dataclass(frozen=True, eq=False)
class IntersectionTable:
    """Rows of (image, predicted segment, true segment, number of shared pixels).

    A segment is a pair (class, instance) of one image. Void is a segment of its own, (255, 0), on either
    side, so the areas of all segments follow from the rows. Rows are sorted by image, true segment, predicted
    segment.

    Attributes:
        image_ids: Names of the images, sorted.
        image: (R,) int64, position in ``image_ids``.
        predicted_class: (R,) int64, (pseudo-)class, 255 where void, 256 where the image has no prediction.
        predicted_instance: (R,) int64, 0 for stuff.
        true_class: (R,) int64, 255 where void.
        true_instance: (R,) int64, 0 for stuff and for group regions.
        is_crowd: (R,) bool, the true segment is a crowd: it can neither be matched nor missed.
        n_pixels: (R,) int64, at least 1.
    """

    image_ids: tuple[str, ...]
    image: IntArray
    predicted_class: IntArray
    predicted_instance: IntArray
    true_class: IntArray
    true_instance: IntArray
    is_crowd: BoolArray
    n_pixels: IntArray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.n_pixels)


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one side of a table.

    Attributes:
        image: (N,) int64, position of the image in the table.
        class_id: (N,) int64.
        instance: (N,) int64.
        is_crowd: (N,) bool; false for predictions.
        area: (N,) int64, pixels.
        of_row: (R,) int64, the segment that each row of the table belongs to.
    """

    image: IntArray
    class_id: IntArray
    instance: IntArray
    is_crowd: BoolArray
    area: IntArray
    of_row: IntArray


def count_tuples(*maps: npt.NDArray[Any]) -> tuple[list[IntArray], IntArray]:
    """Count how often each tuple of values occurs over the pixels of maps of one size.

    Neighbouring pixels mostly agree, so runs of equal tuples are found first (a comparison per map) and only
    the runs are sorted: some milliseconds for 1024 x 2048 pixels, whatever the values are.

    Args:
        maps: Non-negative integer arrays (H, W) of one size; the product of (largest value + 1) is below 2**63.
            (H, W, 3) uint8 are colours that stand for numbers, R + 256 G + 65536 B.

    Returns:
        Per map an (R,) int64 array of values, and (R,) int64 pixel counts; rows in ascending order of the
        tuple.
    """
    flat = [np.ascontiguousarray(array).reshape(-1, *array.shape[2:]) for array in maps]
    n_pixels = len(flat[0])
    if n_pixels == 0:
        return [np.zeros(0, np.int64) for _ in maps], np.zeros(0, np.int64)
    is_start = np.zeros(n_pixels, np.bool_)
    is_start[0] = True
    for array in flat:
        if array.ndim == 1:
            is_start[1:] |= array[1:] != array[:-1]
        else:
            # Changes are few: finding them among the bytes is quicker than packing every pixel into a number.
            colours = array.reshape(-1)
            is_start[np.flatnonzero(colours[COLOURS:] != colours[:-COLOURS]) // COLOURS + 1] = True
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=n_pixels)
    columns = [
        array[starts].astype(np.int64) @ COLOUR_WEIGHTS if array.ndim == 2 else array[starts].astype(np.int64)
        for array in flat
    ]
    codes, radices = columns[0], [int(column.max()) + 1 for column in columns]
    for column, radix in zip(columns[1:], radices[1:]):
        codes = codes * radix + column
    unique, inverse = np.unique(codes, return_inverse=True)
    counts = np.bincount(inverse, weights=lengths).astype(np.int64)
    values = []
    for radix in reversed(radices):
        unique, column = np.divmod(unique, radix)
        values.append(column)
    return values[::-1], counts


def intersect(image_id: str, prediction: PanopticMap | None, truth: PanopticMap) -> IntersectionTable:
    """The table of one image.

    Args:
        image_id: Name of the image.
        prediction: Map in pseudo-class (or class) ids; None where nothing was predicted, which counts as
            missed.
        truth: Map in ids of the label space.

    Raises:
        ShapeError: The maps differ in size; nothing is resized here.
    """
    if prediction is None:
        true_class, true_instance = truth.semantic_map, truth.instance_map
        (true_classes, true_instances), counts = count_tuples(true_class, true_instance)
        predicted_classes = np.full_like(true_classes, NO_PREDICTION)
        predicted_instances = np.zeros_like(true_classes)
    else:
        check_sizes(image_id, prediction, truth)
        (true_classes, true_instances, predicted_classes, predicted_instances), counts = count_tuples(
            truth.semantic_map, truth.instance_map, prediction.semantic_map, prediction.instance_map
        )
    return build_table(
        (image_id,),
        image=np.zeros(len(counts), np.int64),
        predicted_class=predicted_classes,
        predicted_instance=predicted_instances,
        true_class=true_classes,
        true_instance=true_instances,
        is_crowd=np.zeros(len(counts), np.bool_),
        n_pixels=counts,
    )


def check_sizes(image_id: str, prediction: PanopticMap | None, truth: PanopticMap) -> None:
    """Raise a ``ShapeError`` where prediction and ground truth differ in size."""
    if prediction is not None and prediction.size != truth.size:
        raise ShapeError(
            f"{image_id}: prediction and ground truth must have one size (H, W), because resizing a label map "
            f"changes the score. Got: prediction {prediction.size}, ground truth {truth.size}; predict at the size "
            "of the ground truth"
        )


def build_table(
    image_ids: Sequence[str],
    *,
    image: IntArray,
    predicted_class: IntArray,
    predicted_instance: IntArray,
    true_class: IntArray,
    true_instance: IntArray,
    is_crowd: BoolArray,
    n_pixels: IntArray,
) -> IntersectionTable:
    """A table from rows in any order: equal rows are summed, void loses its instances, rows are sorted."""
    predicted_instance = np.where(predicted_class >= VOID, 0, predicted_instance)
    true_instance = np.where(true_class == VOID, 0, true_instance)
    is_crowd = is_crowd & (true_class != VOID)
    keys = (image, true_class, true_instance, is_crowd, predicted_class, predicted_instance)
    first, of_row = group_rows(*keys)
    return IntersectionTable(
        image_ids=tuple(image_ids),
        image=image[first],
        predicted_class=predicted_class[first],
        predicted_instance=predicted_instance[first],
        true_class=true_class[first],
        true_instance=true_instance[first],
        is_crowd=is_crowd[first],
        n_pixels=sum_by(of_row, n_pixels, len(first)),
    )


def merge_tables(tables: Iterable[IntersectionTable]) -> IntersectionTable:
    """One table of all images; the order of the tables does not matter.

    Raises:
        DataError: An image occurs twice, or there is no image at all.
    """
    tables = list(tables)
    image_ids = sorted(name for table in tables for name in table.image_ids)
    if not image_ids:
        raise DataError("there is no image to evaluate; the ground truth is empty")
    twice = sorted({name for name, following in itertools.pairwise(image_ids) if name == following})
    if twice:
        raise DataError(f"{len(twice)} images occur twice and would count twice: {', '.join(twice[:10])}")
    position = {name: index for index, name in enumerate(image_ids)}
    moved = [
        np.array([position[name] for name in table.image_ids], np.int64)[table.image] for table in tables
    ]
    order = np.argsort(np.concatenate(moved), kind="stable")

    def joined(field: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(table, field) for table in tables])[order]

    columns = [field.name for field in dataclasses.fields(IntersectionTable)][2:]
    return IntersectionTable(
        tuple(image_ids), np.concatenate(moved)[order], **{column: joined(column) for column in columns}
    )


def predicted_segments(table: IntersectionTable) -> Segments:
    """The segments of the prediction, void and missing predictions among them."""
    first, of_row = group_rows(table.image, table.predicted_class, table.predicted_instance)
    return Segments(
        image=table.image[first],
        class_id=table.predicted_class[first],
        instance=table.predicted_instance[first],
        is_crowd=np.zeros(len(first), np.bool_),
        area=sum_by(of_row, table.n_pixels, len(first)),
        of_row=of_row,
    )


def true_segments(table: IntersectionTable) -> Segments:
    """The segments of the ground truth, void among them."""
    first, of_row = group_rows(table.image, table.true_class, table.true_instance)
    return Segments(
        image=table.image[first],
        class_id=table.true_class[first],
        instance=table.true_instance[first],
        is_crowd=table.is_crowd[first],
        area=sum_by(of_row, table.n_pixels, len(first)),
        of_row=of_row,
    )


def relabel_predictions(
    table: IntersectionTable, class_of: Sequence[int], thing_classes: Collection[int]
) -> IntersectionTable:
    """Replace pseudo-classes by classes.

    Pseudo-classes that become the same stuff class merge into one segment per image; things stay separate.

    Args:
        table: Predictions in pseudo-classes 0..P-1.
        class_of: Class of each pseudo-class, 255 for none.
        thing_classes: Countable classes.
    """
    lookup = np.arange(NO_PREDICTION + 1, dtype=np.int64)
    lookup[: len(class_of)] = class_of
    predicted_class = lookup[table.predicted_class]
    is_thing = np.isin(predicted_class, list(thing_classes))
    # Instance numbers need not be unique over pseudo-classes, so the pseudo-class stays part of the name.
    names = table.predicted_instance * (NO_PREDICTION + 1) + table.predicted_class
    return _rebuild(table, predicted_class=predicted_class, predicted_instance=np.where(is_thing, names, 0))


def keep_instances_of(table: IntersectionTable, pseudo_classes: Collection[int]) -> IntersectionTable:
    """Let predicted segments of all but some pseudo-classes be of no instance: one per image and pseudo-class."""
    keeps = np.isin(table.predicted_class, list(pseudo_classes))
    return _rebuild(table, predicted_instance=np.where(keeps, table.predicted_instance, 0))


def void_predictions_without_instance(
    table: IntersectionTable, pseudo_classes: Collection[int]
) -> IntersectionTable:
    """Turn predicted pixels of some pseudo-classes into void where they belong to no instance."""
    is_loose = np.isin(table.predicted_class, list(pseudo_classes)) & (table.predicted_instance == 0)
    return _rebuild(table, predicted_class=np.where(is_loose, VOID, table.predicted_class))


def void_small_objects(
    table: IntersectionTable, thing_classes: Collection[int], min_area_px: int
) -> IntersectionTable:
    """Turn true objects (thing class, own instance) below ``min_area_px`` pixels into void."""
    if min_area_px == 0:
        return table
    segments = true_segments(table)
    is_small = (segments.instance > 0) & (segments.area < min_area_px)
    is_small &= np.isin(segments.class_id, list(thing_classes))
    return _rebuild(table, true_class=np.where(is_small[segments.of_row], VOID, table.true_class))


def void_small_stuff(
    table: IntersectionTable, pseudo_classes: Collection[int], min_area_px: int
) -> IntersectionTable:
    """Turn predicted segments of stuff pseudo-classes below ``min_area_px`` pixels into void."""
    if min_area_px == 0:
        return table
    segments = predicted_segments(table)
    is_small = np.isin(segments.class_id, list(pseudo_classes)) & (segments.area < min_area_px)
    return _rebuild(table, predicted_class=np.where(is_small[segments.of_row], VOID, table.predicted_class))


def mark_groups_as_crowd(table: IntersectionTable, thing_classes: Collection[int]) -> IntersectionTable:
    """Let group regions (thing class without an instance) be crowds, as the official Cityscapes tool does."""
    is_group = np.isin(table.true_class, list(thing_classes)) & (table.true_instance == 0)
    return _rebuild(table, is_crowd=table.is_crowd | is_group)


def clear_crowds(table: IntersectionTable) -> IntersectionTable:
    """Let crowds be ordinary segments."""
    return _rebuild(table, is_crowd=np.zeros(len(table), np.bool_))


def _rebuild(table: IntersectionTable, **columns: npt.NDArray[Any]) -> IntersectionTable:
    names = [field.name for field in dataclasses.fields(IntersectionTable)][1:]
    return build_table(table.image_ids, **{name: columns.get(name, getattr(table, name)) for name in names})


def group_rows(*keys: npt.NDArray[Any]) -> tuple[IntArray, IntArray]:
    """Group rows with equal keys.

    Returns:
        (G,) the first row of each group, groups in ascending order of the keys; (R,) the group of each row.
    """
    n_rows = len(keys[0])
    order = np.lexsort(keys[::-1])
    is_new = np.zeros(n_rows, np.bool_)
    is_new[:1] = True
    for key in keys:
        in_order = key[order]
        is_new[1:] |= in_order[1:] != in_order[:-1]
    of_row = np.empty(n_rows, np.int64)
    of_row[order] = np.cumsum(is_new) - 1
    return order[is_new], of_row


def sum_by(group: IntArray, values: npt.NDArray[Any], n_groups: int) -> IntArray:
    """(n_groups,) int64 sums of ``values`` per group; exact up to 2**53."""
    return np.bincount(group, weights=values, minlength=n_groups).astype(np.int64)


def weighted_sum(counts: npt.NDArray[Any], weights: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Sum numbers over images, (N, C) -> (C,), or for each of many resamples of the images, -> (..., C).

    Args:
        counts: (N, C) numbers of each image.
        weights: (..., N), how often each image counts; once, without them.
    """
    if weights is None:
        # Not as a product with ones: that may add in another order with another number of threads.
        total: npt.NDArray[Any] = counts.sum(axis=0)
        return total
    rows, summands = weights.reshape(-1, weights.shape[-1]), counts.astype(np.float64)
    sums = np.empty((len(rows), counts.shape[1]))
    # As floating-point numbers all weights of many images would be large.
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        sums[part] = rows[part].astype(np.float64) @ summands
    return sums.reshape(*weights.shape[:-1], counts.shape[1])
