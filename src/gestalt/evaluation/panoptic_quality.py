"""Panoptic quality in three conventions of void, from tables of segment intersections.

``standard`` is the rule of the official panoptic API (Kirillov et al., CVPR 2019). ``void_neutral`` is the
rule that unsupervised panoptic segmentation was published with: it leaves predicted void out of the union too
and forgives what lies under it, so leaving pixels unlabelled is free. ``bdd100k`` is the rule of the official
BDD100K evaluation: as ``standard``, but true void stays in the union.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import ConfigError
from gestalt.evaluation.intersections import (
    IntersectionTable,
    Segments,
    predicted_segments,
    sum_by,
    true_segments,
    weighted_sum,
)
from gestalt.panoptic import VOID

VOID_NEUTRAL = "void_neutral"
STANDARD = "standard"
BDD100K = "bdd100k"
CONVENTIONS = (VOID_NEUTRAL, STANDARD, BDD100K)

# Segments match above this intersection over union; then no segment can match twice.
MATCH_IOU = 0.5

# An unmatched segment is forgiven when more than this share of it is void (or crowd).
FORGIVEN_SHARE = 0.5

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PanopticQuality:
    """Counts per class, additive over images, and the qualities that follow from them.

    Attributes:
        convention: ``void_neutral``, ``standard`` or ``bdd100k``.
        true_positives: (..., C) int64; leading axes are resamples of the images.
        false_positives: (..., C) int64.
        false_negatives: (..., C) int64.
        iou_sum: (..., C) float64, over the true positives.
    """

    convention: str
    true_positives: IntArray
    false_positives: IntArray
    false_negatives: IntArray
    iou_sum: FloatArray

    @property
    def occurs(self) -> npt.NDArray[np.bool_]:
        """(..., C) bool: the class has a segment in truth or prediction that counts; others are in no mean."""
        return (self.true_positives + self.false_positives + self.false_negatives) > 0

    def per_class(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(..., C) PQ, SQ, RQ in percent; 0 where nothing matched."""
        denominator = self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives
        recognition = _ratio(self.true_positives, denominator)
        segmentation = _ratio(self.iou_sum, self.true_positives)
        return 100 * _ratio(self.iou_sum, denominator), 100 * segmentation, 100 * recognition

    def means(
        self, classes: Iterable[int], of_nothing: float = 0.0
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(...) PQ, SQ, RQ in percent as means over those of ``classes`` that occur.

        Args:
            classes: Class ids.
            of_nothing: The mean where none of them occurs.
        """
        chosen = sorted(classes)
        occurs = self.occurs[..., chosen]
        n_classes = occurs.sum(axis=-1)
        sums = (np.where(occurs, values[..., chosen], 0.0).sum(axis=-1) for values in self.per_class())
        pq, sq, rq = (np.where(n_classes > 0, total / np.maximum(n_classes, 1), of_nothing) for total in sums)
        return pq, sq, rq

    def mean(self, classes: Iterable[int]) -> dict[str, float]:
        """PQ, SQ, RQ in percent as means over those of ``classes`` that occur, and their number."""
        chosen = sorted(classes)
        pq, sq, rq = (float(value) for value in self.means(chosen))
        return {"PQ": pq, "SQ": sq, "RQ": rq, "n_classes": int(self.occurs[chosen].sum())}

    def to_dict(self, thing_classes: Collection[int], ignored: Collection[int] = ()) -> dict[str, Any]:
        """PQ, SQ, RQ over all classes, ``thing`` and ``stuff``, in percent.

        Args:
            thing_classes: Countable classes.
            ignored: Classes in no mean.
        """
        classes = [class_id for class_id in range(len(self.iou_sum)) if class_id not in ignored]
        return {
            **self.mean(classes),
            "thing": self.mean([class_id for class_id in classes if class_id in thing_classes]),
            "stuff": self.mean([class_id for class_id in classes if class_id not in thing_classes]),
        }


@dataclass(frozen=True, eq=False)
class PanopticCounts:
    """Counts per image and class: what every sum over images, and every resample of them, is made of.

    Attributes:
        convention: ``void_neutral``, ``standard`` or ``bdd100k``.
        image_ids: Names of the N images, in the order of the table.
        true_positives: (N, C) int64.
        false_positives: (N, C) int64.
        false_negatives: (N, C) int64.
        iou_sum: (N, C) float64, over the true positives.
    """

    convention: str
    image_ids: tuple[str, ...]
    true_positives: IntArray
    false_positives: IntArray
    false_negatives: IntArray
    iou_sum: FloatArray

    def total(self, weights: npt.NDArray[Any] | None = None) -> PanopticQuality:
        """The sums over all images.

        Args:
            weights: (..., N) int64, how often each image counts; once, without them.
        """
        counts = (self.true_positives, self.false_positives, self.false_negatives, self.iou_sum)
        return PanopticQuality(self.convention, *(weighted_sum(array, weights) for array in counts))

    def of_images(self) -> PanopticQuality:
        """Each image as if it were the whole evaluation set: leading axis N."""
        return PanopticQuality(
            self.convention, self.true_positives, self.false_positives, self.false_negatives, self.iou_sum
        )


def join_panoptic_counts(parts: Sequence[PanopticCounts]) -> PanopticCounts:
    """The counts of all images, of one convention; images stay in the order of the parts."""
    return PanopticCounts(
        parts[0].convention,
        tuple(name for part in parts for name in part.image_ids),
        *(
            np.concatenate([getattr(part, field) for part in parts])
            for field in ("true_positives", "false_positives", "false_negatives", "iou_sum")
        ),
    )


def panoptic_quality(
    table: IntersectionTable, n_classes: int, convention: str = VOID_NEUTRAL
) -> PanopticQuality:
    """Match segments and count over all images; see ``panoptic_counts``."""
    return panoptic_counts(table, n_classes, convention).total()


def panoptic_counts(
    table: IntersectionTable,
    n_classes: int,
    convention: str = VOID_NEUTRAL,
    iou_limit: FloatArray | None = None,
) -> PanopticCounts:
    """Match segments and count, per image.

    Args:
        table: Predictions in class ids (see ``relabel_predictions``); rows marked as crowd follow the
            official rule: never matched, never missed, and they forgive predictions of their class.
        n_classes: C; ids are 0..C-1.
        convention: ``void_neutral``, ``standard`` or ``bdd100k``.
        iou_limit: (R,) no pair of segments counts with a higher IoU, such as its Boundary IoU; none by default.

    Raises:
        ConfigError: The convention is unknown.

    Source:
        IoU = I / (A_predicted - A_predicted in true void + A_true - I), and with ``void_neutral`` also minus
        the part of A_true in predicted void; with ``bdd100k`` nothing is taken off. Where a class has several
        crowd segments in an image, only the last one forgives, as in the official implementation.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"the convention must be one of {', '.join(CONVENTIONS)}. Got: {convention!r}")
    predicted, true = predicted_segments(table), true_segments(table)
    in_true_void = sum_by(
        predicted.of_row, np.where(table.true_class == VOID, table.n_pixels, 0), len(predicted.area)
    )
    in_predicted_void = sum_by(
        true.of_row, np.where(table.predicted_class == VOID, table.n_pixels, 0), len(true.area)
    )
    if convention != VOID_NEUTRAL:
        in_predicted_void = np.zeros_like(in_predicted_void)
    not_in_union = np.zeros_like(in_true_void) if convention == BDD100K else in_true_void

    can_match = (table.predicted_class == table.true_class) & (table.true_class < n_classes) & ~table.is_crowd
    shared = table.n_pixels[can_match]
    ours, theirs = predicted.of_row[can_match], true.of_row[can_match]
    union = predicted.area[ours] - not_in_union[ours] + true.area[theirs] - in_predicted_void[theirs] - shared
    iou = shared / union
    if iou_limit is not None:
        iou = np.minimum(iou, iou_limit[can_match])
    matched = iou > MATCH_IOU
    ours, theirs, iou = ours[matched], theirs[matched], iou[matched]

    forgiven_px = in_true_void + _covered_by_crowd(table, predicted, true)
    is_false = (predicted.class_id < n_classes) & (forgiven_px / predicted.area <= FORGIVEN_SHARE)
    is_false[ours] = False
    is_missed = (true.class_id < n_classes) & ~true.is_crowd
    is_missed &= in_predicted_void / true.area <= FORGIVEN_SHARE
    is_missed[theirs] = False

    shape = (len(table.image_ids), n_classes)

    def count(segments: Segments, which: npt.NDArray[Any]) -> IntArray:
        cells = segments.image[which] * n_classes + segments.class_id[which]
        return np.bincount(cells, minlength=shape[0] * n_classes).reshape(shape)

    cells = true.image[theirs] * n_classes + true.class_id[theirs]
    return PanopticCounts(
        convention=convention,
        image_ids=table.image_ids,
        true_positives=count(true, theirs),
        false_positives=count(predicted, is_false),
        false_negatives=count(true, is_missed),
        iou_sum=np.bincount(cells, weights=iou, minlength=shape[0] * n_classes)
        .astype(np.float64)
        .reshape(shape),
    )


def _covered_by_crowd(table: IntersectionTable, predicted: Segments, true: Segments) -> IntArray:
    """Pixels of each predicted segment in the last crowd of its own class."""
    crowds = np.flatnonzero(true.is_crowd)
    image, class_id = true.image[crowds], true.class_id[crowds]
    is_last = np.ones(len(crowds), np.bool_)
    # Segments are sorted by image, class and instance, so a crowd's successor of its class follows it.
    is_last[:-1] = (image[1:] != image[:-1]) | (class_id[1:] != class_id[:-1])
    forgives = np.zeros(len(true.area), np.bool_)
    forgives[crowds[is_last]] = True
    counts = forgives[true.of_row] & (table.true_class == table.predicted_class)
    return sum_by(predicted.of_row, np.where(counts, table.n_pixels, 0), len(predicted.area))


def _ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    shape = np.shape(numerator)
    ratio: FloatArray = np.divide(numerator, denominator, out=np.zeros(shape), where=denominator > 0)
    return ratio
