"""Class-agnostic precision and recall of masks against true objects at IoU 0.5."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.evaluation.intersections import IntersectionTable, predicted_segments, sum_by, true_segments
from gestalt.panoptic import VOID

# A proposal hits an object above this intersection over union; no proposal can hit two.
HIT_IOU = 0.5

# A proposal that lies more than this share in void is neither right nor wrong.
IGNORED_SHARE = 0.5


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


def instance_quality(
    table: IntersectionTable, is_target: npt.NDArray[np.bool_], min_area_px: int = 0
) -> InstanceQuality:
    """Precision and recall of the predicted instances, whatever their class.

    Args:
        table: Predicted segments with an instance are the masks; everything else is not predicted.
        is_target: (R,) bool, the row's true segment is one of the objects to be found. Other objects are
            background: a mask on them is wrong.
        min_area_px: Smaller objects need not be found, and masks that hit them do not count.
    """
    predicted, true = predicted_segments(table), true_segments(table)
    is_object = sum_by(true.of_row, is_target, len(true.area)) > 0
    is_counted_object = is_object & (true.area >= min_area_px)
    is_mask = (predicted.instance > 0) & (predicted.class_id < VOID)
    in_void = sum_by(
        predicted.of_row, np.where(table.true_class == VOID, table.n_pixels, 0), len(predicted.area)
    )

    ours, theirs = predicted.of_row, true.of_row
    union = predicted.area[ours] - in_void[ours] + true.area[theirs] - table.n_pixels
    # A row of void has no union left when a mask lies wholly in it; it is no object either.
    iou = table.n_pixels / np.maximum(union, 1)
    is_hit = (iou > HIT_IOU) & is_mask[ours] & is_object[theirs]
    is_counted_hit = is_hit & is_counted_object[theirs]

    ignored = in_void > IGNORED_SHARE * predicted.area
    ignored[ours[is_hit & ~is_counted_object[theirs]]] = True
    ignored[ours[is_counted_hit]] = False
    n_masks, n_objects = int((is_mask & ~ignored).sum()), int(is_counted_object.sum())
    n_hits = int(is_counted_hit.sum())
    return InstanceQuality(
        precision=n_hits / n_masks if n_masks else 0.0,
        recall=n_hits / n_objects if n_objects else 0.0,
        mean_iou=float(iou[is_counted_hit].mean()) if n_hits else 0.0,
        n_masks=n_masks,
        n_objects=n_objects,
        n_hits=n_hits,
    )
