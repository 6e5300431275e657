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
from gestalt.errors import DataError
from gestalt.evaluation.evaluate import SHOWN_NAMES, Evaluation, evaluate_folder
from gestalt.evaluation.instances import InstanceQuality, instance_quality
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.protocols import Protocol
from gestalt.panoptic import INSTANCES_PER_CLASS, VOID, PanopticMap, Vocabulary
from gestalt.runtime import progress

# The finest space, so that every annotated kind of object counts.
OBJECT_SPACE = "cityscapes27"
OBJECT_DATASET = "cityscapes"

OBJECTS_FILE = "objects.parquet"


@dataclass(frozen=True, eq=False)
class ProposalQuality:
    """Proposals against objects, per size limit in pixels.

    Attributes:
        moving: Against objects that move; empty where the truth does not say which do.
        every: Against all objects, moving or not.
        n_frames: Frames with truth.
    """

    moving: Mapping[int, InstanceQuality]
    every: Mapping[int, InstanceQuality]
    n_frames: int

    def headline(self) -> dict[str, float]:
        """Precision and recall against moving objects of the first size limit, percent; empty where unknown."""
        for moving in self.moving.values():
            return {"precision": 100 * moving.precision, "recall": 100 * moving.recall}
        return {}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n_frames": self.n_frames,
            "moving_objects": {f"min_{size}_px": quality.to_dict() for size, quality in self.moving.items()},
            "all_objects": {f"min_{size}_px": quality.to_dict() for size, quality in self.every.items()},
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
            f"{', '.join(without[:SHOWN_NAMES])}; take the batch out of truth_batches, or complete its truth"
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
    """Precision and recall of class-agnostic proposals.

    Args:
        proposals: Shard folder with the map ``proposals`` (0 = none); frames without maps propose nothing.
        truth: Cityscapes-form ground truth of the frames that count.
        moving: (frame id, instance value) of the moving objects; None where the truth does not say.
        min_object_px: Size limits.
        label: Name of the work in the progress bar.

    Raises:
        ShapeError: Proposals have another size than the truth.
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
    return ProposalQuality(
        moving={}
        if is_moving is None
        else {size: instance_quality(table, is_moving, size) for size in min_object_px},
        every={size: instance_quality(table, is_object, size) for size in min_object_px},
        n_frames=len(truth),
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


def _as_panoptic(proposals: npt.NDArray[Any]) -> PanopticMap:
    """Proposals as instances of class 0, everything else void."""
    semantic = np.where(proposals > 0, 0, VOID).astype(np.uint8)
    return PanopticMap(semantic, proposals.astype(np.uint16))


def _belongs(table: IntersectionTable, objects: frozenset[tuple[str, int]]) -> npt.NDArray[np.bool_]:
    names = np.array(table.image_ids, dtype=object)[table.image]
    pairs = zip(names.tolist(), table.true_instance.tolist())
    return np.fromiter((pair in objects for pair in pairs), np.bool_, count=len(table))
