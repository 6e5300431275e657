"""MOTS as pictures: 16-bit ``instances/<sequence>/<frame>.png`` and the video's images.

Images are looked for at ``images/<sequence>/<frame>.jpg`` and, as MOTSChallenge delivers them, at
``train/MOTS20-<nr>/img1/<frame>.jpg``; KITTI-MOTS has ``training/image_02/<sequence>/<frame>.png``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.data.images import read_png
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError, ShapeError, name_some
from gestalt.panoptic import INSTANCES_PER_CLASS, PanopticMap, from_instance_ids

# Regions where annotators could not tell objects apart; 10000 in the files.
IGNORED_CLASS = 10
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True)
class MotsTruth:
    """Options of the ground truth.

    Attributes:
        raw_ids: Data set: ``mots`` (persons alone count) or ``kitti_mots`` (cars and persons).
        sequences: Names of those that count, with spaces between; empty takes all.
    """

    raw_ids: str = "mots"
    sequences: str = ""


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of all sequences, those without any object among them.

    Raises:
        DataError: A file is not named by the number of its frame, or a sequence that is asked for is not there.
    """
    wanted = parse_options(MotsTruth, options, "mots").sequences
    annotations = sorted((root / "instances").glob("*/*.png"))
    chosen = choose_sequences({annotation.parent.name for annotation in annotations}, wanted, root)
    for annotation in annotations:
        sequence, stem = annotation.parent.name, annotation.stem
        if sequence not in chosen:
            continue
        yield GroundTruthFrame(
            safe_id(f"{sequence}_{stem}"),
            find_image(root, sequence, stem),
            annotation,
            partial(read_object_ids, annotation),
            sequence,
            frame_number(annotation),
        )


def read_object_ids(path: Path) -> PanopticMap:
    """A 16-bit PNG of object ids; see ``from_object_ids``.

    Raises:
        DataError: The file is missing, broken or of another form.
    """
    try:
        return from_object_ids(read_png(path))
    except (DataError, ShapeError) as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error


def from_object_ids(ids: npt.NDArray[Any]) -> PanopticMap:
    """Read MOTS ids: 0 background, 10000 where to ignore, others ``class * 1000 + track``.

    Args:
        ids: (H, W) integer.

    Returns:
        Tracks keep their value; what is to be ignored has its class and no instance.

    Raises:
        ShapeError: ``ids`` is not (H, W).
        DataError: A value is no object id, as where 16-bit ids lost their upper 8 bits.
    """
    if (is_wrong := (ids > 0) & (ids < INSTANCES_PER_CLASS)).any():
        found = np.unique(ids[is_wrong])
        lost = "; 16-bit ids were probably saved with 8 bits" if ids.max() < 2**8 else ""
        raise DataError(
            f"MOTS ids must be 0 or class * {INSTANCES_PER_CLASS} + track. "
            f"Got: {name_some(found.tolist())}{lost}"
        )
    panoptic = from_instance_ids(ids)
    panoptic.instance_map[panoptic.semantic_map == IGNORED_CLASS] = 0
    return panoptic


def choose_sequences(found: Collection[str], wanted: str, root: Path) -> Collection[str]:
    """Those of the sequences that the option ``sequences`` asks for.

    Raises:
        DataError: One that is asked for is not there.
    """
    names = wanted.split()
    if absent := sorted(set(names) - set(found)):
        raise DataError(
            f"the option sequences asks for {', '.join(absent)}, which are not under {root}; "
            f"there are: {', '.join(sorted(found)) or 'none'}"
        )
    return names or found


def frame_number(annotation: Path) -> int:
    """The number that a file is named by.

    Raises:
        DataError: Its name is no number.
    """
    if not (annotation.stem.isascii() and annotation.stem.isdigit()):
        raise DataError(f"{annotation} must be named by the number of its frame, such as 000012.png")
    return int(annotation.stem)


def image_folders(root: Path, sequence: str) -> tuple[Path, ...]:
    """Where the images of a sequence may lie."""
    return (
        root / "images" / sequence,
        root / "train" / f"MOTS20-{sequence[-2:]}" / "img1",
        root / "training" / "image_02" / sequence,
    )


def find_image(root: Path, sequence: str, stem: str) -> Path:
    """The image of a frame; the first place where it may lie if it lies nowhere."""
    folders = image_folders(root, sequence)
    candidates = [folder / f"{stem}{suffix}" for folder in folders for suffix in IMAGE_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])
