"""Ground truth of benchmarks: found by its adapter, read as raw ids, expressed in a label space."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gestalt.data.adapters import truth_adapter
from gestalt.data.label_spaces import load_label_space, raw_id_table
from gestalt.data.records import GroundTruthFrame
from gestalt.data.source import SOURCE_FILE, read_source
from gestalt.errors import DataError
from gestalt.panoptic import PanopticMap

__all__ = ["GroundTruthFrame", "dataset_of", "find_ground_truth", "read_ground_truth"]


def find_ground_truth(folder: Path) -> list[GroundTruthFrame]:
    """Annotated images of a benchmark, in the order of their annotation files.

    Args:
        folder: Holds ``source.yaml``.

    Raises:
        DataError: ``source.yaml`` is missing or broken, nothing is found, or two frames have one id.
        ConfigError: The adapter or one of its options is unknown.
    """
    source = read_source(folder)
    frames = list(truth_adapter(source.adapter)(source.root, source.options))
    if not frames:
        raise DataError(
            f"no ground truth in the layout of {source.adapter} under {source.root}; "
            f"see {folder / SOURCE_FILE} and the docstring of gestalt.data.adapters.{source.adapter}"
        )
    seen: dict[str, GroundTruthFrame] = {}
    for frame in frames:
        if frame.frame_id in seen:
            raise DataError(
                f"two annotations have the frame id {frame.frame_id}: {seen[frame.frame_id].annotation} "
                f"and {frame.annotation}"
            )
        seen[frame.frame_id] = frame
    return frames


def dataset_of(folder: Path) -> str:
    """The data set whose raw ids a benchmark uses: what ``read_ground_truth`` wants to know.

    Raises:
        DataError: ``source.yaml`` is missing or broken.
    """
    source = read_source(folder)
    return str(
        source.options.get("raw_ids", "cityscapes" if source.adapter == "coco_panoptic" else source.adapter)
    )


def read_ground_truth(frame: GroundTruthFrame, label_space: str, dataset: str) -> PanopticMap:
    """One annotation in a label space.

    Args:
        frame: From ``find_ground_truth``.
        label_space: Such as ``cityscapes19``.
        dataset: Whose raw ids the annotation uses; see ``dataset_of``.

    Returns:
        Ids of the label space, 255 where void. Instances exist on thing classes only; thing pixels without
        one belong to a group whose members nobody separated.

    Raises:
        DataError: The annotation is missing or broken.
        ConfigError: The label space is unknown or not one of the data set's.
    """
    raw = frame.read()
    semantic = raw_id_table(dataset, label_space)[raw.semantic_map]
    things = np.isin(semantic, load_label_space(label_space).thing_ids)
    return PanopticMap(semantic, np.where(things, raw.instance_map, 0).astype(np.uint16))
