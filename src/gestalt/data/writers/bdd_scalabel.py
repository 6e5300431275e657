"""BDD100K in Scalabel form with RLE masks, as the adapter ``bdd_scalabel`` reads it.

One file, ``labels/pan_seg/rles/pan_seg_val.json``: ``frames`` with a label per segment, ``config`` with the
categories. The id of a label is its instance; things without one have the id 0 and are marked as crowds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.adapters.bdd import FIRST_THING
from gestalt.data.adapters.bdd_scalabel import VOID_NAME
from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.coco_runs import encode_runs
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import INSTANCE_NUMBERS, find_runs, list_segments
from gestalt.data.writers.checks import check_dataset, check_segments, image_name
from gestalt.errors import DataError
from gestalt.panoptic import VOID, PanopticMap
from gestalt.runtime import progress

UNLABELLED = 0


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, the classes are not those of BDD, or stuff has instances.
    """
    check_dataset(dataset, "bdd", "bdd_scalabel")
    classes = raw_classes(dataset)
    config = {
        "categories": [{"name": entry.name, "isThing": entry.raw_id >= FIRST_THING} for entry in classes[1:]]
    }
    with folder_written_aside(out) as aside:
        path = aside / "labels" / "pan_seg" / "rles" / "pan_seg_val.json"
        path.parent.mkdir(parents=True)
        with path.open("w", encoding="utf-8") as file:
            print('{"frames": [', file=file)
            for place, frame in enumerate(progress(frames, label="bdd_scalabel", unit="frame")):
                print(("," if place else "") + json.dumps(_record(frame)), file=file)
            print(f'],\n"config": {json.dumps(config)}}}', file=file)


def list_labels(panoptic: PanopticMap) -> list[dict[str, Any]]:
    """Scalabel labels of a map in BDD's raw ids, in the order of class and instance; unlabeled pixels have none."""
    names = {entry.raw_id: entry.name for entry in raw_classes("bdd")} | {VOID: VOID_NAME}
    labels = []
    for key, counts in _column_counts(panoptic):
        class_id, instance = divmod(key, INSTANCE_NUMBERS)
        if class_id == UNLABELLED:
            continue
        is_thing = FIRST_THING <= class_id < VOID
        labels.append(
            {
                "id": str(instance if is_thing else class_id),
                "category": names[class_id],
                "attributes": {"crowd": is_thing and instance == 0},
                "rle": {"size": list(panoptic.size), "counts": encode_runs(np.array(counts))},
            }
        )
    return labels


def _record(frame: GroundTruthFrame) -> dict[str, Any]:
    panoptic = frame.read()
    segments = list_segments(panoptic)
    check_segments(segments, frame, [entry.raw_id for entry in raw_classes("bdd")])
    if ((segments.instance > 0) & (segments.class_id < FIRST_THING)).any():
        raise DataError(
            f"frame {frame.frame_id} ({frame.annotation}): in the form bdd_scalabel only categories from "
            f"{FIRST_THING} on have instances, and here stuff has"
        )
    height, width = panoptic.size
    video = {"videoName": frame.sequence, "frameIndex": frame.number} if frame.sequence else {}
    size = {"width": width, "height": height}
    return {"name": image_name(frame), **video, "size": size, "labels": list_labels(panoptic)}


def _column_counts(panoptic: PanopticMap) -> Iterator[tuple[int, list[int]]]:
    """Per segment its key and COCO's counts: lengths of what is outside and inside in turns, column by column."""
    runs = find_runs(panoptic.semantic_map.T, panoptic.instance_map.T)
    order = np.argsort(runs.key, kind="stable")
    key, start, length = runs.key[order], runs.start[order], runs.length[order]
    firsts = np.flatnonzero(np.diff(key, prepend=-1))
    for first, last in zip(firsts, [*firsts[1:], len(key)], strict=True):
        starts, ends = start[first:last], start[first:last] + length[first:last]
        # A run ends with its column; where the next one goes on from there, the two are one.
        is_new = np.append(True, starts[1:] != ends[:-1])
        starts, ends = starts[is_new], ends[np.append(is_new[1:], True)]
        outside = starts - np.append(0, ends[:-1])
        counts = np.stack([outside, ends - starts], axis=1).ravel().tolist()
        rest = int(panoptic.semantic_map.size - ends[-1])
        yield int(key[first]), [*counts, rest] if rest else counts
