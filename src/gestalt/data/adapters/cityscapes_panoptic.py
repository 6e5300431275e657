"""Cityscapes, the official panoptic form: ``gtFine/cityscapes_panoptic_<split>.json`` and the folder of that name.

Made by the data set's own tools from the instance ids, which the adapter ``cityscapes`` reads. Everything that is
not annotated for evaluation is void here, while instance ids say what it is; groups are crowds in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gestalt.data.adapters.cityscapes import find_image
from gestalt.data.adapters.coco_panoptic import readers
from gestalt.data.coco_files import read_coco_panoptic
from gestalt.data.label_spaces import raw_ids_by_name
from gestalt.data.records import GroundTruthFrame, safe_id
from gestalt.data.source import parse_options
from gestalt.errors import DataError


@dataclass(frozen=True)
class CityscapesPanopticTruth:
    """Options of the ground truth.

    Attributes:
        split: ``train`` or ``val``.
        crowd_is_void: Make groups void; otherwise they are pixels of their class without an instance.
    """

    split: str = "val"
    crowd_is_void: bool = False


def find_truth(root: Path, options: Mapping[str, Any]) -> Iterator[GroundTruthFrame]:
    """Annotated frames of a split; frame ids are those of the adapter ``cityscapes``.

    Raises:
        DataError: The JSON is missing, not in COCO panoptic form, or written with train ids.
    """
    settings = parse_options(CityscapesPanopticTruth, options, "cityscapes_panoptic")
    path = root / "gtFine" / f"cityscapes_panoptic_{settings.split}.json"
    content = read_coco_panoptic(path, path.with_suffix(""), is_complete=True)
    expected = raw_ids_by_name("cityscapes")
    if strangers := [entry for entry in content.categories if expected.get(entry.name, entry.id) != entry.id]:
        raise DataError(
            f"{path}: {strangers[0].name} must have the label id {expected[strangers[0].name]}. Got: "
            f"{strangers[0].id}; make the file without train ids"
        )
    for annotation, read in readers(content, crowd_is_void=settings.crowd_is_void):
        frame_id = safe_id(annotation.image_id)
        city = frame_id.partition("_")[0]
        image = find_image(root / "leftImg8bit" / settings.split / city, frame_id)
        yield GroundTruthFrame(frame_id, image, annotation.picture, read)
