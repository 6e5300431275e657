"""Semantic quality: mean intersection over union and pixel accuracy of matched pseudo-classes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gestalt.evaluation.intersections import NO_PREDICTION, IntersectionTable
from gestalt.evaluation.matching import Assignment, confusion_matrix
from gestalt.panoptic import VOID


@dataclass(frozen=True, eq=False)
class SemanticQuality:
    """Percent.

    Attributes:
        mean_iou: Mean over the classes that occur in truth or prediction.
        pixel_accuracy: Share of right pixels.
        iou: (C,) float64 per class, NaN where the class does not occur or is ignored.
    """

    mean_iou: float
    pixel_accuracy: float
    iou: npt.NDArray[np.float64]


def semantic_quality(
    table: IntersectionTable, assignment: Assignment, n_classes: int, ignored: Collection[int] = ()
) -> SemanticQuality:
    """MIoU and pixel accuracy.

    Pixels that are void in truth or prediction are left out of both; pixels of images without any prediction,
    and of pseudo-classes that got no class, count as wrong.

    Args:
        table: Predictions in pseudo-classes.
        assignment: Class of each pseudo-class, usually matched jointly over all classes.
        n_classes: C.
        ignored: Classes that are left out of the mean, and whose true pixels are left out.
    """
    counts = confusion_matrix(table, len(assignment.class_of), n_classes)
    matched = np.zeros((n_classes + 1, n_classes), np.int64)
    for pseudo_class, class_id in enumerate(assignment.class_of):
        matched[n_classes if class_id == VOID else class_id] += counts[pseudo_class]
    missing = (table.predicted_class == NO_PREDICTION) & (table.true_class < n_classes)
    np.add.at(matched[n_classes], table.true_class[missing], table.n_pixels[missing])
    excluded = sorted(ignored)
    matched[:, excluded] = 0
    right = np.diagonal(matched)
    union = matched[:n_classes].sum(axis=1) + matched.sum(axis=0) - right
    iou = np.divide(100.0 * right, union, out=np.full(n_classes, np.nan), where=union > 0)
    iou[excluded] = np.nan
    total = int(matched.sum())
    return SemanticQuality(
        mean_iou=float(np.nanmean(iou)) if not np.isnan(iou).all() else 0.0,
        pixel_accuracy=100.0 * float(right.sum()) / total if total else 0.0,
        iou=iou,
    )
