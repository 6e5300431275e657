"""COCO panoptic form, as the adapter ``coco_panoptic`` reads it: ``panoptic.json`` and ``panoptic/<frame>.png``.

Objects have their instance as segment id; everything else has ``65536 + class``, beyond all instances. Thing pixels
without an instance are crowds. Classes that no label space uses are segments too, with the supercategory ``void``:
leaving them out would lose which of them a pixel had.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import SegmentTable, list_segments
from gestalt.data.writers.checks import check_segments, image_name
from gestalt.panoptic import VOID, PanopticMap, ids_to_rgb
from gestalt.runtime import progress

# Segment ids of what has no instance: beyond those of 16 bits.
NO_INSTANCE = 1 << 16


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, or the form has no room for it.
    """
    known = [entry.raw_id for entry in raw_classes(dataset)]
    images: list[dict[str, Any]] = []
    tables: dict[str, SegmentTable] = {}
    with folder_written_aside(out) as aside:
        for frame in progress(frames, label="coco_panoptic", unit="frame"):
            panoptic = frame.read()
            segments = list_segments(panoptic)
            check_segments(segments, frame, known)
            write_png(aside / "panoptic" / f"{frame.frame_id}.png", ids_to_rgb(segment_ids(panoptic)))
            images.append(_image(frame, panoptic.size))
            tables[frame.frame_id] = segments
        _write_json(aside / "panoptic.json", images, tables, dataset)


def segment_ids(panoptic: PanopticMap) -> npt.NDArray[np.int32]:
    """(H, W) int32 segment ids, 0 where void; see the module."""
    instance = panoptic.instance_map.astype(np.int32)
    ids = np.where(instance > 0, instance, NO_INSTANCE + panoptic.semantic_map.astype(np.int32))
    ids[panoptic.semantic_map == VOID] = 0
    return ids


def _write_json(
    path: Path, images: Sequence[dict[str, Any]], tables: dict[str, SegmentTable], dataset: str
) -> None:
    """Write a line per image and annotation; what is a thing shows only when all frames are known."""
    classes = raw_classes(dataset)
    things = {entry.raw_id for entry in classes if entry.is_thing}
    # What has an object is a thing, whatever the label spaces say: cars of MOTS are background there.
    things |= {int(raw_id) for table in tables.values() for raw_id in table.class_id[table.instance > 0]}
    categories = [
        {
            "id": entry.raw_id,
            "name": entry.name,
            "supercategory": "void" if entry.is_void else "thing" if entry.raw_id in things else "stuff",
            "isthing": int(entry.raw_id in things),
        }
        for entry in classes
    ]
    annotations = (
        {"image_id": name, "file_name": f"{name}.png", "segments_info": _segments_info(table, things)}
        for name, table in tables.items()
    )
    with path.open("w", encoding="utf-8") as file:
        for key, entries, before in (
            ("categories", categories, "{"),
            ("images", images, ",\n"),
            ("annotations", annotations, ",\n"),
        ):
            print(f'{before} "{key}": [', file=file, end="")
            for place, entry in enumerate(entries):
                print(f"{',' if place else ''}\n  {json.dumps(entry)}", file=file, end="")
            print("\n ]", file=file, end="")
        print("\n}", file=file)


def _image(frame: GroundTruthFrame, size: tuple[int, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": frame.frame_id,
        "file_name": image_name(frame),
        "height": size[0],
        "width": size[1],
    }
    if frame.sequence:
        entry |= {"sequence": frame.sequence, "number": frame.number}
    return entry


def _segments_info(table: SegmentTable, things: Collection[int]) -> list[dict[str, Any]]:
    return [
        {
            "id": instance or NO_INSTANCE + class_id,
            "category_id": class_id,
            "area": area,
            "bbox": box,
            "iscrowd": int(not instance and class_id in things),
        }
        for class_id, instance, area, box in zip(
            table.class_id.tolist(),
            table.instance.tolist(),
            table.area.tolist(),
            table.box.tolist(),
            strict=True,
        )
        if class_id != VOID
    ]
