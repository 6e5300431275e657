"""Panoptic quality in three conventions of void, from tables of segment intersections.

``standard`` is the rule of the official panoptic API (Kirillov et al., CVPR 2019). ``void_neutral`` is the
rule that unsupervised panoptic segmentation was published with: it leaves predicted void out of the union too
and forgives what lies under it, so leaving pixels unlabelled is free. ``bdd100k`` is the rule of the official
BDD100K
evaluation: as ``standard``, but true void stays in the union.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
        true_positives: (C,) int64.
        false_positives: (C,) int64.
        false_negatives: (C,) int64.
        iou_sum: (C,) float64, over the true positives.
    """

    convention: str
    true_positives: IntArray
    false_positives: IntArray
    false_negatives: IntArray
    iou_sum: FloatArray

    @property
    def occurs(self) -> npt.NDArray[np.bool_]:
        """(C,) bool: the class has a segment in truth or prediction that counts; others are in no mean."""
        return (self.true_positives + self.false_positives + self.false_negatives) > 0

    def per_class(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(C,) PQ, SQ, RQ in percent; 0 where nothing matched."""
        denominator = self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives
        recognition = _ratio(self.true_positives, denominator)
        segmentation = _ratio(self.iou_sum, self.true_positives)
        return 100 * _ratio(self.iou_sum, denominator), 100 * segmentation, 100 * recognition

    def mean(self, classes: Iterable[int]) -> dict[str, float]:
        """PQ, SQ, RQ in percent as means over those of ``classes`` that occur, and their number."""
        chosen = np.array([class_id for class_id in classes if self.occurs[class_id]], np.int64)
        means = [float(values[chosen].mean()) if len(chosen) else 0.0 for values in self.per_class()]
        return {"PQ": means[0], "SQ": means[1], "RQ": means[2], "n_classes": len(chosen)}

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


def panoptic_quality(
    table: IntersectionTable, n_classes: int, convention: str = VOID_NEUTRAL
) -> PanopticQuality:
    """Match segments and count.

    Args:
        table: Predictions in class ids (see ``relabel_predictions``); rows marked as crowd follow the
            official rule: never matched, never missed, and they forgive predictions of their class.
        n_classes: C; ids are 0..C-1.
        convention: ``void_neutral``, ``standard`` or ``bdd100k``.

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
    matched = iou > MATCH_IOU
    ours, theirs, iou = ours[matched], theirs[matched], iou[matched]

    forgiven_px = in_true_void + _covered_by_crowd(table, predicted, true)
    is_false = (predicted.class_id < n_classes) & (forgiven_px / predicted.area <= FORGIVEN_SHARE)
    is_false[ours] = False
    is_missed = (true.class_id < n_classes) & ~true.is_crowd
    is_missed &= in_predicted_void / true.area <= FORGIVEN_SHARE
    is_missed[theirs] = False

    classes = true.class_id[theirs]
    return PanopticQuality(
        convention=convention,
        true_positives=np.bincount(classes, minlength=n_classes),
        false_positives=np.bincount(predicted.class_id[is_false], minlength=n_classes),
        false_negatives=np.bincount(true.class_id[is_missed], minlength=n_classes),
        iou_sum=np.bincount(classes, weights=iou, minlength=n_classes).astype(np.float64),
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
    ratio: FloatArray = np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
    return ratio
