"""Semantic quality: mean intersection over union and pixel accuracy of matched pseudo-classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.evaluation.intersections import NO_PREDICTION, IntersectionTable, sum_by, weighted_sum
from gestalt.evaluation.matching import Assignment
from gestalt.panoptic import VOID

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SemanticQuality:
    """Percent; leading axes are resamples of the images.

    Attributes:
        mean_iou: (...) mean over the classes that occur in truth or prediction.
        pixel_accuracy: (...) share of right pixels.
        iou: (..., C) float64 per class, NaN where the class does not occur or is ignored.
    """

    mean_iou: FloatArray
    pixel_accuracy: FloatArray
    iou: FloatArray


@dataclass(frozen=True, eq=False)
class SemanticCounts:
    """Pixels per image and class that count, (N, C) int64 each.

    Attributes:
        right: Of the class, and predicted as it.
        predicted: Predicted as the class.
        true: Of the class.
    """

    right: IntArray
    predicted: IntArray
    true: IntArray

    def total(self, weights: npt.NDArray[Any] | None = None) -> SemanticQuality:
        """The quality over all images.

        Args:
            weights: (..., N) integer, how often each image counts; once, without them. A resample in which nothing
                counts has no quality (NaN); all images together have 0 then.
        """
        right, predicted, true = (
            weighted_sum(counts, weights) for counts in (self.right, self.predicted, self.true)
        )
        union = predicted + true - right
        iou = np.divide(100.0 * right, union, out=np.full(union.shape, np.nan), where=union > 0)
        n_classes, n_pixels = (union > 0).sum(axis=-1), true.sum(axis=-1)
        of_nothing = 0.0 if weights is None else np.nan
        return SemanticQuality(
            mean_iou=np.where(n_classes > 0, np.nansum(iou, axis=-1) / np.maximum(n_classes, 1), of_nothing),
            pixel_accuracy=np.where(
                n_pixels > 0, 100.0 * right.sum(axis=-1) / np.maximum(n_pixels, 1), of_nothing
            ),
            iou=iou,
        )


def join_semantic_counts(parts: Sequence[SemanticCounts]) -> SemanticCounts:
    """The counts of all images, in the order of the parts."""
    return SemanticCounts(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("right", "predicted", "true"))
    )


def semantic_quality(
    table: IntersectionTable, assignment: Assignment, n_classes: int, ignored: Collection[int] = ()
) -> SemanticQuality:
    """MIoU and pixel accuracy over all images; see ``semantic_counts``."""
    return semantic_counts(table, assignment, n_classes, ignored).total()


def semantic_counts(
    table: IntersectionTable,
    assignment: Assignment,
    n_classes: int,
    ignored: Collection[int] = (),
    *,
    void_is_wrong: bool = False,
) -> SemanticCounts:
    """Count the pixels of each class, per image.

    Pixels of true void are left out; pixels of images without any prediction, and of pseudo-classes that got no
    class, count as wrong.

    Args:
        table: Predictions in pseudo-classes.
        assignment: Class of each pseudo-class, usually matched jointly over all classes.
        n_classes: C.
        ignored: Classes that are left out, and whose true pixels are left out.
        void_is_wrong: Pixels that are predicted as void count as wrong, as the data sets' own tools have it;
            otherwise they are left out, as published.
    """
    # Of a pseudo-class without a class, of void, of a missing prediction, and the ids after the last pseudo-class.
    nothing = n_classes
    lookup = np.full(NO_PREDICTION + 1, nothing, np.int64)
    found = np.array(assignment.class_of, np.int64)
    lookup[: len(found)] = np.where(found == VOID, nothing, found)
    wrong = (NO_PREDICTION, VOID) if void_is_wrong else (NO_PREDICTION,)
    counts = (table.predicted_class < len(found)) | np.isin(table.predicted_class, wrong)
    counts &= table.true_class < n_classes
    counts &= ~np.isin(table.true_class, sorted(ignored))
    image, true = table.image[counts], table.true_class[counts]
    predicted, n_pixels = lookup[table.predicted_class[counts]], table.n_pixels[counts]
    shape = (len(table.image_ids), n_classes)

    def sums(which: npt.NDArray[np.bool_], class_id: IntArray) -> IntArray:
        cells = image[which] * n_classes + class_id[which]
        return sum_by(cells, n_pixels[which], shape[0] * n_classes).reshape(shape)

    # What is predicted as an ignored class is wrong where it lies, but no class of its own.
    is_class = (predicted != nothing) & ~np.isin(predicted, sorted(ignored))
    return SemanticCounts(
        right=sums(predicted == true, true),
        predicted=sums(is_class, predicted),
        true=sums(np.ones(len(true), np.bool_), true),
    )
