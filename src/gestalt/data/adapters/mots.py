"""MOTS: 16-bit ``instances/<sequence>/<frame>.png`` and the video's images.

Images are looked for at ``images/<sequence>/<frame>.jpg`` and, as MOTSChallenge delivers them, at
``train/MOTS20-<nr>/img1/<frame>.jpg``; KITTI-MOTS has ``training/image_02/<sequence>/<frame>.png``.
"""

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
class MotsTruth:
    """The ground truth has no options."""


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of all sequences; values are ``class * 1000 + track``, 10000 where to ignore."""
    parse_options(MotsTruth, options, "mots")
    for annotation in sorted((root / "instances").glob("*/*.png")):
        sequence = annotation.parent.name
        frame_id = safe_id(f"{sequence}_{annotation.stem}")
        image = _image(root, sequence, annotation.stem)
        yield GroundTruthFrame(frame_id, image, annotation, partial(read_instance_ids, annotation))


def _image(root: Path, sequence: str, stem: str) -> Path:
    folders = (
        root / "images" / sequence,
        root / "train" / f"MOTS20-{sequence[-2:]}" / "img1",
        root / "training" / "image_02" / sequence,
    )
    candidates = [folder / f"{stem}{suffix}" for folder in folders for suffix in (".jpg", ".png")]
    return next((path for path in candidates if path.exists()), candidates[0])
