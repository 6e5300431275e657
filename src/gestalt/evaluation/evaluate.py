"""Stored predictions against ground truth: one intersection table of all images, then every metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.data.ground_truth import GroundTruthFrame, read_ground_truth
from gestalt.data.label_spaces import load_label_space
from gestalt.data.shards import ShardFolder
from gestalt.errors import SHOWN_NAMES, DataError, name_some
from gestalt.evaluation.bootstrap import N_RESAMPLES, Interval, UIntArray, image_resamples, interval
from gestalt.evaluation.intersections import (
    IntersectionTable,
    check_sizes,
    clear_crowds,
    intersect,
    mark_groups_as_crowd,
    merge_tables,
    relabel_predictions,
    void_predictions_without_instance,
    void_small_objects,
    void_small_stuff,
)
from gestalt.evaluation.matching import (
    Assignment,
    confusion_matrix,
    known_classes,
    match_pseudo_classes,
)
from gestalt.evaluation.panoptic_quality import (
    PanopticCounts,
    PanopticQuality,
    join_panoptic_counts,
    panoptic_counts,
)
from gestalt.evaluation.protocols import Protocol
from gestalt.evaluation.semantic import SemanticCounts, SemanticQuality, join_semantic_counts, semantic_counts
from gestalt.evaluation.window import evaluated_window
from gestalt.panoptic import VOID, LabelSpace, PanopticMap
from gestalt.runtime import progress


@dataclass(frozen=True)
class Coverage:
    """Which images have which side.

    Attributes:
        n_images: Images with ground truth.
        missing: Those without a prediction; they count as missed.
        extra: Predictions without ground truth; they count for nothing.
        n_expected: Images of the whole benchmark; None where that is not fixed.
    """

    n_images: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    n_expected: int | None = None

    @property
    def is_partial(self) -> bool:
        """Whether the ground truth is another set of images than the benchmark's."""
        return self.n_expected is not None and self.n_images != self.n_expected

    def to_dict(self) -> dict[str, Any]:
        """Counts and the first names."""
        return {
            "n_images": self.n_images,
            "n_expected": self.n_expected,
            "n_missing": len(self.missing),
            "missing": list(self.missing[:SHOWN_NAMES]),
            "n_extra": len(self.extra),
            "extra": list(self.extra[:SHOWN_NAMES]),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All metrics of one set of predictions under one protocol.

    Attributes:
        protocol: What the numbers mean.
        space: Its classes.
        things: Pseudo-classes that are things.
        clusters: The cluster that each pseudo-class is, for reports.
        coverage: Which images have which side.
        assignment: Class of each pseudo-class, for panoptic quality.
        joint_assignment: The same, matched over all classes, for semantic quality.
        panoptic_counts: By convention, counts per image and class.
        semantic_counts: Pixels per image and class.
        groups: The sequence of each image, empty for single images.
    """

    protocol: Protocol
    space: LabelSpace
    things: tuple[int, ...]
    clusters: tuple[int, ...]
    coverage: Coverage
    assignment: Assignment
    joint_assignment: Assignment
    panoptic_counts: dict[str, PanopticCounts]
    semantic_counts: SemanticCounts
    groups: tuple[str, ...]

    @cached_property
    def panoptic(self) -> dict[str, PanopticQuality]:
        """Panoptic quality over all images, by convention."""
        return {convention: counts.total() for convention, counts in self.panoptic_counts.items()}

    @cached_property
    def semantic(self) -> SemanticQuality:
        """Semantic quality over all images."""
        return self.semantic_counts.total()

    def headline(self) -> dict[str, float]:
        """PQ, SQ, RQ, its thing and stuff parts, mIoU and accuracy, percent, in the protocol's primary convention."""
        return {name: float(value) for name, value in self.numbers(self.protocol.primary).items()}

    def numbers(
        self, convention: str, weights: npt.NDArray[Any] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The headline numbers in one convention, over all images or over each of many resamples of them.

        Args:
            convention: One of the protocol's.
            weights: (B, N), how often each image counts; once, without them.

        Returns:
            ``PQ``, ``SQ``, ``RQ``, ``PQ_thing``, ``PQ_stuff``, ``mIoU``, ``pixel_accuracy``: () or (B,) percent.
            Where no class occurs, 0 over all images, and NaN in a resample: no interval can be had from it.
        """
        ignored = self.protocol.ignored_ids(self.space)
        things = [entry for entry in self.space.thing_ids if entry not in ignored]
        stuff = [entry for entry in self.space.stuff_ids if entry not in ignored]
        of_nothing = 0.0 if weights is None else np.nan
        quality = self.panoptic_counts[convention].total(weights)
        semantic = self.semantic_counts.total(weights)
        numbers = dict(zip(("PQ", "SQ", "RQ"), quality.means([*stuff, *things], of_nothing), strict=True))
        for kind, classes in (("thing", things), ("stuff", stuff)):
            numbers[f"PQ_{kind}"] = quality.means(classes, of_nothing)[0]
        return numbers | {"mIoU": semantic.mean_iou, "pixel_accuracy": semantic.pixel_accuracy}

    def resamples(self, n_samples: int = N_RESAMPLES, seed: int = 0) -> UIntArray:
        """(B, N) resamples of the images, by the protocol's unit: equal for every prediction of these images."""
        groups = self.groups if self.protocol.unit == "sequence" else [""] * len(self.groups)
        return image_resamples(groups, n_samples, seed)

    def intervals(self, n_samples: int = N_RESAMPLES, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """By convention, the headline numbers with their intervals over resamples of the images.

        A number has no interval where there is only one image (or sequence), or where no class occurs in some resample.
        """
        weights = self.resamples(n_samples, seed)
        found = {}
        for convention in self.protocol.conventions:
            drawn, values = self.numbers(convention, weights), self.numbers(convention)
            found[convention] = {name: interval(float(values[name]), drawn[name]) for name in values}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything for the report: both conventions with 95 % intervals, per class, assignments, coverage."""
        ignored = self.protocol.ignored_ids(self.space)
        conventions: dict[str, dict[str, Any]] = {}
        for convention, intervals in self.intervals().items():
            quality = self.panoptic[convention].to_dict(self.space.thing_ids, ignored)
            bounds = {name: bounds.to_list() for name, bounds in intervals.items()}
            conventions[convention] = {**quality, "intervals": bounds}
        return {
            **conventions,
            "mIoU": float(self.semantic.mean_iou),
            "pixel_accuracy": float(self.semantic.pixel_accuracy),
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
        sequences={frame.frame_id: frame.sequence for frame in truth},
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
        n_expected=protocol.n_images,
    )
    if not truth:
        raise DataError(f"{label}: the benchmark holds no ground truth")
    if len(coverage.missing) == len(truth):
        raise DataError(
            f"{label}: none of the {len(truth)} images with ground truth has a prediction. Expected frame "
            f"ids such as {truth[0].frame_id}. Got: {', '.join(coverage.extra[:3]) or 'no frame at all'}"
        )

    pairs = read_pairs(predictions, truth, protocol, n_pseudo_classes=n_pseudo_classes, label=label)
    return merge_tables(intersect(*pair) for pair in pairs), coverage


def read_pairs(
    predictions: ShardFolder,
    truth: Sequence[GroundTruthFrame],
    protocol: Protocol,
    *,
    n_pseudo_classes: int,
    label: str,
) -> Iterator[tuple[str, PanopticMap | None, PanopticMap]]:
    """Frame id, prediction (None where there is none) and truth of each frame, as the protocol evaluates them.

    Raises:
        DataError: Ids are outside the pseudo-classes, or the protocol is for another size.
        ShapeError: A prediction has another size than its ground truth.
    """
    predicted = set(predictions.frame_ids)
    for frame in progress(truth, label=label, unit="image"):
        true_map = read_ground_truth(frame, protocol.label_space, protocol.dataset)
        if protocol.image_size is not None and true_map.size != protocol.image_size:
            raise DataError(
                f"{frame.annotation}: protocol {protocol.name} is defined for images of "
                f"{protocol.image_size} (height, width). Got: {true_map.size}; choose a protocol "
                "without image_size"
            )
        prediction = None
        if frame.frame_id in predicted:
            prediction = read_prediction(predictions, frame.frame_id, n_pseudo_classes, label)
            check_sizes(frame.frame_id, prediction, true_map)
            prediction = evaluated_window(prediction, protocol)
        yield frame.frame_id, prediction, evaluated_window(true_map, protocol)


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
            f"Got: {name_some(outside)}; these maps were made with another vocabulary, make them again"
        )
    return PanopticMap(semantic, predictions.read_map(frame_id, "instance").astype(np.uint16))


def evaluate_table(
    table: IntersectionTable | Iterable[IntersectionTable],
    protocol: Protocol,
    *,
    things: Sequence[int],
    stuff: Sequence[int],
    coverage: Coverage | None = None,
    clusters: Sequence[int] = (),
    classes: Sequence[int] = (),
    void_unseparated_things: bool = False,
    sequences: Mapping[str, str] | None = None,
    space: LabelSpace | None = None,
    keeps_segments: bool = False,
) -> Evaluation:
    """Every metric of the protocol from an intersection table; see ``evaluate_folder``.

    Args:
        table: Predictions in pseudo-classes. Or the parts of a large one, such as ``TableFiles``: images in ascending
            order of their ids; they are gone through twice, and one at a time is in memory.
        protocol: What the numbers mean.
        things: Pseudo-classes that are things.
        stuff: Pseudo-classes that are stuff.
        coverage: Which images have which side.
        clusters: As for ``evaluate_folder``.
        classes: As for ``evaluate_folder``.
        void_unseparated_things: As for ``evaluate_folder``.
        sequences: Sequence of each image, where images have one: what intervals are drawn over.
        space: The classes, where they are not those that the protocol names.
        keeps_segments: Predicted stuff segments of one class stay apart, as a file lists them; they merge otherwise.
    """
    space = space or load_label_space(protocol.label_space)
    ignored = protocol.ignored_ids(space)
    n_classes, n_pseudo_classes = len(space.classes), len(things) + len(stuff)
    parts = (table,) if isinstance(table, IntersectionTable) else table

    def limited() -> Iterator[IntersectionTable]:
        for part in parts:
            kept = void_small_objects(part, space.thing_ids, protocol.min_object_px)
            yield void_small_stuff(kept, stuff, protocol.min_stuff_px)

    confusion = np.zeros((n_pseudo_classes, n_classes), np.int64)
    for part in limited():
        confusion += confusion_matrix(part, n_pseudo_classes, n_classes)
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
    separate = range(n_classes) if keeps_segments else space.thing_ids
    counts: dict[str, list[PanopticCounts]] = {convention: [] for convention in protocol.conventions}
    semantic: list[SemanticCounts] = []
    for part in limited():
        segments = void_predictions_without_instance(part, things) if void_unseparated_things else part
        matched = relabel_predictions(segments, assignment.class_of, separate)
        tables = {"segment": clear_crowds(matched), "crowd": mark_groups_as_crowd(matched, space.thing_ids)}
        for convention, found in counts.items():
            found.append(panoptic_counts(tables[protocol.group_regions[convention]], n_classes, convention))
        semantic.append(
            semantic_counts(part, joint_assignment, n_classes, ignored, void_is_wrong=protocol.void_is_wrong)
        )
    panoptic = {convention: join_panoptic_counts(found) for convention, found in counts.items()}
    image_ids = panoptic[protocol.primary].image_ids
    return Evaluation(
        protocol=protocol,
        space=space,
        things=tuple(things),
        clusters=tuple(clusters) or tuple(range(n_pseudo_classes)),
        coverage=coverage or Coverage(len(image_ids), (), (), protocol.n_images),
        assignment=assignment,
        joint_assignment=joint_assignment,
        panoptic_counts=panoptic,
        semantic_counts=join_semantic_counts(semantic),
        groups=tuple((sequences or {}).get(name, "") for name in image_ids),
    )
