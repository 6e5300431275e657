"""MOTS as pictures, as the adapter ``mots`` reads them: 16-bit ``instances/<sequence>/<frame>.png``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gestalt.data.adapters.mots import IGNORED_CLASS
from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import list_segments
from gestalt.data.writers.checks import check_dataset, check_segments
from gestalt.data.writers.video import by_sequence, frame_stem
from gestalt.errors import DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, PanopticMap, UInt16Array
from gestalt.runtime import progress


def write_truth(frames: Sequence[GroundTruthFrame], out: Path, dataset: str) -> None:
    """Write ground truth; see the module.

    Raises:
        DataError: A frame cannot be read, the classes are not those of MOTS, a frame belongs to no video, or the form
            has no room for it.
    """
    check_dataset(dataset, "mots", "mots")
    with folder_written_aside(out) as aside:
        for sequence, members in by_sequence(frames, "mots").items():
            for frame in progress(members, label=f"mots {sequence}", unit="frame"):
                ids = to_object_ids(frame.read(), frame, "mots")
                write_png(aside / "instances" / sequence / f"{frame_stem(frame)}.png", ids)


def to_object_ids(panoptic: PanopticMap, frame: GroundTruthFrame, form: str) -> UInt16Array:
    """Inverse of ``from_object_ids``: (H, W) uint16, 0 background, 10000 where to ignore, otherwise the instance.

    Args:
        panoptic: In raw ids of MOTS.
        frame: Whose map it is, for messages.
        form: What is written, for messages.

    Raises:
        DataError: An object has no instance, background has one, or an instance is not ``class * 1000 + track``.
    """
    segments = list_segments(panoptic)
    check_segments(segments, frame, [entry.raw_id for entry in raw_classes("mots")])
    is_object = segments.instance >= INSTANCES_PER_CLASS
    fits = np.where(
        is_object & (segments.class_id != IGNORED_CLASS),
        segments.instance // INSTANCES_PER_CLASS == segments.class_id,
        np.isin(segments.class_id, (0, IGNORED_CLASS)) & (segments.instance == 0),
    )
    if not fits.all():
        place = int(np.flatnonzero(~fits)[0])
        raise DataError(
            f"frame {frame.frame_id} ({frame.annotation}): in the form {form} every object is called class * "
            f"{INSTANCES_PER_CLASS} + track, and all else is background (0) or ignored ({IGNORED_CLASS}), without an "
            f"instance. Got: class {segments.class_id[place]}, instance {segments.instance[place]} on "
            f"{segments.area[place]} pixels"
        )
    ignored = panoptic.semantic_map == IGNORED_CLASS
    return np.where(ignored, IGNORED_CLASS * INSTANCES_PER_CLASS, panoptic.instance_map).astype(np.uint16)
