"""BDD100K: ``labels/pan_seg/bitmasks/<split>/<name>.png`` and ``images/10k/<split>/<name>.jpg``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.images import IMAGE_SUFFIXES, read_png
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap

# Categories 1..30 are stuff; their pixels carry an instance id too, which means nothing.
FIRST_THING, LAST_THING = 31, 40
# Bits of the green channel; 4 is occluded, 8 truncated.
IGNORE, CROWD = 1, 2


@dataclass(frozen=True)
class BddTruth:
    """Options of the ground truth.

    Attributes:
        split: ``train`` or ``val``.
        crowd_is_group: Things marked as a crowd or as to be ignored have no instance, and such stuff is void: the
            data set's own evaluation leaves both out. The published numbers of our protocols look at no mark.
    """

    split: str = "val"
    crowd_is_group: bool = False


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of a split."""
    settings = parse_options(BddTruth, options, "bdd")
    for annotation in sorted((root / "labels" / "pan_seg" / "bitmasks" / settings.split).glob("*.png")):
        yield GroundTruthFrame(
            safe_id(annotation.stem),
            find_image(root / "images" / "10k" / settings.split, annotation.stem),
            annotation,
            partial(read_bitmask, annotation, crowd_is_group=settings.crowd_is_group),
        )


def find_image(folder: Path, stem: str) -> Path:
    """The image with this name: a JPEG, as the data set has them, unless another kind is there."""
    usual = folder / f"{stem}.jpg"
    candidates = [usual, *(folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)]
    return next((path for path in candidates if path.is_file()), usual)


def read_bitmask(path: Path, *, crowd_is_group: bool = False) -> PanopticMap:
    """An RGBA bitmask: R category, G marks, B * 256 + A instance; see ``BddTruth``.

    Raises:
        DataError: The file is missing, broken or not 8-bit RGBA.
    """
    array = read_png(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 4:
        raise DataError(f"{path} must be an 8-bit RGBA PNG (BDD bitmask). Got: {array.dtype} {array.shape}")
    category = np.ascontiguousarray(array[..., 0])
    instance = array[..., 2].astype(np.uint16) * 256 + array[..., 3]
    instance[(category < FIRST_THING) | (category == VOID)] = 0
    if crowd_is_group:
        is_marked = (array[..., 1] & (IGNORE | CROWD)) > 0
        instance[is_marked] = 0
        category[is_marked & (category < FIRST_THING)] = VOID
    return PanopticMap(category, instance)
