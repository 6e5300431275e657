"""Stored predictions against ground truth: one intersection table of all images, then every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gestalt.data.ground_truth import GroundTruthFrame, read_ground_truth
from gestalt.data.label_spaces import load_label_space
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.evaluation.intersections import (
    IntersectionTable,
    intersect,
    mark_groups_as_crowd,
    merge_tables,
    relabel_predictions,
    void_predictions_without_instance,
    void_small_objects,
)
from gestalt.evaluation.matching import (
    Assignment,
    confusion_matrix,
    known_classes,
    match_pseudo_classes,
)
from gestalt.evaluation.panoptic_quality import PanopticQuality, panoptic_quality
from gestalt.evaluation.protocols import Protocol
from gestalt.evaluation.semantic import SemanticQuality, semantic_quality
from gestalt.panoptic import VOID, LabelSpace, PanopticMap
from gestalt.runtime import progress

# So many names stand in a message or a report; the count says how many there are.
SHOWN_NAMES = 10


@dataclass(frozen=True)
class Coverage:
    """Which images have which side.

    Attributes:
        n_images: Images with ground truth.
        missing: Those without a prediction; they count as missed.
        extra: Predictions without ground truth; they count for nothing.
    """

    n_images: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Counts and the first names."""
        return {
            "n_images": self.n_images,
            "n_missing": len(self.missing),
            "missing": list(self.missing[:SHOWN_NAMES]),
            "n_extra": len(self.extra),
            "extra": list(self.extra[:SHOWN_NAMES]),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All metrics of one prediction folder under one protocol."""

    protocol: Protocol
    space: LabelSpace
    things: tuple[int, ...]
    clusters: tuple[int, ...]
    coverage: Coverage
    assignment: Assignment
    joint_assignment: Assignment
    panoptic: dict[str, PanopticQuality]
    semantic: SemanticQuality

    def headline(self) -> dict[str, float]:
        """PQ, SQ, RQ, its thing and stuff parts, mIoU and accuracy, percent, in the protocol's primary convention."""
        ignored = self.protocol.ignored_ids(self.space)
        primary = self.panoptic[self.protocol.primary].to_dict(self.space.thing_ids, ignored)
        headline = {key: primary[key] for key in ("PQ", "SQ", "RQ")}
        headline |= {"PQ_thing": primary["thing"]["PQ"], "PQ_stuff": primary["stuff"]["PQ"]}
        return headline | {"mIoU": self.semantic.mean_iou, "pixel_accuracy": self.semantic.pixel_accuracy}

    def to_dict(self) -> dict[str, Any]:
        """Everything for the report: both conventions, per class, assignments with names, coverage."""
        ignored = self.protocol.ignored_ids(self.space)
        conventions = {
            convention: quality.to_dict(self.space.thing_ids, ignored)
            for convention, quality in self.panoptic.items()
        }
        return {
            **conventions,
            "mIoU": self.semantic.mean_iou,
            "pixel_accuracy": self.semantic.pixel_accuracy,
            "per_class": [
                self._class_record(index) for index in range(len(self.space.classes)) if index not in ignored
            ],
            "assignment": self.assignment.to_records(self.space, self.things, self.clusters),
            "semantic_assignment": self.joint_assignment.to_records(self.space, self.things, self.clusters),
            "coverage": self.coverage.to_dict(),
            "protocol": self.protocol.label,
        }

    def _class_record(self, index: int) -> dict[str, Any]:
        entry = self.space.classes[index]
        iou = float(self.semantic.iou[index])
        record: dict[str, Any] = {
            "class": entry.name,
            "is_thing": entry.is_thing,
            "IoU": None if np.isnan(iou) else iou,
        }
        for convention, quality in self.panoptic.items():
            pq, sq, rq = (float(values[index]) for values in quality.per_class())
            record[convention] = {
                "PQ": pq,
                "SQ": sq,
                "RQ": rq,
                "occurs": bool(quality.occurs[index]),
                "true_positives": int(quality.true_positives[index]),
                "false_positives": int(quality.false_positives[index]),
                "false_negatives": int(quality.false_negatives[index]),
            }
        return record


def evaluate_folder(
    predictions: ShardFolder,
    truth: Sequence[GroundTruthFrame],
    protocol: Protocol,
    *,
    things: Sequence[int],
    stuff: Sequence[int],
    label: str,
    clusters: Sequence[int] = (),
    classes: Sequence[int] = (),
    void_unseparated_things: bool = False,
) -> Evaluation:
    """Evaluate the maps ``semantic`` and ``instance`` of a shard folder.

    Args:
        predictions: Maps in pseudo-classes 0..P-1.
        truth: Images with ground truth; all of them count.
        protocol: What the numbers mean.
        things: Pseudo-classes that are things.
        stuff: Pseudo-classes that are stuff.
        label: Name of the work in the progress bar and in messages.
        clusters: The cluster that each pseudo-class is, for reports; its own number when empty.
        classes: The class that each pseudo-class is, where a network learnt classes; matched when empty.
        void_unseparated_things: For panoptic quality, thing pixels without an instance are void
            (pseudo-labels: nobody separated them, and training ignores them) instead of one segment per
            pseudo-class.

    Raises:
        DataError: There is no ground truth, no image has a prediction, or ids are outside the pseudo-classes.
        ShapeError: A prediction has another size than its ground truth.
    """
    table, coverage = intersect_folder(
        predictions, truth, protocol, n_pseudo_classes=len(things) + len(stuff), label=label
    )
    return evaluate_table(
        table,
        protocol,
        things=things,
        stuff=stuff,
        coverage=coverage,
        clusters=clusters,
        classes=classes,
        void_unseparated_things=void_unseparated_things,
    )


def intersect_folder(
    predictions: ShardFolder,
    truth: Sequence[GroundTruthFrame],
    protocol: Protocol,
    *,
    n_pseudo_classes: int,
    label: str,
) -> tuple[IntersectionTable, Coverage]:
    """One table of all images with ground truth; see ``evaluate_folder``."""
    predicted = set(predictions.frame_ids)
    known = {frame.frame_id for frame in truth}
    coverage = Coverage(
        n_images=len(truth),
        missing=tuple(sorted(known - predicted)),
        extra=tuple(sorted(predicted - known)),
    )
    if not truth:
        raise DataError(f"{label}: the benchmark holds no ground truth")
    if len(coverage.missing) == len(truth):
        raise DataError(
            f"{label}: none of the {len(truth)} images with ground truth has a prediction. Expected frame "
            f"ids such as {truth[0].frame_id}. Got: {', '.join(coverage.extra[:3]) or 'no frame at all'}"
        )

    def read(frame: GroundTruthFrame) -> PanopticMap | None:
        if frame.frame_id not in predicted:
            return None
        return read_prediction(predictions, frame.frame_id, n_pseudo_classes, label)

    tables = []
    for frame in progress(truth, label=label, unit="image"):
        true_map = read_ground_truth(frame, protocol.label_space, protocol.dataset)
        if protocol.image_size is not None and true_map.size != protocol.image_size:
            raise DataError(
                f"{frame.annotation}: protocol {protocol.name} is defined for images of "
                f"{protocol.image_size} (height, width). Got: {true_map.size}; choose a protocol "
                "without image_size"
            )
        tables.append(intersect(frame.frame_id, read(frame), true_map))
    return merge_tables(tables), coverage


def read_prediction(
    predictions: ShardFolder, frame_id: str, n_pseudo_classes: int, label: str
) -> PanopticMap:
    """One stored panoptic map.

    Raises:
        DataError: A pixel has a pseudo-class outside 0..P-1 that is not void.
    """
    semantic = predictions.read_map(frame_id, "semantic")
    if semantic.dtype != np.uint8:
        raise DataError(f"{label}: {frame_id}: the map `semantic` must be uint8. Got: {semantic.dtype}")
    present = np.flatnonzero(np.bincount(semantic.reshape(-1), minlength=VOID + 1))
    outside = [int(value) for value in present if n_pseudo_classes <= value < VOID]
    if outside:
        raise DataError(
            f"{label}: {frame_id}: pseudo-classes must be 0..{n_pseudo_classes - 1}, or {VOID} for void. "
            f"Got: {outside[:SHOWN_NAMES]}; these maps were made with another vocabulary, make them again"
        )
    return PanopticMap(semantic, predictions.read_map(frame_id, "instance").astype(np.uint16))


def evaluate_table(
    table: IntersectionTable,
    protocol: Protocol,
    *,
    things: Sequence[int],
    stuff: Sequence[int],
    coverage: Coverage | None = None,
    clusters: Sequence[int] = (),
    classes: Sequence[int] = (),
    void_unseparated_things: bool = False,
) -> Evaluation:
    """Every metric of the protocol from an intersection table; see ``evaluate_folder``."""
    space = load_label_space(protocol.label_space)
    ignored = protocol.ignored_ids(space)
    n_classes, n_pseudo_classes = len(space.classes), len(things) + len(stuff)
    table = void_small_objects(table, space.thing_ids, protocol.min_object_px)
    confusion = confusion_matrix(table, n_pseudo_classes, n_classes)
    thing_classes = [class_id for class_id in space.thing_ids if class_id not in ignored]
    stuff_classes = [class_id for class_id in space.stuff_ids if class_id not in ignored]
    jointly = [([*stuff, *things], [*stuff_classes, *thing_classes])]
    apart = [(stuff, stuff_classes), (things, thing_classes)]
    if classes:
        assignment = joint_assignment = known_classes(confusion, classes)
    else:
        assignment = match_pseudo_classes(
            confusion, apart if protocol.matching == "apart" else jointly, protocol.left_over
        )
        joint_assignment = match_pseudo_classes(confusion, jointly, protocol.left_over)
    segments = void_predictions_without_instance(table, things) if void_unseparated_things else table
    matched = relabel_predictions(segments, assignment.class_of, space.thing_ids)
    tables = {"segment": matched, "crowd": mark_groups_as_crowd(matched, space.thing_ids)}
    return Evaluation(
        protocol=protocol,
        space=space,
        things=tuple(things),
        clusters=tuple(clusters) or tuple(range(n_pseudo_classes)),
        coverage=coverage or Coverage(len(table.image_ids), (), ()),
        assignment=assignment,
        joint_assignment=joint_assignment,
        panoptic={
            convention: panoptic_quality(tables[protocol.group_regions[convention]], n_classes, convention)
            for convention in protocol.conventions
        },
        semantic=semantic_quality(table, joint_assignment, n_classes, ignored),
    )
