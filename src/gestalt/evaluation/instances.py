"""Class-agnostic precision and recall of masks against true objects at IoU 0.5, and the verdict on every mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, name_some
from gestalt.evaluation.intersections import (
    NO_PREDICTION,
    IntersectionTable,
    predicted_segments,
    sum_by,
    true_segments,
)
from gestalt.panoptic import VOID

# A proposal hits an object above this intersection over union; no proposal can hit two.
HIT_IOU = 0.5

# A proposal that lies more than this share in void is neither right nor wrong.
IGNORED_SHARE = 0.5

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InstanceQuality:
    """How well masks find objects.

    Attributes:
        precision: Share of the counted masks that hit an object, 0..1.
        recall: Share of the counted objects that are hit, 0..1.
        mean_iou: Mean IoU of the hits, 0..1.
        n_masks: Masks that count: those mostly in void, or on an object below the size limit, do not.
        n_objects: Objects of at least the size limit.
        n_hits: Pairs above IoU 0.5.
    """

    precision: float
    recall: float
    mean_iou: float
    n_masks: int
    n_objects: int
    n_hits: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class JudgedMasks:
    """Every predicted mask with what became of it, sorted by image, class and instance.

    Attributes:
        image_ids: Names of the images.
        image: (M,) int64, position in ``image_ids``.
        class_id: (M,) int64, predicted (pseudo-)class.
        instance: (M,) int64, id in the predicted map.
        counts: (M,) bool: neither mostly in void nor on an object below the size limit.
        is_hit: (M,) bool: IoU above 0.5 with an object of at least the size limit.
        iou: (M,) float64, IoU with the object that is hit; 0 without one.
        n_objects: Objects of at least the size limit.
    """

    image_ids: tuple[str, ...]
    image: IntArray
    class_id: IntArray
    instance: IntArray
    counts: BoolArray
    is_hit: BoolArray
    iou: FloatArray
    n_objects: int

    def quality(self) -> InstanceQuality:
        """Precision and recall."""
        n_masks, n_hits = int(self.counts.sum()), int(self.is_hit.sum())
        return InstanceQuality(
            precision=n_hits / n_masks if n_masks else 0.0,
            recall=n_hits / self.n_objects if self.n_objects else 0.0,
            mean_iou=float(self.iou[self.is_hit].mean()) if n_hits else 0.0,
            n_masks=n_masks,
            n_objects=self.n_objects,
            n_hits=n_hits,
        )

    def scores(self, scores: Mapping[tuple[str, int], float]) -> FloatArray:
        """(M,) float64 confidence of each mask; see ``scores_of``."""
        return scores_of(self.image_ids, self.image, self.instance, scores)


def instance_quality(table: IntersectionTable, is_target: BoolArray, min_area_px: int = 0) -> InstanceQuality:
    """Precision and recall of the predicted instances, whatever their class; see ``judge_masks``."""
    return judge_masks(table, is_target, min_area_px).quality()


def true_objects(table: IntersectionTable, thing_classes: Collection[int]) -> BoolArray:
    """(R,) bool: the row's true segment is an object, an instance of a thing class that is no crowd."""
    is_thing: BoolArray = np.isin(table.true_class, list(thing_classes))
    return is_thing & (table.true_instance > 0) & ~table.is_crowd


def judge_masks(
    table: IntersectionTable,
    is_target: BoolArray,
    min_area_px: int = 0,
    class_of: Sequence[int] | None = None,
) -> JudgedMasks:
    """Say of every predicted instance whether it hits an object.

    Args:
        table: Predicted segments with an instance are the masks; everything else is not predicted. A mask mostly in
            void and crowds is neither right nor wrong.
        is_target: (R,) bool, the row's true segment is one of the objects to be found. Other objects are
            background: a mask on them is wrong.
        min_area_px: Smaller objects need not be found, and masks that hit them do not count.
        class_of: Class of each predicted (pseudo-)class; a mask hits objects of its class only. Without it any class
            will do.
    """
    predicted, true = predicted_segments(table), true_segments(table)
    is_object = sum_by(true.of_row, is_target, len(true.area)) > 0
    is_counted_object = is_object & (true.area >= min_area_px)
    is_mask = (predicted.instance > 0) & (predicted.class_id < VOID)
    is_void = table.true_class == VOID
    in_void, in_nothing = (
        sum_by(predicted.of_row, np.where(rows, table.n_pixels, 0), len(predicted.area))
        for rows in (is_void, is_void | table.is_crowd)
    )

    ours, theirs = predicted.of_row, true.of_row
    union = predicted.area[ours] - in_void[ours] + true.area[theirs] - table.n_pixels
    # A row of void has no union left when a mask lies wholly in it; it is no object either.
    iou = table.n_pixels / np.maximum(union, 1)
    is_hit = (iou > HIT_IOU) & is_mask[ours] & is_object[theirs]
    if class_of is not None:
        lookup = np.full(NO_PREDICTION + 1, VOID, np.int64)
        lookup[: len(class_of)] = class_of
        is_hit &= lookup[table.predicted_class] == table.true_class
    is_counted_hit = is_hit & is_counted_object[theirs]

    ignored = in_nothing > IGNORED_SHARE * predicted.area
    ignored[ours[is_hit & ~is_counted_object[theirs]]] = True
    ignored[ours[is_counted_hit]] = False
    iou_of_mask = np.zeros(len(predicted.area))
    iou_of_mask[ours[is_counted_hit]] = iou[is_counted_hit]
    return JudgedMasks(
        image_ids=table.image_ids,
        image=predicted.image[is_mask],
        class_id=predicted.class_id[is_mask],
        instance=predicted.instance[is_mask],
        counts=~ignored[is_mask],
        is_hit=iou_of_mask[is_mask] > 0,
        iou=iou_of_mask[is_mask],
        n_objects=int(is_counted_object.sum()),
    )


def scores_of(
    image_ids: tuple[str, ...],
    image: IntArray,
    instance: IntArray,
    scores: Mapping[tuple[str, int], float],
) -> FloatArray:
    """Confidences of masks.

    Args:
        image_ids: Names of the images.
        image: (M,) int64, position in ``image_ids``.
        instance: (M,) int64, id in the predicted map.
        scores: By image name and instance; more than are needed is fine.

    Returns:
        (M,) float64.

    Raises:
        DataError: A mask has no score, or one that is not finite.
    """
    names = [(image_ids[index], number) for index, number in zip(image.tolist(), instance.tolist())]
    if missing := [name for name in names if name not in scores]:
        shown = name_some([f"{number} of {name}" for name, number in missing])
        raise DataError(
            f"{len(missing)} of {len(names)} masks have no score, such as {shown}; average precision and "
            "calibration need a confidence of every mask: write `score` with every segment, or leave them out"
        )
    values = np.array([scores[name] for name in names], np.float64)
    if not (is_finite := np.isfinite(values)).all():
        (name, number), value = names[int(np.argmin(is_finite))], values[int(np.argmin(is_finite))]
        raise DataError(f"scores must be finite numbers. Got: {value:g} for mask {number} of {name}")
    return values
