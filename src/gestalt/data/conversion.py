"""Ground truth from one form into another: written aside, read back, compared, and only then put into place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.adapters import truth_adapter
from gestalt.data.atomic_files import folder_written_aside
from gestalt.data.ground_truth import dataset_of_adapter, find_ground_truth
from gestalt.data.images import write_png
from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.data.source import write_source_file
from gestalt.data.waymo_frames import EmbeddedJpeg
from gestalt.data.writers import truth_writer
from gestalt.data.writers.checks import image_name
from gestalt.errors import ConfigError, DataError, name_some
from gestalt.runtime import progress

IMAGE_MODES = ("none", "link", "copy")


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        n_frames: Annotated frames.
        n_images: Images put beside them.
        without_image: Frames whose image was asked for and is not there.
        is_verified: Every map was read back and compared.
        keeps_sequences: Sequences and frame numbers, where there are any, can be read from what was written.
    """

    n_frames: int
    n_images: int
    without_image: tuple[str, ...]
    is_verified: bool
    keeps_sequences: bool


def convert_truth(
    frames: Sequence[GroundTruthFrame],
    out: Path,
    form: str,
    dataset: str,
    *,
    images: str = "none",
    verify: bool = True,
) -> Conversion:
    """Write ground truth in another form, with a ``source.yaml``, so that ``out`` is a benchmark folder.

    Args:
        frames: To write, from ``find_ground_truth``.
        out: Folder to write; must not exist, or be empty.
        form: Of ``TRUTH_WRITERS``.
        dataset: Whose raw ids the maps use.
        images: ``none``, ``link`` (hard links, copies on another disk) or ``copy``; images inside other files are
            written as the JPEG that they are there, or as PNG.
        verify: Read everything back and compare it with ``frames``.

    Raises:
        ConfigError: The form is unknown, or holds the classes of one other data set.
        DataError: ``out`` holds something, the form has no room for a frame, or what was written reads differently.
    """
    if images not in IMAGE_MODES:
        raise ConfigError(f"--images must be one of {', '.join(IMAGE_MODES)}. Got: {images!r}")
    write, options = truth_writer(form), options_for(form, dataset)
    with folder_written_aside(out) as aside:
        write(frames, aside, dataset)
        write_source_file(aside, form, ".", options)
        written = _pair_up(frames, aside)
        without_image, n_images = _place_images(written, images, aside)
        if verify:
            for frame, back in progress(written, label="reading back", unit="frame"):
                _compare(frame, back)
        keeps_sequences = all(
            (frame.sequence, frame.number) == (back.sequence, back.number) for frame, back in written
        )
    return Conversion(len(frames), n_images, without_image, verify, keeps_sequences)


def options_for(form: str, dataset: str) -> Mapping[str, Any]:
    """Options with which the adapter of a form reads what its writer wrote of a data set.

    Raises:
        ConfigError: The adapter reads the classes of one other data set only.
    """
    own = dataset_of_adapter(form, {})
    if raw_classes(own) == raw_classes(dataset):
        return {}
    options = {"raw_ids": dataset}
    try:
        with tempfile.TemporaryDirectory() as nothing:
            next(iter(truth_adapter(form)(Path(nothing), options)), None)
    except ConfigError as error:
        raise ConfigError(
            f"the form {form} holds the classes of {own}. Got ground truth with raw ids of {dataset}; "
            "coco_panoptic holds those of every data set"
        ) from error
    except DataError:
        # Nothing is there to be read; the option was accepted.
        return options
    return options


def _pair_up(
    frames: Sequence[GroundTruthFrame], folder: Path
) -> list[tuple[GroundTruthFrame, GroundTruthFrame]]:
    """Each frame with itself as it was written."""
    found = {frame.frame_id: frame for frame in find_ground_truth(folder)}
    names = {frame.frame_id for frame in frames}
    if missing := sorted(names - set(found)):
        raise DataError(
            f"{len(missing)} frames are not read back under their names: {name_some(missing)}; "
            f"what was written instead: {name_some(sorted(set(found) - names)) or 'nothing'}"
        )
    return [(frame, found[frame.frame_id]) for frame in frames]


def _compare(frame: GroundTruthFrame, back: GroundTruthFrame) -> None:
    expected, got = frame.read(), back.read()
    for what, before, after in (
        ("class", expected.semantic_map, got.semantic_map),
        ("instance", expected.instance_map, got.instance_map),
    ):
        if before.shape != after.shape:
            raise DataError(
                f"frame {frame.frame_id} had {before.shape} pixels and is read back with {after.shape}"
            )
        if not np.array_equal(before, after):
            row, column = (int(axis[0]) for axis in np.nonzero(before != after))
            raise DataError(
                f"frame {frame.frame_id} is not the same in this form: {(before != after).sum()} pixels have another "
                f"{what}, such as row {row}, column {column}: {before[row, column]} became {after[row, column]}"
            )


def _place_images(
    written: Sequence[tuple[GroundTruthFrame, GroundTruthFrame]], mode: str, folder: Path
) -> tuple[tuple[str, ...], int]:
    """Put images where the form has them; returns frames without an image, and the number of images."""
    if mode == "none":
        return (), 0
    missing, placed = [], []
    for frame, back in progress(written, label="images", unit="image"):
        if frame.read_image is None and not frame.image.is_file():
            missing.append(frame.frame_id)
            continue
        place = back.image.with_suffix(Path(image_name(frame)).suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(frame.read_image, EmbeddedJpeg):
            place.write_bytes(frame.read_image.content())
        elif frame.read_image is not None:
            write_png(place, frame.read_image())
        elif mode == "copy":
            shutil.copyfile(frame.image, place)
        else:
            _link(frame.image, place)
        placed.append(frame.frame_id)
    found = {back.frame_id for back in find_ground_truth(folder) if back.image.is_file()}
    if lost := [name for name in placed if name not in found]:
        raise DataError(
            f"the form does not find {len(lost)} of its images, such as that of {lost[0]}: it knows no such kind of "
            "file; --images none leaves images out"
        )
    return tuple(missing), len(placed)


def _link(source: Path, place: Path) -> None:
    """A hard link, or a copy where the disk is another one or has no links."""
    try:
        os.link(source.resolve(), place)
    except OSError:
        shutil.copyfile(source, place)
