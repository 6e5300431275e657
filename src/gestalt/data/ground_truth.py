"""Ground truth of benchmarks: found by its adapter, read as raw ids, expressed in a label space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.adapters import truth_adapter
from gestalt.data.images import read_image
from gestalt.data.label_spaces import load_label_space, raw_id_table
from gestalt.data.records import GroundTruthFrame
from gestalt.data.source import SOURCE_FILE, read_source
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import PanopticMap, UInt8Array

# Adapters that are not called like the data set whose raw ids they read.
DATASET_OF = {
    "bdd_scalabel": "bdd",
    "cityscapes_panoptic": "cityscapes",
    "coco_panoptic": "cityscapes",
    "mots_text": "mots",
}

__all__ = [
    "GroundTruthFrame",
    "dataset_of",
    "dataset_of_adapter",
    "find_frames",
    "find_ground_truth",
    "load_image",
    "read_ground_truth",
]


def find_ground_truth(folder: Path) -> list[GroundTruthFrame]:
    """Annotated images of a benchmark, in the order of their annotation files.

    Args:
        folder: Holds ``source.yaml``.

    Raises:
        DataError: ``source.yaml`` is missing or broken, nothing is found, or two frames have one id.
        ConfigError: The adapter or one of its options is unknown.
    """
    source = read_source(folder)
    return find_frames(source.adapter, source.root, source.options, origin=str(folder / SOURCE_FILE))


def find_frames(
    adapter: str, root: Path, options: Mapping[str, Any], *, origin: str = "--adapter"
) -> list[GroundTruthFrame]:
    """What ``find_ground_truth`` finds, of an adapter, a root and options; ``origin`` says who named them.

    Raises:
        DataError: Nothing is found, or two frames have one id.
        ConfigError: The adapter or one of its options is unknown.
    """
    try:
        frames = list(truth_adapter(adapter)(root, options))
    except ConfigError as error:
        # Adapters blame the file that options usually stand in.
        message = (
            str(error).replace("source.yaml: ", "--option: ", 1) if origin.startswith("--") else str(error)
        )
        raise ConfigError(message) from error
    if not frames:
        raise DataError(
            f"no ground truth in the layout of {adapter} under {root} (options: "
            f"{', '.join(f'{name}={value}' for name, value in options.items()) or 'none'}); mend {origin}: "
            "docs/ground_truth.md shows the tree and the options of each adapter"
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
    return dataset_of_adapter(source.adapter, source.options)


def dataset_of_adapter(adapter: str, options: Mapping[str, Any]) -> str:
    """The data set whose raw ids an adapter's maps use: its option ``raw_ids``, otherwise its own."""
    return str(options.get("raw_ids", DATASET_OF.get(adapter, adapter)))


def load_image(frame: GroundTruthFrame) -> UInt8Array:
    """The image of a frame, be it a file or inside one.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: It is missing or broken.
    """
    return read_image(frame.image) if frame.read_image is None else frame.read_image()


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
