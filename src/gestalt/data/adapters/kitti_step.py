"""KITTI-STEP: ``panoptic_maps/<split>/<sequence>/<frame>.png``, 8-bit RGB, and the video's images.

Red is the Cityscapes train id, 255 where void; green * 256 + blue is the instance, from 1 on, 0 where none. Instances
are the tracks of KITTI-MOTS with 1 added, per class; persons and cars have them. Images are looked for at
``images/<split>/<sequence>/<frame>.png`` and, as KITTI delivers them, at ``training/image_02/<sequence>/<frame>.png``.

Source: Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021 (Datasets and Benchmarks).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.adapters.mots import frame_number
from gestalt.data.images import IMAGE_SUFFIXES, read_png
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, VOID, PanopticMap


@dataclass(frozen=True)
class KittiStepTruth:
    """Options of the ground truth.

    Attributes:
        split: ``train`` or ``val``.
        raw_ids: Data set whose raw ids the classes are.
    """

    split: str = "val"
    raw_ids: str = "kitti_step"


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of all sequences of a split.

    Raises:
        DataError: A file is not named by the number of its frame.
    """
    split = parse_options(KittiStepTruth, options, "kitti_step").split
    for annotation in sorted((root / "panoptic_maps" / split).glob("*/*.png")):
        sequence, stem = annotation.parent.name, annotation.stem
        candidates = [
            folder / f"{stem}{suffix}"
            for folder in (root / "images" / split / sequence, root / "training" / "image_02" / sequence)
            for suffix in IMAGE_SUFFIXES
        ]
        yield GroundTruthFrame(
            safe_id(f"{sequence}_{stem}"),
            next((path for path in candidates if path.exists()), candidates[0]),
            annotation,
            partial(read_panoptic_map, annotation),
            sequence,
            frame_number(annotation),
        )


def read_panoptic_map(path: Path) -> PanopticMap:
    """One annotation.

    Returns:
        An instance is ``class * 1000 + number - 1``, which is unique whatever the class and ends in the number of the
        track in KITTI-MOTS; void has none.

    Raises:
        DataError: The file is missing, broken or of another form.
    """
    array = read_png(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise DataError(
            f"{path} must be an 8-bit RGB PNG (KITTI-STEP panoptic map). Got: {array.dtype} {array.shape}"
        )
    semantic = np.ascontiguousarray(array[..., 0])
    number = array[..., 1].astype(np.int32) * 256 + array[..., 2]
    number[semantic == VOID] = 0
    if number.max(initial=0) > INSTANCES_PER_CLASS:
        raise DataError(
            f"{path}: a class has at most {INSTANCES_PER_CLASS} instances, numbered from 1. "
            f"Got: {number.max()}; green * 256 + blue must be the instance"
        )
    instance = np.where(number > 0, semantic.astype(np.int32) * INSTANCES_PER_CLASS + number - 1, 0)
    if instance.max(initial=0) > np.iinfo(np.uint16).max:
        raise DataError(
            f"{path}: class {semantic[instance > np.iinfo(np.uint16).max][0]} cannot have instances"
        )
    return PanopticMap(semantic, instance.astype(np.uint16))
