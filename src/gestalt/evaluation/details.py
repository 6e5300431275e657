"""What panoptic quality does not say of a network: its outlines, and what its scores are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gestalt.data.ground_truth import GroundTruthFrame
from gestalt.data.shards import ShardFolder
from gestalt.evaluation.boundary_evaluation import evaluate_boundaries
from gestalt.evaluation.evaluate import Evaluation, read_pairs
from gestalt.evaluation.intersections import IntersectionTable
from gestalt.evaluation.scored_instances import instance_calibration, instance_precision, stored_scores


def evaluate_details(
    predictions: ShardFolder,
    truth: Sequence[GroundTruthFrame],
    table: IntersectionTable,
    evaluation: Evaluation,
    *,
    label: str,
) -> dict[str, Any]:
    """Boundary PQ, average precision and calibration for the report.

    Args:
        predictions: The shard folder that the table is of; its records may hold scores of instances.
        truth: All images with ground truth.
        table: Predictions in pseudo-classes.
        evaluation: Of the table.
        label: Name of the work in the progress bar.

    Returns:
        ``boundary``; with scores also ``average_precision`` (``class_agnostic``, ``of_classes``) and ``calibration``.
    """
    n_pseudo_classes = len(evaluation.assignment.class_of)
    pairs = read_pairs(
        predictions,
        truth,
        evaluation.protocol,
        n_pseudo_classes=n_pseudo_classes,
        label=f"{label}: outlines",
    )
    details: dict[str, Any] = {"boundary": evaluate_boundaries(pairs, evaluation).to_dict()}
    if (scores := stored_scores(predictions)) is None:
        return details
    details["average_precision"] = {
        name: instance_precision([table], evaluation, scores, with_classes=with_classes).to_dict()
        for name, with_classes in (("class_agnostic", False), ("of_classes", True))
    }
    return details | {"calibration": instance_calibration([table], evaluation, scores).to_dict()}
