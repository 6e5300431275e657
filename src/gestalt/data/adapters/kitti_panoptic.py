"""KITTI panoptic in Cityscapes form: ``images/<frame>.png`` and ``instances/<frame>.png`` (16-bit)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gestalt.data.adapters.cityscapes import read_instance_ids
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options


@dataclass(frozen=True)
class KittiPanopticTruth:
    """The ground truth has no options."""


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames; values are Cityscapes label ids, ``class`` or ``class * 1000 + instance``."""
    parse_options(KittiPanopticTruth, options, "kitti_panoptic")
    for annotation in sorted((root / "instances").glob("*.png")):
        image = root / "images" / annotation.name
        yield GroundTruthFrame(
            safe_id(annotation.stem), image, annotation, partial(read_instance_ids, annotation)
        )
