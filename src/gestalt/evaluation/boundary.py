"""Boundary IoU and Boundary PQ: how well the outlines of segments agree, which IoU of large masks hides.

Per image a table of segment pairs with the pixels near the borders on either side::

    statistics = merge_boundaries(boundary_statistics(prediction, truth, image_id=name) for ...)
    boundary_counts(statistics.with_groups_as_crowd(things), n_classes).total()  # PanopticQuality: Boundary PQ, SQ, RQ
    class_boundary_counts(statistics, n_classes).total().mean_iou  # mean Boundary IoU of classes

Predictions come in class ids: where two pseudo-classes become one class, the border between them vanishes, which no
table can know (``relabel_map`` turns a map of pseudo-classes into one of classes).

Source:
    Cheng et al., Boundary IoU, CVPR 2021: the boundary region of a mask are its pixels within d of its contour, d = 2 %
    of the image diagonal; for panoptic segmentation min(IoU, Boundary IoU) takes the place of IoU. Distances are
    those of the authors' code, the larger of rows and columns, and the border of the image is a contour.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.intersections import (
    NO_PREDICTION,
    IntersectionTable,
    check_sizes,
    count_tuples,
    group_rows,
    predicted_segments,
    sum_by,
    true_segments,
)
from gestalt.evaluation.panoptic_quality import (
    BDD100K,
    STANDARD,
    VOID_NEUTRAL,
    PanopticCounts,
    panoptic_counts,
)
from gestalt.evaluation.semantic import SemanticCounts
from gestalt.panoptic import VOID, PanopticMap, UInt8Array

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# Share of the image diagonal that a boundary region is wide, as published.
DILATION_SHARE = 0.02

# How near a pixel is to a border: not at all, to one between instances of a class, to one of its class.
INSTANCE_BORDER, CLASS_BORDER = 1, 2
N_LEVELS = 3


@dataclass(frozen=True, eq=False)
class BoundaryStatistics:
    """Pairs of segments with the pixels in their boundary regions; statistics of images merge in any order.

    Attributes:
        table: (R) rows of shared pixels, predictions in class ids; see ``IntersectionTable``.
        in_prediction: (R,) int64, those of them in the boundary region of the predicted segment.
        in_truth: (R,) int64, those in the boundary region of the true segment.
        in_both: (R,) int64, those in both.
        class_in_prediction: (R,) int64, those near the border of the predicted class, instances forgotten.
        class_in_truth: (R,) int64, those near the border of the true class.
        class_in_both: (R,) int64, those near both.
    """

    table: IntersectionTable
    in_prediction: IntArray
    in_truth: IntArray
    in_both: IntArray
    class_in_prediction: IntArray
    class_in_truth: IntArray
    class_in_both: IntArray

    def with_groups_as_crowd(self, thing_classes: Collection[int]) -> BoundaryStatistics:
        """The same with group regions (thing class, no instance) as crowds: never matched, never missed."""
        table = self.table
        is_group = np.isin(table.true_class, list(thing_classes)) & (table.true_instance == 0)
        return _regroup(self, is_crowd=table.is_crowd | is_group)

    def with_small_objects_void(self, thing_classes: Collection[int], min_area_px: int) -> BoundaryStatistics:
        """The same with true objects (thing class, own instance) below ``min_area_px`` pixels as void."""
        true = true_segments(self.table)
        is_small = (
            (true.instance > 0) & (true.area < min_area_px) & np.isin(true.class_id, list(thing_classes))
        )
        true_class = np.where(is_small[true.of_row], VOID, self.table.true_class)
        return _regroup(self, true_class=true_class)

    def boundary_iou(self, convention: str = STANDARD) -> FloatArray:
        """(R,) float64, Boundary IoU of the two segments of each row; 0 in rows of void.

        Void leaves the union as it does for panoptic quality in that convention: true void except in ``bdd100k``,
        predicted void in ``void_neutral`` only.
        """
        table = self.table
        predicted, true = predicted_segments(table), true_segments(table)
        ours, theirs = predicted.of_row, true.of_row
        counts_ours = np.ones(len(table), np.bool_) if convention == BDD100K else table.true_class != VOID
        counts_theirs = np.ones(len(table), np.bool_)
        if convention == VOID_NEUTRAL:
            counts_theirs = table.predicted_class != VOID
        our_px = sum_by(ours, np.where(counts_ours, self.in_prediction, 0), len(predicted.area))
        their_px = sum_by(theirs, np.where(counts_theirs, self.in_truth, 0), len(true.area))
        union = our_px[ours] + their_px[theirs] - self.in_both
        is_pair = (table.true_class < VOID) & (table.predicted_class < VOID) & (union > 0)
        iou: FloatArray = np.divide(self.in_both, union, out=np.zeros(len(table)), where=is_pair)
        return iou


# Counts of pixels per row, all of which add up.
COLUMNS = tuple(field.name for field in dataclasses.fields(BoundaryStatistics))[1:]


def boundary_statistics(
    prediction: PanopticMap | None,
    truth: PanopticMap,
    *,
    dilation_share: float = DILATION_SHARE,
    image_id: str = "image",
) -> BoundaryStatistics:
    """The statistics of one image.

    Exact for all segments at once: a border pixel has a neighbour (of eight) in another segment, and a pixel is in
    the boundary region of its segment when a border pixel lies within d - 1 of it.

    Args:
        prediction: Map in class ids; None where nothing was predicted, which counts as missed.
        truth: Map in ids of the label space.
        dilation_share: Width d of boundary regions as a share of the image diagonal; at least one pixel.
        image_id: Name of the image.

    Raises:
        ShapeError: The maps differ in size.
        ConfigError: ``dilation_share`` is not positive.
    """
    check_sizes(image_id, prediction, truth)
    distance_px = boundary_distance(truth.size, dilation_share)
    true_level = border_levels(truth, distance_px)
    if prediction is None:
        (true_class, true_instance, level), counts = count_tuples(
            truth.semantic_map, truth.instance_map, true_level
        )
        predicted_class, predicted_instance = (
            np.full_like(true_class, NO_PREDICTION),
            np.zeros_like(true_class),
        )
        predicted_levels, true_levels = np.zeros_like(level), level
    else:
        levels = border_levels(prediction, distance_px) * np.uint8(N_LEVELS) + true_level
        (true_class, true_instance, predicted_class, predicted_instance, level), counts = count_tuples(
            truth.semantic_map, truth.instance_map, prediction.semantic_map, prediction.instance_map, levels
        )
        predicted_levels, true_levels = np.divmod(level, N_LEVELS)
    table = IntersectionTable(
        (image_id,),
        image=np.zeros(len(counts), np.int64),
        predicted_class=predicted_class,
        predicted_instance=np.where(predicted_class >= VOID, 0, predicted_instance),
        true_class=true_class,
        true_instance=np.where(true_class == VOID, 0, true_instance),
        is_crowd=np.zeros(len(counts), np.bool_),
        n_pixels=counts,
    )

    def pixels(predicted_from: int, true_from: int) -> IntArray:
        return np.where((predicted_levels >= predicted_from) & (true_levels >= true_from), counts, 0)

    return _regroup(
        BoundaryStatistics(
            table,
            in_prediction=pixels(INSTANCE_BORDER, 0),
            in_truth=pixels(0, INSTANCE_BORDER),
            in_both=pixels(INSTANCE_BORDER, INSTANCE_BORDER),
            class_in_prediction=pixels(CLASS_BORDER, 0),
            class_in_truth=pixels(0, CLASS_BORDER),
            class_in_both=pixels(CLASS_BORDER, CLASS_BORDER),
        )
    )


def merge_boundaries(statistics: Iterable[BoundaryStatistics]) -> BoundaryStatistics:
    """The statistics of all images; the order does not matter.

    Raises:
        DataError: An image occurs twice, or there is none.
    """
    parts = list(statistics)
    image_ids = sorted(name for part in parts for name in part.table.image_ids)
    if not image_ids:
        raise DataError("there is no image to measure boundaries in; the ground truth is empty")
    if len(set(image_ids)) < len(image_ids):
        twice = sorted({name for name in image_ids if image_ids.count(name) > 1})
        raise DataError(f"{len(twice)} images occur twice and would count twice: {', '.join(twice[:10])}")
    position = {name: index for index, name in enumerate(image_ids)}
    image = np.concatenate(
        [np.array([position[name] for name in part.table.image_ids])[part.table.image] for part in parts]
    )

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part.table, name) for part in parts])

    names = [field.name for field in dataclasses.fields(IntersectionTable)][2:]
    table = IntersectionTable(tuple(image_ids), image, **{name: joined(name) for name in names})
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    return _regroup(BoundaryStatistics(table, **columns))


def boundary_counts(
    statistics: BoundaryStatistics, n_classes: int, convention: str = STANDARD
) -> PanopticCounts:
    """Boundary PQ: panoptic quality with min(IoU, Boundary IoU) in place of IoU, per image.

    Args:
        statistics: Predictions in classes.
        n_classes: C; ids are 0..C-1.
        convention: ``void_neutral``, ``standard`` or ``bdd100k``; see ``panoptic_counts``.
    """
    return panoptic_counts(
        statistics.table, n_classes, convention, iou_limit=statistics.boundary_iou(convention)
    )


def class_boundary_counts(
    statistics: BoundaryStatistics, n_classes: int, ignored: Collection[int] = ()
) -> SemanticCounts:
    """Boundary IoU of class maps, instances forgotten: pixels near the borders of each class, per image.

    The ``mean_iou`` of its total is the mean Boundary IoU of the classes, over all images together; its
    ``pixel_accuracy`` is the share of true boundary regions that is found. Pixels of true void count for nothing;
    predicted void and missing predictions are wrong.

    Args:
        statistics: Predictions in classes.
        n_classes: C; ids are 0..C-1.
        ignored: Classes that are left out, and whose true pixels are left out.
    """
    table = statistics.table
    shape = (len(table.image_ids), n_classes)

    def sums(which: npt.NDArray[np.bool_], class_id: IntArray, n_pixels: IntArray) -> IntArray:
        cells = table.image[which] * n_classes + class_id[which]
        return sum_by(cells, n_pixels[which], shape[0] * n_classes).reshape(shape)

    left_out = sorted(ignored)
    is_true = (table.true_class < n_classes) & ~np.isin(table.true_class, left_out)
    is_predicted = (table.predicted_class < n_classes) & ~np.isin(table.predicted_class, left_out)
    is_predicted &= ~np.isin(table.true_class, [*left_out, VOID])
    is_right = is_true & (table.predicted_class == table.true_class)
    return SemanticCounts(
        right=sums(is_right, table.true_class, statistics.class_in_both),
        predicted=sums(is_predicted, table.predicted_class, statistics.class_in_prediction),
        true=sums(is_true, table.true_class, statistics.class_in_truth),
    )


def boundary_distance(size: tuple[int, int], dilation_share: float = DILATION_SHARE) -> int:
    """Width of boundary regions in pixels, at least 1.

    Args:
        size: (H, W).
        dilation_share: Of the image diagonal.

    Raises:
        ConfigError: The share is not positive and finite.
    """
    if not (math.isfinite(dilation_share) and dilation_share > 0):
        raise ConfigError(
            f"dilation_share must be above 0 (published: {DILATION_SHARE}). Got: {dilation_share}"
        )
    return max(round(dilation_share * math.hypot(*size)), 1)


def border_levels(panoptic: PanopticMap, distance_px: int) -> UInt8Array:
    """Which pixels lie in the boundary region of their segment, and of their class.

    Args:
        panoptic: Any map.
        distance_px: Width of boundary regions; distances are the larger of rows and columns.

    Returns:
        (H, W) uint8: 0 inside of a segment, 1 within ``distance_px`` of another segment of the same class, 2 within it
        of another class or of the border of the image. Pixels of void may have any value.
    """
    # Two cheap passes replace one per segment: find the pixels with a neighbour elsewhere, then widen them. Levels
    # widen together, because what is near the border of a class is near the border of a segment.
    level: UInt8Array = np.maximum(
        _varies(panoptic.instance_map).view(np.uint8) * np.uint8(INSTANCE_BORDER),
        _varies(panoptic.semantic_map).view(np.uint8) * np.uint8(CLASS_BORDER),
    )
    level[[0, -1], :] = CLASS_BORDER
    level[:, [0, -1]] = CLASS_BORDER
    if distance_px == 1:
        return level
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * distance_px - 1,) * 2)
    widened: UInt8Array = cv2.dilate(level, square)
    return widened


def relabel_map(
    prediction: PanopticMap,
    class_of: Sequence[int],
    thing_classes: Collection[int],
    *,
    stuff: Collection[int] = (),
    min_stuff_px: int = 0,
) -> PanopticMap:
    """A map of pseudo-classes as one of classes: the same segments as ``relabel_predictions`` makes in tables.

    Args:
        prediction: In pseudo-classes 0..P-1.
        class_of: Class of each pseudo-class, 255 for none.
        thing_classes: Countable classes; segments of others lose their instance and merge.
        stuff: Pseudo-classes that are stuff.
        min_stuff_px: Smaller segments of ``stuff`` become void, as in ``void_small_stuff``.

    Raises:
        DataError: A pixel has a pseudo-class outside 0..P-1 that is not void, or there are more segments of things than
            16 bits can number.
    """
    (pseudo_class, instance), n_pixels = count_tuples(prediction.semantic_map, prediction.instance_map)
    present = np.unique(pseudo_class)
    if outside := present[(present >= len(class_of)) & (present < VOID)].tolist():
        raise DataError(
            f"pseudo-classes must be 0..{len(class_of) - 1}, or {VOID} for void. Got: {outside[:10]}"
        )
    lookup = np.full(VOID + 1, VOID, np.uint8)
    lookup[: len(class_of)] = class_of
    semantic = lookup[prediction.semantic_map]
    is_thing = np.isin(lookup, list(thing_classes))
    # One flat lookup by pseudo-class and instance is faster than one along two axes.
    width = int(instance.max(initial=0)) + 1
    kept = is_thing[pseudo_class]
    if (n_kept := int(kept.sum())) > (limit := np.iinfo(np.uint16).max):
        raise DataError(f"an image can have {limit} segments of things. Got: {n_kept}")
    numbers = np.zeros((VOID + 1) * width, np.uint16)
    numbers[pseudo_class[kept] * width + instance[kept]] = np.arange(1, n_kept + 1)
    instances = numbers.take(prediction.semantic_map.astype(np.int32) * width + prediction.instance_map)
    for small in np.flatnonzero((n_pixels < min_stuff_px) & np.isin(pseudo_class, list(stuff))):
        inside = (prediction.semantic_map == pseudo_class[small]) & (
            prediction.instance_map == instance[small]
        )
        semantic[inside], instances[inside] = VOID, 0
    return PanopticMap(semantic, instances)


def _varies(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether the 3x3 neighbourhood of a pixel, inside the image, holds another value than the pixel's."""
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (3, 3))
    varies: npt.NDArray[np.bool_] = cv2.dilate(values, square) != cv2.erode(values, square)
    return varies


def _regroup(statistics: BoundaryStatistics, **keys: npt.NDArray[Any]) -> BoundaryStatistics:
    """The same pixels under other names: equal rows are summed, void loses its instances, rows are sorted."""
    names = ("image", "true_class", "true_instance", "is_crowd", "predicted_class", "predicted_instance")
    rows = {name: keys.get(name, getattr(statistics.table, name)) for name in names}
    is_void = rows["true_class"] == VOID
    rows["true_instance"] = np.where(is_void, 0, rows["true_instance"])
    rows["is_crowd"] = rows["is_crowd"] & ~is_void
    first, of_row = group_rows(*rows.values())
    table = IntersectionTable(
        image_ids=statistics.table.image_ids,
        **{name: values[first] for name, values in rows.items()},
        n_pixels=sum_by(of_row, statistics.table.n_pixels, len(first)),
    )
    columns = {name: sum_by(of_row, getattr(statistics, name), len(first)) for name in COLUMNS}
    return BoundaryStatistics(table, **columns)
