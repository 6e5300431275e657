"""What scores of predicted instances are worth: average precision and calibration under an evaluation's protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gestalt.data.shards import ShardFolder
from gestalt.evaluation.average_precision import AveragePrecision, average_precision, instance_images
from gestalt.evaluation.calibration import Calibration, CalibrationHistogram
from gestalt.evaluation.evaluate import Evaluation
from gestalt.evaluation.instances import judge_masks, true_objects
from gestalt.evaluation.intersections import IntersectionTable, keep_instances_of, mark_groups_as_crowd

# Image id and predicted instance -> score.
Scores = Mapping[tuple[str, int], float]


def stored_scores(predictions: ShardFolder) -> dict[tuple[str, int], float] | None:
    """Score of each instance of a shard folder, by frame id and instance; None where its records have no scores."""
    records = predictions.records()
    if not {"instance", "score"} <= set(records.columns):
        return None
    objects = records[records["instance"] > 0]
    keys = zip(objects["frame_id"].astype(str), objects["instance"].astype(int).tolist(), strict=True)
    return dict(zip(keys, objects["score"].astype(float).tolist(), strict=True))


def instance_precision(
    tables: Iterable[IntersectionTable], evaluation: Evaluation, scores: Scores, *, with_classes: bool
) -> AveragePrecision:
    """Average precision of the predicted instances.

    Args:
        tables: Parts of the evaluation's table, predictions in pseudo-classes.
        evaluation: Says what is a thing, which class each pseudo-class is, and the protocol.
        scores: Of every predicted instance.
        with_classes: A hit must be of the right class too; otherwise masks count whatever they are.
    """
    return average_precision(
        image
        for table in tables
        for image in instance_images(
            keep_instances_of(table, evaluation.things),
            scores,
            thing_classes=evaluation.space.thing_ids,
            class_of=evaluation.assignment.class_of if with_classes else None,
            min_area_px=evaluation.protocol.min_object_px,
        )
    )


def instance_calibration(
    tables: Iterable[IntersectionTable], evaluation: Evaluation, scores: Scores
) -> Calibration:
    """Whether a score is the chance that an instance is a hit of the right class; see ``instance_precision``."""
    things, total = evaluation.space.thing_ids, CalibrationHistogram.of([], [])
    for table in tables:
        grouped = mark_groups_as_crowd(keep_instances_of(table, evaluation.things), things)
        judged = judge_masks(
            grouped,
            true_objects(grouped, things),
            min_area_px=evaluation.protocol.min_object_px,
            class_of=evaluation.assignment.class_of,
        )
        total += CalibrationHistogram.of_masks(judged, scores)
    return total.calibration()
