"""Prediction of what lies at a path: one picture, a folder of pictures, or a video."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.config.tracks import TrackSettings
from gestalt.data.images import IMAGE_SUFFIXES, read_image
from gestalt.errors import ConfigError, DataError
from gestalt.inference.formats import USUAL_FORMS, Series, check_forms, open_forms
from gestalt.inference.predictor import Predictor
from gestalt.inference.tracks import Tracker
from gestalt.inference.video import VIDEO_SUFFIXES, Video, open_video
from gestalt.panoptic import UInt8Array
from gestalt.runtime import progress

# `<city>_<sequence>_<frame>`, as Cityscapes names frames, and behind it of what kind the picture is.
CITYSCAPES_FRAME = re.compile(r"(?P<sequence>[A-Za-z][\w-]*_\d{6})_\d{6}(_[A-Za-z]\w*)?")

# What stands for a frame of a video where a picture would have the name of its file.
FRAME_SUFFIX = ".png"


@dataclass(frozen=True)
class PathSummary:
    """What ``predict_path`` did.

    Attributes:
        n_images: Pictures or video frames with a prediction.
        failed: File name and reason of each picture that could not be read.
        out: Folder with the results.
        n_tracks: Objects that were followed over the frames; None where nothing was linked.
    """

    n_images: int
    failed: tuple[tuple[str, str], ...]
    out: Path
    n_tracks: int | None = None


@dataclass(frozen=True, eq=False)
class _Picture:
    """One picture on its way through.

    Attributes:
        file_name: Of the picture; for a frame of a video the name it would have as one.
        image: None when it could not be read.
        reason: Why it could not be read.
    """

    file_name: str
    image: UInt8Array | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Pictures:
    """All pictures at a path, read one by one.

    Attributes:
        pictures: In their order.
        total: How many; None when nobody knows.
        frame_rate_hz: Frames per second of a video, otherwise None.
    """

    pictures: Iterator[_Picture]
    total: int | None
    frame_rate_hz: float | None


def predict_path(
    source: Path,
    network: Path,
    out: Path,
    *,
    settings: PredictSettings | None = None,
    device: torch.device | None = None,
    forms: Sequence[str] = USUAL_FORMS,
    is_video: bool | None = None,
    tracks: TrackSettings | None = None,
) -> PathSummary:
    """Predict every picture at ``source`` and write what a person and a program want to see.

    Memory does not grow with the number of pictures. A picture that cannot be read is listed with its reason
    and the rest goes on. Objects of a video keep their instance ids, and a colour each, from frame to frame.

    Args:
        source: A PNG or JPEG, a folder of them, or a video. Grey is repeated, alpha dropped, 16 bits become 8.
        network: Network folder.
        out: Results, see ``formats``: by default per picture ``<name>_panoptic.png`` (COCO panoptic colours) and
            ``<name>_overlay.png``, for a video file ``<name>_overlay.mp4`` instead of the latter, and
            ``predictions.json`` in COCO panoptic form with a score per segment.
        settings: Section ``predict``; the embedded preset when None.
        device: A GPU where there is one when None.
        forms: Names of ``formats.FORMS``.
        is_video: Whether objects are linked over the pictures, which follow each other by name; None does so for
            video files only. Where names are those of Cityscapes, nothing is linked from one sequence to the next.
        tracks: Section ``tracks``; the embedded preset when None.

    Raises:
        ConfigError: A form is unknown, ``out`` is ``source``, or the device has too little memory.
        DataError: ``source`` is missing, of an unknown kind or has no readable picture; the network is
            broken; ``out`` cannot be written.
    """
    check_forms(forms)
    if out.resolve() == source.resolve():
        raise ConfigError(
            f"results and images would share the folder {out}, and the next time results would be taken for images; "
            "choose another --out"
        )
    is_file = source.suffix.lower() in VIDEO_SUFFIXES
    files = [] if is_file else find_pictures(source)
    predictor = Predictor.load(network, device, settings)
    found = _open_video(source) if is_file else _Pictures((_read(path) for path in files), len(files), None)
    _make_writable(out)
    tracker = None
    if is_file if is_video is None else is_video:
        tracker = Tracker(tracks or default_settings("tracks"))
    series = Series(source.stem, out, predictor.card, found.frame_rate_hz, tracker is not None)
    n_images, failed, sequence = 0, [], None
    with open_forms(forms, series) as writers:

        def work(batch: list[_Picture]) -> None:
            nonlocal sequence
            readable = [(entry.file_name, entry.image) for entry in batch if entry.image is not None]
            for entry in batch:
                if entry.image is None:
                    for writer in writers:
                        writer.miss(entry.file_name, entry.reason)
            predictions = predictor.predict_batch([image for _, image in readable]) if readable else []
            for (file_name, image), prediction in zip(readable, predictions, strict=True):
                linked = prediction
                if tracker is not None:
                    before, sequence = sequence, None if is_file else sequence_of(file_name)
                    if sequence != before:
                        tracker.end_tracks()
                    linked = tracker.follow(prediction)
                for writer in writers:
                    writer.add(file_name, image, linked)

        done = _each_when_done(_batches(found.pictures, predictor.batch_size), work)
        for picture in progress(done, label="predict", total=found.total, unit="image"):
            if picture.image is None:
                failed.append((picture.file_name, picture.reason))
            else:
                n_images += 1
        if not n_images:
            reason = failed[0][1] if failed else "it has no frame"
            raise DataError(f"nothing in {source} could be predicted: {reason}")
    return PathSummary(n_images, tuple(failed), out, None if tracker is None else tracker.n_tracks)


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


def sequence_of(file_name: str) -> str | None:
    """City and number of the sequence in a name of Cityscapes' kind; None in any other."""
    found = CITYSCAPES_FRAME.fullmatch(Path(file_name).stem)
    return found and found["sequence"]


def _make_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def _open_video(source: Path) -> _Pictures:
    video = open_video(source)
    return _Pictures(_name_frames(video, source), video.n_frames, video.frame_rate_hz)


def _name_frames(video: Video, source: Path) -> Iterator[_Picture]:
    """The frames, and at the end whether the file was shorter than it says."""
    n_read = 0
    for frame in video.frames:
        yield _Picture(f"{source.stem}_{n_read:06d}{FRAME_SUFFIX}", frame)
        n_read += 1
    if n_missing := video.missing_frames(n_read):
        reason = f"ends after {n_read} frames, {n_missing} less than it says; it is cut short or damaged"
        yield _Picture(source.name, None, reason)


def _read(path: Path) -> _Picture:
    try:
        return _Picture(path.name, read_image(path))
    except DataError as error:
        return _Picture(path.name, None, str(error))


def _each_when_done(
    batches: Iterable[list[_Picture]], work: Callable[[list[_Picture]], None]
) -> Iterator[_Picture]:
    """Every picture once ``work`` is through with its batch, so that a bar counts what is done, not what is read."""
    for batch in batches:
        work(batch)
        yield from batch


def _batches(pictures: Iterable[_Picture], batch_size: int) -> Iterator[list[_Picture]]:
    """Neighbours of one size together, at most ``batch_size`` of them; unreadable pictures go with anyone."""
    batch: list[_Picture] = []
    size: tuple[int, ...] | None = None
    for picture in pictures:
        own = size if picture.image is None else picture.image.shape
        if batch and (len(batch) == batch_size or (size is not None and own != size)):
            yield batch
            batch, size = [], None
        batch.append(picture)
        size = size if picture.image is None else picture.image.shape
    if batch:
        yield batch
