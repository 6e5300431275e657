"""BDD100K: ``labels/pan_seg/bitmasks/<split>/<name>.png`` and ``images/10k/<split>/<name>.jpg``."""

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
from gestalt.panoptic import PanopticMap

# Categories 1..30 are stuff; their pixels carry an instance id too, which means nothing.
FIRST_THING = 31


@dataclass(frozen=True)
class BddTruth:
    """Options of the ground truth."""

    split: str = "val"


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of a split."""
    split = parse_options(BddTruth, options, "bdd").split
    for annotation in sorted((root / "labels" / "pan_seg" / "bitmasks" / split).glob("*.png")):
        image = root / "images" / "10k" / split / f"{annotation.stem}.jpg"
        yield GroundTruthFrame(safe_id(annotation.stem), image, annotation, partial(read_bitmask, annotation))


def read_bitmask(path: Path) -> PanopticMap:
    """An RGBA bitmask: R category, G attributes (not used), B * 256 + A instance.

    Raises:
        DataError: The file is missing, broken or not 8-bit RGBA.
    """
    array = read_png(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 4:
        raise DataError(f"{path} must be an 8-bit RGBA PNG (BDD bitmask). Got: {array.dtype} {array.shape}")
    category = np.ascontiguousarray(array[..., 0])
    instance = array[..., 2].astype(np.uint16) * 256 + array[..., 3]
    return PanopticMap(category, np.where(category >= FIRST_THING, instance, 0).astype(np.uint16))
