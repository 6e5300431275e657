"""Waymo, converted: ``images/<frame>.jpg`` (or png), ``semantic/<frame>.png``, ``instance/<frame>.png``.

Made from frames with a panoptic label of the front camera: semantic = label // divisor, instance = the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.images import read_png
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap


@dataclass(frozen=True)
class WaymoTruth:
    """The ground truth has no options."""


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames."""
    parse_options(WaymoTruth, options, "waymo")
    for annotation in sorted((root / "semantic").glob("*.png")):
        instance = root / "instance" / annotation.name
        png = root / "images" / annotation.name
        yield GroundTruthFrame(
            safe_id(annotation.stem),
            png if png.exists() else png.with_suffix(".jpg"),
            annotation,
            partial(read_semantic_and_instance, annotation, instance),
        )


def read_semantic_and_instance(semantic_path: Path, instance_path: Path) -> PanopticMap:
    """A semantic PNG and an instance PNG whose numbers may repeat between classes; void has no instance.

    Returns:
        Instances numbered 1..N in ascending order of (class, number).

    Raises:
        DataError: A file is missing or broken, or the two do not fit together.
    """
    semantic, instance = read_png(semantic_path), read_png(instance_path)
    if semantic.ndim != 2 or semantic.shape != instance.shape:
        raise DataError(
            f"{semantic_path} and {instance_path} must have one channel and one size. "
            f"Got: {semantic.shape} and {instance.shape}"
        )
    if semantic.max(initial=0) > VOID:
        raise DataError(f"{semantic_path} must hold classes up to {VOID}. Got: {semantic.max()}")
    is_instance = (instance > 0) & (semantic > 0)
    keys = np.where(is_instance, semantic.astype(np.int64) * 65536 + instance, 0)
    values, numbers = np.unique(keys, return_inverse=True)
    # Where no pixel is without an instance, the smallest key is one already.
    numbers = numbers.reshape(keys.shape) + int(values[0] != 0)
    return PanopticMap(semantic.astype(np.uint8), numbers.astype(np.uint16))
