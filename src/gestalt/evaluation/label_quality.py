"""Pseudo-labels and proposals of a batch against its truth, where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gestalt.data.ground_truth import GroundTruthFrame, read_ground_truth
from gestalt.data.images import decode_png
from gestalt.data.label_spaces import load_label_space
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError, name_some
from gestalt.evaluation.average_precision import AveragePrecision, average_precision, instance_images
from gestalt.evaluation.calibration import Calibration, CalibrationHistogram
from gestalt.evaluation.evaluate import Evaluation, evaluate_folder
from gestalt.evaluation.instances import InstanceQuality, instance_quality, judge_masks
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.protocols import Protocol
from gestalt.evaluation.scored_instances import stored_scores
from gestalt.panoptic import INSTANCES_PER_CLASS, VOID, PanopticMap, Vocabulary
from gestalt.runtime import progress

# The finest space, so that every annotated kind of object counts.
OBJECT_SPACE = "cityscapes27"
OBJECT_DATASET = "cityscapes"

OBJECTS_FILE = "objects.parquet"


@dataclass(frozen=True)
class ScoreQuality:
    """What the scores of proposals are worth.

    Attributes:
        average_precision: Whether right proposals come first.
        calibration: Whether a score is the chance to be right; None where scores leave 0..1 and so promise no chance.
    """

    average_precision: AveragePrecision
    calibration: Calibration | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "average_precision": self.average_precision.to_dict(),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class ProposalQuality:
    """Proposals against objects, per size limit in pixels.

    Attributes:
        moving: Against objects that move; empty where the truth does not say which do.
        every: Against all objects, moving or not.
        n_frames: Frames with truth.
        moving_scores: The scores against objects that move; empty where ``moving`` is, or proposals have no score.
        every_scores: The scores against all objects; empty where proposals have none.
    """

    moving: Mapping[int, InstanceQuality]
    every: Mapping[int, InstanceQuality]
    n_frames: int
    moving_scores: Mapping[int, ScoreQuality]
    every_scores: Mapping[int, ScoreQuality]

    def headline(self) -> dict[str, float]:
        """Precision and recall against moving objects of the first size limit, percent; empty where unknown."""
        for moving in self.moving.values():
            return {"precision": 100 * moving.precision, "recall": 100 * moving.recall}
        return {}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n_frames": self.n_frames,
            "moving_objects": _by_size(self.moving, self.moving_scores),
            "all_objects": _by_size(self.every, self.every_scores),
        }


def truth_of_frames(
    truth: Sequence[GroundTruthFrame], labels: ShardFolder, name: str
) -> list[GroundTruthFrame]:
    """The truth of those frames that were to be labelled, failed ones included.

    Raises:
        DataError: A frame that was to be labelled has no truth, so that numbers would leave it out silently.
    """
    by_id = {frame.frame_id: frame for frame in truth}
    wanted = [str(frame_id) for frame_id in labels.frames()["frame_id"]]
    if without := [frame_id for frame_id in wanted if frame_id not in by_id]:
        raise DataError(
            f"{name}: {len(without)} of {len(wanted)} frames have no truth, such as "
            f"{name_some(without)}; take the batch out of truth_batches, or complete its truth"
        )
    return [by_id[frame_id] for frame_id in wanted]


def evaluate_labels(
    labels: ShardFolder,
    truth: Sequence[GroundTruthFrame],
    vocabulary: Vocabulary,
    protocol: Protocol,
    *,
    label: str,
) -> Evaluation:
    """Every metric of the protocol for pseudo-labels.

    Thing pixels that no instance covers are void for panoptic quality.

    Args:
        labels: Maps in pseudo-classes 0..P-1 (not the unified space).
        truth: Of the frames that count.
        vocabulary: Which pseudo-classes are things.
        protocol: What the numbers mean.
        label: Name of the work in the progress bar and in messages.
    """
    return evaluate_folder(
        labels,
        truth,
        protocol,
        things=vocabulary.things,
        stuff=vocabulary.stuff,
        label=label,
        void_unseparated_things=True,
    )


def evaluate_proposals(
    proposals: ShardFolder,
    truth: Sequence[GroundTruthFrame],
    moving: frozenset[tuple[str, int]] | None,
    *,
    min_object_px: Sequence[int],
    label: str,
) -> ProposalQuality:
    """Precision and recall of class-agnostic proposals; average precision and calibration where they have scores.

    Args:
        proposals: Shard folder with the map ``proposals`` (0 = none), and records that may name a ``score`` of
            every ``instance``; frames without maps propose nothing.
        truth: Cityscapes-form ground truth of the frames that count.
        moving: (frame id, instance value) of the moving objects; None where the truth does not say.
        min_object_px: Size limits.
        label: Name of the work in the progress bar.

    Raises:
        ShapeError: Proposals have another size than the truth.
        DataError: Some proposals have a score and others none.
    """
    known = set(proposals.frame_ids)
    tables = []
    for frame in progress(truth, label=label):
        prediction = None
        if frame.frame_id in known:
            prediction = _as_panoptic(proposals.read_map(frame.frame_id, "proposals"))
        tables.append(intersect(frame.frame_id, prediction, read_objects(frame)))
    table = merge_tables(tables)
    thing_classes = load_label_space(OBJECT_SPACE).thing_ids
    is_object = np.isin(table.true_class, thing_classes) & (table.true_instance > 0)
    is_moving = None if moving is None else is_object & _belongs(table, moving)
    scores = stored_scores(proposals)

    def measure(is_target: npt.NDArray[np.bool_]) -> dict[int, InstanceQuality]:
        return {size: instance_quality(table, is_target, size) for size in min_object_px}

    def measure_scores(is_target: npt.NDArray[np.bool_]) -> dict[int, ScoreQuality]:
        if scores is None:
            return {}
        return {size: score_quality(table, scores, is_target, size) for size in min_object_px}

    return ProposalQuality(
        moving={} if is_moving is None else measure(is_moving),
        every=measure(is_object),
        n_frames=len(truth),
        moving_scores={} if is_moving is None else measure_scores(is_moving),
        every_scores=measure_scores(is_object),
    )


def score_quality(
    table: IntersectionTable,
    scores: Mapping[tuple[str, int], float],
    is_target: npt.NDArray[np.bool_],
    min_area_px: int,
) -> ScoreQuality:
    """Average precision and calibration of proposals; see ``instance_images`` and ``judge_masks``.

    Regions of things that nobody separated count for nothing in average precision, as with COCO; calibration is over
    the same proposals as precision and recall.
    """
    things = load_label_space(OBJECT_SPACE).thing_ids
    images = instance_images(
        table, scores, thing_classes=things, is_target=is_target, min_area_px=min_area_px
    )
    judged = judge_masks(table, is_target, min_area_px)
    values = judged.scores(scores)
    is_chance = ((values >= 0) & (values <= 1)).all()
    return ScoreQuality(
        average_precision(images),
        CalibrationHistogram.of_masks(judged, scores).calibration() if is_chance else None,
    )


def read_moving_objects(folder: Path) -> frozenset[tuple[str, int]] | None:
    """(frame id, instance value) of the objects that move, or None where the truth has no such table.

    Args:
        folder: Truth of a batch; ``objects.parquet`` has the columns frame_id, instance, is_moving.

    Raises:
        DataError: The table lacks a column.
    """
    path = folder / OBJECTS_FILE
    if not path.exists():
        return None
    objects = pd.read_parquet(path)
    if missing := {"frame_id", "instance", "is_moving"} - set(objects.columns):
        raise DataError(
            f"{path} lacks the columns {', '.join(sorted(missing))}. Got: {', '.join(objects.columns)}"
        )
    moving = objects[objects["is_moving"].astype(bool)]
    return frozenset(zip(moving["frame_id"].astype(str), moving["instance"].astype(int).tolist()))


def read_objects(frame: GroundTruthFrame) -> PanopticMap:
    """Cityscapes-form truth whose instance ids are the values of the file, ``class * 1000 + n``.

    Raises:
        DataError: The annotation is not a map of instance values.
    """
    values = decode_png(frame.annotation.read_bytes(), str(frame.annotation))
    if values.ndim != 2 or values.dtype != np.uint16:
        raise DataError(
            f"{frame.annotation} must be a 16-bit map of Cityscapes instance ids. "
            f"Got: {values.shape} {values.dtype}"
        )
    semantic = read_ground_truth(frame, OBJECT_SPACE, OBJECT_DATASET).semantic_map
    is_instance = (values >= INSTANCES_PER_CLASS) & (semantic != VOID)
    return PanopticMap(semantic, np.where(is_instance, values, 0).astype(np.uint16))


def _by_size(
    qualities: Mapping[int, InstanceQuality], scores: Mapping[int, ScoreQuality]
) -> dict[str, dict[str, Any]]:
    return {
        f"min_{size}_px": {**quality.to_dict(), **(scores[size].to_dict() if size in scores else {})}
        for size, quality in qualities.items()
    }


def _as_panoptic(proposals: npt.NDArray[Any]) -> PanopticMap:
    """Proposals as instances of class 0, everything else void."""
    semantic = np.where(proposals > 0, 0, VOID).astype(np.uint8)
    return PanopticMap(semantic, proposals.astype(np.uint16))


def _belongs(table: IntersectionTable, objects: frozenset[tuple[str, int]]) -> npt.NDArray[np.bool_]:
    names = np.array(table.image_ids, dtype=object)[table.image]
    pairs = zip(names.tolist(), table.true_instance.tolist())
    return np.fromiter((pair in objects for pair in pairs), np.bool_, count=len(table))
