"""Prediction of what lies at a path: one picture, a folder of pictures, or a video."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch

from gestalt.config.network import PredictSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.data.images import IMAGE_SUFFIXES, read_image, write_png
from gestalt.errors import DataError
from gestalt.inference.overlay import class_colours, class_names, draw_overlay
from gestalt.inference.predictor import PanopticPrediction, Predictor
from gestalt.network.checkpoint import NetworkCard
from gestalt.panoptic import UInt8Array, ids_to_rgb, segment_ids, segments_info
from gestalt.runtime import progress

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
PREDICTIONS = "predictions.json"

# Digits of scores in JSON.
SCORE_DIGITS = 4


@dataclass(frozen=True)
class PathSummary:
    """What ``predict_path`` did.

    Attributes:
        n_images: Pictures or video frames with a prediction.
        failed: File name and reason of each picture that could not be read.
        out: Folder with the results.
    """

    n_images: int
    failed: tuple[tuple[str, str], ...]
    out: Path


@dataclass(frozen=True, eq=False)
class _Picture:
    """One picture on its way through.

    Attributes:
        name: What results are called; the whole file name when it could not be read.
        image: None when it could not be read.
        reason: Why it could not be read.
    """

    name: str
    image: UInt8Array | None
    reason: str = ""


def predict_path(
    source: Path,
    network: Path,
    out: Path,
    *,
    settings: PredictSettings | None = None,
    device: torch.device | None = None,
) -> PathSummary:
    """Predict every picture at ``source`` and write what a person and a program want to see.

    Memory does not grow with the number of pictures. A picture that cannot be read is listed with its reason
    and the rest goes on.

    Args:
        source: A PNG or JPEG, a folder of them, or a video.
        network: Network folder.
        out: Results: per picture ``<name>_panoptic.png`` (COCO panoptic colours) and ``<name>_overlay.png``,
            for a video ``<name>_overlay.mp4`` instead of the latter; ``predictions.json`` in COCO panoptic
            form with a score per segment.
        settings: Section ``predict``; the embedded preset when None.
        device: A GPU where there is one when None.

    Raises:
        DataError: ``source`` is missing, of an unknown kind or has no readable picture; the network is
            broken.
    """
    is_video = source.suffix.lower() in VIDEO_SUFFIXES
    files = [] if is_video else find_pictures(source)
    predictor = Predictor.load(network, device, settings)
    colours = class_colours(predictor.card)
    out.mkdir(parents=True, exist_ok=True)
    pictures, total, frame_rate_hz = _open(source, files, is_video)
    annotations: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    with _OverlayVideo(out / f"{source.stem}_overlay.mp4", frame_rate_hz) as video:
        shown = progress(pictures, label="predict", total=total, unit="image")
        for batch in _batches(shown, predictor.batch_size):
            readable = [(entry.name, entry.image) for entry in batch if entry.image is not None]
            failed += [(entry.name, entry.reason) for entry in batch if entry.image is None]
            if not readable:
                continue
            predictions = predictor.predict_batch([image for _, image in readable])
            for (name, image), prediction in zip(readable, predictions, strict=True):
                overlay = draw_overlay(image, prediction.panoptic, colours)
                if is_video:
                    video.add(overlay)
                else:
                    write_png(out / f"{name}_overlay.png", overlay)
                write_png(out / f"{name}_panoptic.png", ids_to_rgb(segment_ids(prediction.panoptic)))
                annotations.append(_annotation(name, prediction, predictor.card))
    if not annotations:
        reason = failed[0][1] if failed else "it has no frame"
        raise DataError(f"nothing in {source} could be predicted: {reason}")
    content = {
        "categories": _categories(predictor.card, colours),
        "images": [
            {"id": entry["image_id"], "height": entry["height"], "width": entry["width"]}
            for entry in annotations
        ],
        "annotations": [
            {key: entry[key] for key in ("image_id", "file_name", "segments_info")} for entry in annotations
        ],
        "failed": [{"file_name": name, "reason": reason} for name, reason in failed],
    }
    write_bytes(out / PREDICTIONS, (json.dumps(content, indent=1) + "\n").encode())
    return PathSummary(len(annotations), tuple(failed), out)


def find_pictures(source: Path) -> list[Path]:
    """The picture at ``source``, or all pictures directly in it, sorted by name.

    Raises:
        DataError: The path does not exist, is of an unknown kind, or holds no picture, or two of its pictures
            differ in their suffix only.
    """
    known = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
    if not source.exists():
        raise DataError(f"{source} does not exist; give an image, a folder of images or a video")
    if source.is_file():
        if source.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{source} has an unknown suffix; known are {known}")
        return [source]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        has_folders = any(path.is_dir() for path in source.iterdir())
        hint = "; subfolders are not searched, give one of them" if has_folders else ""
        raise DataError(f"{source} holds no image with one of the suffixes {', '.join(IMAGE_SUFFIXES)}{hint}")
    stems = [path.stem for path in found]
    if repeated := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise DataError(
            f"{source} holds several images called {repeated[0]}; results would overwrite each other"
        )
    return found


def _open(
    source: Path, files: Sequence[Path], is_video: bool
) -> tuple[Iterator[_Picture], int | None, float]:
    if not is_video:
        return (_read(path) for path in files), len(files), 0.0
    if not source.exists():
        raise DataError(f"{source} does not exist; give an image, a folder of images or a video")
    capture = cv2.VideoCapture(str(source))
    if not capture.isOpened():
        raise DataError(f"{source} cannot be opened as a video; convert it, for example to H.264 in .mp4")
    n_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return _frames(capture, source.stem), n_frames or None, float(capture.get(cv2.CAP_PROP_FPS)) or 25.0


def _read(path: Path) -> _Picture:
    try:
        return _Picture(path.stem, read_image(path))
    except DataError as error:
        return _Picture(path.name, None, str(error))


def _frames(capture: cv2.VideoCapture, stem: str) -> Iterator[_Picture]:
    try:
        for number in itertools.count():
            is_read, frame = capture.read()
            if not is_read:
                return
            rgb = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
            yield _Picture(f"{stem}_{number:06d}", rgb)
    finally:
        capture.release()


def _batches(pictures: Iterator[_Picture] | Any, batch_size: int) -> Iterator[list[_Picture]]:
    """Neighbours of one size together, at most ``batch_size`` of them; unreadable pictures go with anyone."""
    batch: list[_Picture] = []
    size: tuple[int, ...] | None = None
    for picture in pictures:
        own = size if picture.image is None else picture.image.shape
        if batch and (len(batch) == batch_size or (size is not None and own != size)):
            yield batch
            batch, size = [], None
        batch.append(picture)
        size = own
    if batch:
        yield batch


def _annotation(name: str, prediction: PanopticPrediction, card: NetworkCard) -> dict[str, Any]:
    height, width = prediction.panoptic.size
    scores = {(entry.unified_class, entry.instance): entry.score for entry in prediction.segments}
    segments = segments_info(prediction.panoptic, card.vocabulary.unified_things)
    for segment in segments:
        instance = (segment["id"] - 1) // 256
        segment["score"] = round(scores[segment["category_id"], instance], SCORE_DIGITS)
    return {
        "image_id": name,
        "file_name": f"{name}_panoptic.png",
        "segments_info": segments,
        "height": height,
        "width": width,
    }


def _categories(card: NetworkCard, colours: UInt8Array) -> list[dict[str, Any]]:
    things = set(card.vocabulary.unified_things)
    return [
        {"id": number, "name": name, "isthing": int(number in things), "color": colours[number].tolist()}
        for number, name in enumerate(class_names(card))
    ]


class _OverlayVideo:
    """Writes a video from its first frame on; without a frame there is no file."""

    def __init__(self, path: Path, frame_rate_hz: float) -> None:
        self._path, self._frame_rate_hz = path, frame_rate_hz
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> _OverlayVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()

    def add(self, overlay: UInt8Array) -> None:
        """Append an (H, W, 3) uint8 RGB picture."""
        if self._writer is None:
            height, width = overlay.shape[:2]
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), codec, self._frame_rate_hz, (width, height))
            if not self._writer.isOpened():
                raise DataError(f"{self._path} cannot be written as a video; is the folder writable?")
        self._writer.write(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
