"""Forms that predictions are written in: pictures for people, COCO panoptic, Cityscapes instance ids.

Each form takes the pictures one by one and keeps none of them; what spans all pictures appears when its block ends
without an error.
"""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from gestalt.data.atomic_files import explain_full_disk, write_bytes, written_aside
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_ids_by_name
from gestalt.data.overlay import draw_overlay, track_colours
from gestalt.errors import ConfigError, DataError
from gestalt.inference.class_legend import class_colours, class_names
from gestalt.inference.predictor import PanopticPrediction
from gestalt.inference.video import VideoFile
from gestalt.network.checkpoint import NetworkCard
from gestalt.panoptic import (
    INSTANCES_PER_CLASS,
    VOID,
    PanopticMap,
    UInt8Array,
    UInt16Array,
    ids_to_rgb,
    segment_ids,
    segments_info,
)

PREDICTIONS = "predictions.json"
INSTANCE_ID_CLASSES = "instanceIds.json"

# Digits of scores in JSON.
SCORE_DIGITS = 4

# "Unlabeled" among the ids of Cityscapes.
UNLABELLED = 0
# Largest class whose instances fit 16 bits: 64 * 1000 + 999.
MAX_CLASS_ID = np.iinfo(np.uint16).max // INSTANCES_PER_CLASS - 1


@dataclass(frozen=True, eq=False)
class Series:
    """The pictures that results are written of.

    Attributes:
        name: What results of all pictures together are called.
        out: Folder to write.
        card: Of the network.
        frame_rate_hz: Frames per second of a video; None for pictures.
        has_tracks: Whether instance ids last over the pictures.
    """

    name: str
    out: Path
    card: NetworkCard
    frame_rate_hz: float | None
    has_tracks: bool


class Form(ABC):
    """One form of results."""

    def __enter__(self) -> Form:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def add(self, file_name: str, image: UInt8Array, prediction: PanopticPrediction) -> None:
        """Write what belongs to one picture: its file name, (H, W, 3) uint8 RGB, and what was predicted."""

    def miss(self, file_name: str, reason: str) -> None:  # noqa: B027 - most forms have no place for it
        """Note a picture that could not be read."""


class OverlayForm(Form):
    """``<name>_overlay.png`` of each picture, or one ``<name>_overlay.mp4`` of a video."""

    def __init__(self, series: Series) -> None:
        self._series, self._colours = series, class_colours(series.card)
        self._video: VideoFile | None = None
        if series.frame_rate_hz is not None:
            self._video = VideoFile(series.out / f"{series.name}_overlay.mp4", series.frame_rate_hz)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._video is not None:
            self._video.__exit__(kind, error, trace)

    def add(self, file_name: str, image: UInt8Array, prediction: PanopticPrediction) -> None:
        """Draw the prediction over the picture; objects of a video have a colour each that stays."""
        colours = track_colours(prediction.panoptic, self._colours) if self._series.has_tracks else None
        overlay = draw_overlay(image, prediction.panoptic, self._colours, colours)
        if self._video is None:
            write_png(self._series.out / f"{Path(file_name).stem}_overlay.png", overlay)
        else:
            self._video.add(overlay)


class CocoForm(Form):
    """``<name>_panoptic.png`` of each picture and ``predictions.json`` of all, in COCO panoptic form.

    Annotations wait in a file without a name, a line each, which vanishes with the process: the JSON lists images
    before annotations, so that it can be put together only at the end.
    """

    def __init__(self, series: Series) -> None:
        self._series = series
        self._failed: list[dict[str, str]] = []
        self._lines: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", dir=series.out)  # noqa: SIM115

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lines:
            if kind is None:
                self._write_json(self._series.out / PREDICTIONS)

    def add(self, file_name: str, image: UInt8Array, prediction: PanopticPrediction) -> None:
        """Write the segment ids as a PNG and keep the annotation."""
        name = Path(file_name).stem
        map_name = f"{name}_panoptic.png"
        write_png(self._series.out / map_name, ids_to_rgb(segment_ids(prediction.panoptic)))
        height, width = prediction.panoptic.size
        line = {
            "image": {"id": name, "file_name": file_name, "height": height, "width": width},
            "annotation": {
                "image_id": name,
                "file_name": map_name,
                "segments_info": _scored_segments(prediction, self._series.card),
            },
        }
        with explain_full_disk(self._series.out):
            print(json.dumps(line), file=self._lines)

    def miss(self, file_name: str, reason: str) -> None:
        """List it under ``failed``."""
        self._failed.append({"file_name": file_name, "reason": reason})

    def _write_json(self, path: Path) -> None:
        with written_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
            print("{", file=file)
            print(f' "categories": {json.dumps(_categories(self._series.card))},', file=file)
            for key, part in (("images", "image"), ("annotations", "annotation")):
                entries = (json.dumps(entry[part]) for entry in self._read_lines())
                print(f' "{key}": [', file=file, end="")
                for number, entry in enumerate(entries):
                    print(f"{',' if number else ''}\n  {entry}", file=file, end="")
                print("\n ],", file=file)
            print(f' "failed": {json.dumps(self._failed)}', file=file)
            print("}", file=file)

    def _read_lines(self) -> Iterator[dict[str, Any]]:
        self._lines.seek(0)
        return (json.loads(line) for line in self._lines)


class CityscapesForm(Form):
    """``<name>_gtFine_instanceIds.png`` of each picture, as Cityscapes writes its ground truth.

    16 bit: ``id * 1000 + n`` on an object, n counted from 0 for each id and picture; ``id`` on everything else; 0
    where nothing was said. Ids are those of Cityscapes when the card names every class as Cityscapes does, otherwise
    unified class + 1. ``instanceIds.json`` says which. More than 1000 objects of an id in a picture do not fit, so
    that numbers cannot last over a video; those of the COCO form do.

    Raises:
        DataError: There are more classes than the form has room for.
    """

    def __init__(self, series: Series) -> None:
        self._series = series
        self._ids, self._space = instance_id_classes(series.card)
        things = [int(self._ids[number]) for number in series.card.vocabulary.unified_things]
        if max(things, default=0) > MAX_CLASS_ID:
            raise DataError(
                f"instance ids of Cityscapes' form hold things up to class {MAX_CLASS_ID}; this network's go up to "
                f"{max(things)}. Use the form coco"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            classes = [
                {**entry, "id": int(self._ids[entry["id"]]), "unified_class": entry["id"]}
                for entry in _categories(self._series.card)
            ]
            content = {"ids": self._space, "unlabeled": UNLABELLED, "classes": classes}
            text = json.dumps(content, indent=1) + "\n"
            write_bytes(self._series.out / INSTANCE_ID_CLASSES, text.encode())

    def add(self, file_name: str, image: UInt8Array, prediction: PanopticPrediction) -> None:
        """Write the instance ids."""
        ids = to_instance_ids(prediction.panoptic, self._ids)
        write_png(self._series.out / f"{Path(file_name).stem}_gtFine_instanceIds.png", ids)


FORMS: dict[str, Callable[[Series], Form]] = {
    "overlay": OverlayForm,
    "coco": CocoForm,
    "cityscapes": CityscapesForm,
}
USUAL_FORMS = ("overlay", "coco")
# Forms that show from picture to picture which object is which.
FORMS_WITH_TRACKS = ("overlay", "coco")


@contextmanager
def open_forms(names: Sequence[str], series: Series) -> Iterator[list[Form]]:
    """The forms with these names; what spans all pictures is written when the block ends without an error.

    Raises:
        ConfigError: A form is unknown, or none is named.
        DataError: A form has no room for the classes of the network.
    """
    check_forms(names)
    with ExitStack() as stack:
        yield [stack.enter_context(FORMS[name](series)) for name in dict.fromkeys(names)]


def check_forms(names: Sequence[str]) -> None:
    """Raise a ``ConfigError`` on an unknown form, or where there is none."""
    if not names or set(names) - set(FORMS):
        raise ConfigError(f"--format must be one of {', '.join(FORMS)}. Got: {', '.join(names) or 'none'}")


def instance_id_classes(card: NetworkCard) -> tuple[UInt16Array, str]:
    """What unified classes are called in Cityscapes' form.

    Returns:
        (256,) uint16, id of each unified class, 0 (unlabeled) for void and unknown ones; and ``cityscapes`` where
        all ids are those of Cityscapes, otherwise ``unified class + 1``.
    """
    ids = np.full(VOID + 1, UNLABELLED, np.uint16)
    n_classes, known = card.vocabulary.n_pseudo_classes, raw_ids_by_name("cityscapes")
    if card.class_names and set(card.class_names) <= set(known):
        ids[:n_classes] = [known[name] for name in card.class_names]
        return ids, "cityscapes"
    ids[:n_classes] = np.arange(1, n_classes + 1)
    return ids, "unified class + 1"


def to_instance_ids(panoptic: PanopticMap, class_ids: UInt16Array) -> UInt16Array:
    """A map in Cityscapes' form.

    Args:
        panoptic: The map; the instances of an id are numbered from 0 in ascending order.
        class_ids: (256,) uint16, id of each class of the map, at most 64 for things. Several may share one.

    Returns:
        (H, W) uint16.

    Raises:
        DataError: An id has more than 1000 instances.
    """
    instance_map = panoptic.instance_map
    table = np.zeros(int(instance_map.max(initial=0)) + 1, np.int64)
    table[instance_map] = class_ids[panoptic.semantic_map]
    present = np.flatnonzero(np.bincount(instance_map.ravel())[1:]) + 1
    for class_id in np.unique(table[present]):
        members = present[table[present] == class_id]
        if len(members) > INSTANCES_PER_CLASS:
            raise DataError(
                f"Cityscapes' form holds {INSTANCES_PER_CLASS} objects of a class in a picture. "
                f"Got: {len(members)} of class {class_id}; use the form coco"
            )
        table[members] = class_id * INSTANCES_PER_CLASS + np.arange(len(members))
    ids = np.where(instance_map > 0, table[instance_map], class_ids[panoptic.semantic_map])
    return ids.astype(np.uint16)


def _scored_segments(prediction: PanopticPrediction, card: NetworkCard) -> list[dict[str, Any]]:
    scores = {(entry.unified_class, entry.instance): entry.score for entry in prediction.segments}
    segments = segments_info(prediction.panoptic, card.vocabulary.unified_things)
    for segment in segments:
        instance = (segment["id"] - 1) // 256
        segment["score"] = round(scores[segment["category_id"], instance], SCORE_DIGITS)
    return segments


def _categories(card: NetworkCard) -> list[dict[str, Any]]:
    things, colours = set(card.vocabulary.unified_things), class_colours(card)
    return [
        {"id": number, "name": name, "isthing": int(number in things), "color": colours[number].tolist()}
        for number, name in enumerate(class_names(card))
    ]
