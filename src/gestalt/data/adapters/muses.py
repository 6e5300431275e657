"""MUSES: ``gt_panoptic/<split>.json``, ``gt_panoptic/<split>/<weather>/<time>/<scene>_gt_panoptic.png`` and images.

COCO panoptic form in Cityscapes' label ids. JSON files of one weather and time of day are in
``gt_panoptic/gt_panoptic_by_condition/<split>_<weather>_<time>.json``; images in
``frame_camera/<split>/<weather>/<time>/<scene>_frame_camera.png``.

Source: Brödermann et al., MUSES: The Multi-Sensor Semantic Perception Dataset, ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gestalt.data.adapters.coco_panoptic import readers
from gestalt.data.coco_files import read_coco_panoptic
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options

TRUTH, IMAGE = "_gt_panoptic.png", "_frame_camera.png"


@dataclass(frozen=True)
class MusesTruth:
    """Options of the ground truth.

    Attributes:
        split: ``train`` or ``val``.
        weather: ``clear``, ``fog``, ``rain`` or ``snow``; empty takes all.
        time: ``day`` or ``night``; empty takes both.
        crowd_is_void: Make crowds void; otherwise they are pixels of their class without an instance.
    """

    split: str = "val"
    weather: str = ""
    time: str = ""
    crowd_is_void: bool = True


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of a split.

    Raises:
        DataError: The JSON is missing or not in COCO panoptic form.
    """
    settings = parse_options(MusesTruth, options, "muses")
    folder = root / "gt_panoptic"
    content = read_coco_panoptic(folder / f"{settings.split}.json", is_complete=True)
    for annotation, read in readers(content, crowd_is_void=settings.crowd_is_void):
        place = annotation.picture.relative_to(folder)
        weather, time = ("", "", *place.parts[:-1])[-2:]
        if settings.weather not in ("", weather) or settings.time not in ("", time):
            continue
        image = root / "frame_camera" / place.parent / place.name.replace(TRUTH, IMAGE)
        frame_id = safe_id(place.name.removesuffix(TRUTH).removesuffix(place.suffix))
        yield GroundTruthFrame(frame_id, image, annotation.picture, read)
