"""Boundary PQ and mean Boundary IoU of an evaluated prediction: a second pass over the pixels, in classes.

``evaluate_folder`` and its like say which class each pseudo-class is; ``evaluate_boundaries`` takes the maps again,
turns them into classes and measures outlines under the same protocol. Memory is a few numbers per image and class.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, name_some
from gestalt.evaluation.bootstrap import N_RESAMPLES, Interval, interval
from gestalt.evaluation.boundary import (
    DILATION_SHARE,
    BoundaryStatistics,
    boundary_counts,
    boundary_statistics,
    class_boundary_counts,
    relabel_map,
)
from gestalt.evaluation.evaluate import Evaluation
from gestalt.evaluation.panoptic_quality import PanopticCounts, join_panoptic_counts
from gestalt.evaluation.semantic import SemanticCounts, join_semantic_counts
from gestalt.panoptic import VOID, PanopticMap


@dataclass(frozen=True, eq=False)
class BoundaryEvaluation:
    """How well outlines agree, under the protocol of an evaluation.

    Attributes:
        evaluation: Of the same prediction.
        panoptic_counts: By convention, Boundary PQ in place of PQ.
        class_counts: Pixels near the borders of classes.
        dilation_share: Width of boundary regions as a share of the image diagonal.
    """

    evaluation: Evaluation
    panoptic_counts: dict[str, PanopticCounts]
    class_counts: SemanticCounts
    dilation_share: float

    def headline(self) -> dict[str, float]:
        """The numbers in the protocol's primary convention, percent."""
        return {name: float(value) for name, value in self.numbers(self.evaluation.protocol.primary).items()}

    def numbers(
        self, convention: str, weights: npt.NDArray[Any] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The numbers in one convention, over all images or over each of many resamples of them.

        Args:
            convention: One of the protocol's.
            weights: (B, N), how often each image counts; once, without them.

        Returns:
            ``boundary_PQ``, ``_SQ``, ``_RQ``, ``_PQ_thing``, ``_PQ_stuff``, ``_mIoU``: () or (B,) percent.
        """
        space = self.evaluation.space
        ignored = self.evaluation.protocol.ignored_ids(space)
        things = [entry for entry in space.thing_ids if entry not in ignored]
        stuff = [entry for entry in space.stuff_ids if entry not in ignored]
        of_nothing = 0.0 if weights is None else np.nan
        quality = self.panoptic_counts[convention].total(weights)
        pq, sq, rq = quality.means([*stuff, *things], of_nothing)
        return {
            "boundary_PQ": pq,
            "boundary_SQ": sq,
            "boundary_RQ": rq,
            "boundary_PQ_thing": quality.means(things, of_nothing)[0],
            "boundary_PQ_stuff": quality.means(stuff, of_nothing)[0],
            "boundary_mIoU": self.class_counts.total(weights).mean_iou,
        }

    def intervals(self, n_samples: int = N_RESAMPLES, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """By convention, the numbers with their intervals, over the resamples that the evaluation's are over."""
        weights = self.evaluation.resamples(n_samples, seed)
        found = {}
        for convention in self.panoptic_counts:
            drawn, values = self.numbers(convention, weights), self.numbers(convention)
            found[convention] = {name: interval(float(values[name]), drawn[name]) for name in values}
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the numbers by convention, and the width of boundary regions."""
        return {
            **{
                convention: {name: float(value) for name, value in self.numbers(convention).items()}
                for convention in self.panoptic_counts
            },
            "dilation_share": self.dilation_share,
            "protocol": self.evaluation.protocol.label,
        }


def evaluate_boundaries(
    images: Iterable[tuple[str, PanopticMap | None, PanopticMap]],
    evaluation: Evaluation,
    *,
    dilation_share: float = DILATION_SHARE,
    void_unseparated_things: bool = False,
) -> BoundaryEvaluation:
    """Measure outlines of an evaluated prediction.

    Args:
        images: Image id, prediction in pseudo-classes (None where there is none) and truth in ids of the label space,
            both as the protocol evaluates them (``evaluated_window``); every image of the evaluation, in any order.
        evaluation: Says which class each pseudo-class is, and the protocol.
        dilation_share: Width of boundary regions as a share of the image diagonal.
        void_unseparated_things: As for ``evaluate_folder``.

    Raises:
        DataError: The images are not those of the evaluation.
        ShapeError: Prediction and truth of an image differ in size.
    """
    protocol, space = evaluation.protocol, evaluation.space
    n_classes, ignored = len(space.classes), protocol.ignored_ids(space)
    panoptic: dict[str, dict[str, PanopticCounts]] = {convention: {} for convention in protocol.conventions}
    semantic: dict[str, SemanticCounts] = {}
    joint, apart = evaluation.joint_assignment.class_of, evaluation.assignment.class_of
    for image_id, prediction, truth in images:
        if image_id in semantic:
            raise DataError(f"the image {image_id} occurs twice and would count twice")
        of_classes = _measure(image_id, prediction, truth, joint, evaluation, dilation_share)
        semantic[image_id] = class_boundary_counts(of_classes, n_classes, ignored)
        segments = of_classes
        if void_unseparated_things and prediction is not None:
            prediction = _void_unseparated(prediction, evaluation.things)
        if void_unseparated_things or tuple(apart) != tuple(joint):
            segments = _measure(image_id, prediction, truth, apart, evaluation, dilation_share)
        tables = {"segment": segments, "crowd": segments.with_groups_as_crowd(space.thing_ids)}
        for convention, counts in panoptic.items():
            table = tables[protocol.group_regions[convention]]
            counts[image_id] = boundary_counts(table, n_classes, convention)
    image_ids = _same_images(semantic, evaluation)
    return BoundaryEvaluation(
        evaluation,
        {
            convention: join_panoptic_counts([counts[name] for name in image_ids])
            for convention, counts in panoptic.items()
        },
        join_semantic_counts([semantic[name] for name in image_ids]),
        dilation_share,
    )


def _measure(
    image_id: str,
    prediction: PanopticMap | None,
    truth: PanopticMap,
    class_of: Sequence[int],
    evaluation: Evaluation,
    dilation_share: float,
) -> BoundaryStatistics:
    """The statistics of one image, with the size limits of the protocol."""
    protocol, thing_classes = evaluation.protocol, evaluation.space.thing_ids
    mapped = None
    if prediction is not None:
        stuff = [index for index in range(len(class_of)) if index not in evaluation.things]
        mapped = relabel_map(
            prediction, class_of, thing_classes, stuff=stuff, min_stuff_px=protocol.min_stuff_px
        )
    measured = boundary_statistics(mapped, truth, dilation_share=dilation_share, image_id=image_id)
    return measured.with_small_objects_void(thing_classes, protocol.min_object_px)


def _void_unseparated(prediction: PanopticMap, things: Sequence[int]) -> PanopticMap:
    loose = np.isin(prediction.semantic_map, things) & (prediction.instance_map == 0)
    return PanopticMap(np.where(loose, np.uint8(VOID), prediction.semantic_map), prediction.instance_map)


def _same_images(found: Iterable[str], evaluation: Evaluation) -> list[str]:
    """The images in the order of the evaluation, so that both are resampled alike."""
    image_ids = list(evaluation.panoptic_counts[evaluation.protocol.primary].image_ids)
    if differing := sorted(set(found) ^ set(image_ids)):
        raise DataError(
            f"boundaries must be measured in the images of the evaluation; {len(differing)} are in one only, such as "
            f"{name_some(differing)}"
        )
    return image_ids
