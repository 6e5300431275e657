"""A look at the whole of a benchmark before anybody trusts a number: what is there, what is missing, what is wrong."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gestalt.data.images import IMAGE_SUFFIXES, PNG_SIGNATURE, inspect_image
from gestalt.data.label_spaces import RawClass, raw_classes, raw_id_table, spaces_of
from gestalt.data.records import GroundTruthFrame
from gestalt.data.segments import SegmentTable, list_segments
from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID
from gestalt.runtime import progress

SHOWN_EXAMPLES = 10
# Kinds of trouble are short; a message without one starts with a path.
LONGEST_KIND = 50
N_IDS = 256
# Bytes of a PNG up to the bit depth and the kind of colours: signature, length and name of the first chunk, size.
PNG_DEPTH = 24


@dataclass(frozen=True)
class TruthFault:
    """One kind of trouble.

    Attributes:
        kind: What is wrong, the same for all frames that have it.
        is_error: Whether numbers would lie; otherwise it is worth knowing.
        n: How often it occurs.
        examples: The first of them.
    """

    kind: str
    is_error: bool
    n: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ClassCount:
    """What a class of the data set has.

    Attributes:
        raw_id: Its number, with the name.
        name: As the data set calls it.
        n_frames: Frames that show it.
        n_pixels: Its pixels.
        n_objects: Its segments with an instance, counted in each frame.
        n_tracks: Its objects, counted once in each sequence.
        n_groups: Frames where some of its pixels have no instance, of a class that is a thing; else 0.
    """

    raw_id: int
    name: str
    n_frames: int
    n_pixels: int
    n_objects: int
    n_tracks: int
    n_groups: int


@dataclass(frozen=True)
class TruthReport:
    """What a benchmark holds.

    Attributes:
        n_frames: Annotated frames that were found.
        n_readable: Those whose annotation could be read.
        sequences: Frames of each sequence, without single images.
        n_images: Frames whose image is there and whole.
        sizes: Frames of each size (H, W) of the annotation.
        classes: In the order of their ids, those that occur.
        n_pixels: Of all readable frames.
        void_shares: Share of pixels that are void in each label space of the data set.
        faults: Errors first.
    """

    n_frames: int
    n_readable: int
    sequences: dict[str, int]
    n_images: int
    sizes: dict[tuple[int, int], int]
    classes: tuple[ClassCount, ...]
    n_pixels: int
    void_shares: dict[str, float]
    faults: tuple[TruthFault, ...]

    @property
    def is_sound(self) -> bool:
        """Whether numbers from this ground truth can be trusted."""
        return not any(fault.is_error for fault in self.faults)


class _Faults:
    """Trouble as it is found, of which examples are kept and the rest is counted."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._examples: dict[tuple[str, bool], list[str]] = defaultdict(list)

    def add(self, kind: str, example: str, *, is_error: bool) -> None:
        self._counts[kind, is_error] += 1
        if len(self._examples[kind, is_error]) < SHOWN_EXAMPLES:
            self._examples[kind, is_error].append(example)

    def collect(self) -> tuple[TruthFault, ...]:
        """Errors first, frequent kinds first."""
        order = sorted(self._counts, key=lambda key: (not key[1], -self._counts[key], key[0]))
        return tuple(
            TruthFault(kind, is_error, self._counts[kind, is_error], tuple(self._examples[kind, is_error]))
            for kind, is_error in order
        )


class _Counts:
    """Sums over frames, by raw id."""

    def __init__(self, things: Iterable[int]) -> None:
        self.frames, self.pixels, self.objects, self.groups = (np.zeros(N_IDS, np.int64) for _ in range(4))
        self.tracks: set[tuple[str, int, int]] = set()
        self.is_thing = np.zeros(N_IDS, np.bool_)
        self.is_thing[list(things)] = True

    def add(self, segments: SegmentTable, track_group: str) -> None:
        has_instance = segments.instance > 0
        self.frames[np.unique(segments.class_id)] += 1
        np.add.at(self.pixels, segments.class_id, segments.area)
        np.add.at(self.objects, segments.class_id[has_instance], 1)
        np.add.at(self.groups, segments.class_id[~has_instance & self.is_thing[segments.class_id]], 1)
        self.tracks |= {
            (track_group, class_id, instance)
            for class_id, instance in zip(
                segments.class_id[has_instance].tolist(),
                segments.instance[has_instance].tolist(),
                strict=True,
            )
        }


def check_truth(
    frames: Sequence[GroundTruthFrame], dataset: str, unlisted: Sequence[Path] = ()
) -> TruthReport:
    """Read every annotation once, and the size of every image.

    Args:
        frames: From ``find_ground_truth``.
        dataset: Whose raw ids the maps use.
        unlisted: Pictures that look like annotations and are none, from ``unlisted_pictures``.

    Raises:
        ConfigError: There is no table of the data set's raw ids.
    """
    known = {entry.raw_id: entry for entry in raw_classes(dataset)}
    counts = _Counts(entry.raw_id for entry in known.values() if entry.is_thing)
    faults, sizes = _Faults(), Counter[tuple[int, int]]()
    n_images = 0
    for frame in progress(frames, label="check", unit="frame"):
        image_size = _look_at_image(frame, faults)
        n_images += image_size is not None or frame.read_image is not None
        try:
            panoptic = frame.read()
        except (DataError, ShapeError) as error:
            faults.add(_kind(str(error)), f"{frame.frame_id}: {error}", is_error=True)
            continue
        sizes[panoptic.size] += 1
        if image_size not in (None, panoptic.size):
            example = f"{frame.frame_id}: annotation {panoptic.size}, image {image_size} ({frame.image})"
            faults.add("image and annotation differ in size", example, is_error=True)
        segments = list_segments(panoptic)
        counts.add(segments, frame.sequence or f"frame {frame.frame_id}")
        _look_at_segments(frame, segments, known, faults)
    for picture in unlisted:
        faults.add("picture that the JSON does not list", str(picture), is_error=False)
    _look_at_sequences(frames, faults)
    _look_at_folders(frames, faults)
    _look_at_whole(counts, known, faults, sum(sizes.values()))
    return TruthReport(
        n_frames=len(frames),
        n_readable=sum(sizes.values()),
        sequences=dict(sorted(Counter(frame.sequence for frame in frames if frame.sequence).items())),
        n_images=n_images,
        sizes=dict(sizes.most_common()),
        classes=_class_counts(counts, known),
        n_pixels=int(counts.pixels.sum()),
        void_shares=_void_shares(counts.pixels, dataset),
        faults=faults.collect(),
    )


def unlisted_pictures(frames: Sequence[GroundTruthFrame]) -> list[Path]:
    """PNGs beside the annotations that no frame reads: of forms where a JSON lists what counts."""
    used = {frame.annotation for frame in frames}
    return [path for path in _files_beside(used) if path.suffix == ".png"]


def _kind(message: str) -> str:
    kind, separator, _ = message.partition(":")
    is_kind = separator and len(kind) <= LONGEST_KIND and "/" not in kind and "." not in kind
    return kind if is_kind else "annotation cannot be read"


def _look_at_image(frame: GroundTruthFrame, faults: _Faults) -> tuple[int, int] | None:
    """(H, W) of the image where it is a file of its own and whole."""
    if frame.read_image is not None:
        return None
    if not frame.image.is_file():
        faults.add("image is not there", f"{frame.frame_id}: {frame.image}", is_error=False)
        return None
    try:
        return inspect_image(frame.image, check_content=False)
    except DataError as error:
        faults.add("image cannot be read", f"{frame.frame_id}: {error}", is_error=True)
        return None


def _look_at_segments(
    frame: GroundTruthFrame, segments: SegmentTable, known: dict[int, RawClass], faults: _Faults
) -> None:
    name, has_instance = f"{frame.frame_id} ({frame.annotation})", segments.instance > 0
    present = set(segments.class_id.tolist())
    if strangers := sorted(present - set(known) - {VOID}):
        n_pixels = int(segments.area[np.isin(segments.class_id, strangers)].sum())
        example = f"{name}: {', '.join(map(str, strangers[:SHOWN_EXAMPLES]))} on {n_pixels} pixels"
        faults.add("raw ids that the data set does not have, which would become void", example, is_error=True)
    if all(raw_id == VOID or (raw_id in known and known[raw_id].is_void) for raw_id in present):
        faults.add("everything is void", name, is_error=False)
    if (has_instance & (segments.class_id == VOID)).any():
        faults.add("void has instances", name, is_error=True)
    instances, times = np.unique(segments.instance[has_instance], return_counts=True)
    if (times > 1).any():
        twice = int(instances[times > 1][0])
        classes = segments.class_id[segments.instance == twice].tolist()
        faults.add("an instance has several classes", f"{name}: {twice} is {classes}", is_error=True)
    is_thing = np.array(
        [raw_id in known and known[raw_id].is_thing for raw_id in segments.class_id.tolist()], np.bool_
    )
    if is_thing.any() and not has_instance.any() and _is_8_bit_instance_file(frame.annotation):
        faults.add("instance ids saved with 8 bits, so that every object is lost", name, is_error=True)


def _is_8_bit_instance_file(path: Path) -> bool:
    """Whether a file that is called after instances has 8 bits in one channel, where no instance has room."""
    if "instance" not in path.name.lower() and "instance" not in path.parent.name.lower():
        return False
    with path.open("rb") as file:
        start = file.read(PNG_DEPTH + 2)
    depth, colours = struct.unpack(">BB", start[PNG_DEPTH:]) if len(start) == PNG_DEPTH + 2 else (0, 0)
    return start.startswith(PNG_SIGNATURE) and depth <= 8 and colours in (0, 3)


def _look_at_sequences(frames: Sequence[GroundTruthFrame], faults: _Faults) -> None:
    numbers: dict[str, list[int]] = defaultdict(list)
    for frame in frames:
        if frame.sequence:
            numbers[frame.sequence].append(frame.number)
    for sequence, members in sorted(numbers.items()):
        for before, after in pairwise(sorted(members)):
            if after == before:
                faults.add("two frames of a sequence have one number", f"{sequence}: {after}", is_error=True)
            elif after > before + 1:
                example = f"{sequence}: {before} is followed by {after}"
                faults.add("gap in the numbers of a sequence", example, is_error=False)


def _look_at_folders(frames: Sequence[GroundTruthFrame], faults: _Faults) -> None:
    """Files beside those that are read: annotations with an ending in capitals, images without an annotation."""
    annotations = {frame.annotation for frame in frames}
    suffixes = {path.suffix for path in annotations}
    for path in _files_beside(annotations):
        if path.suffix not in suffixes and path.suffix.lower() in suffixes:
            example = f"{path}: rename it to {path.suffix.lower()}"
            faults.add("annotation with an ending in capitals, which is not read", example, is_error=True)
    images = {frame.image for frame in frames if frame.read_image is None}
    # Where all lie in one folder, annotations are pictures without an annotation themselves.
    for path in _files_beside(images - annotations):
        if path.suffix.lower() in IMAGE_SUFFIXES and path not in annotations:
            faults.add("image without an annotation", str(path), is_error=False)


def _files_beside(paths: Set[Path]) -> list[Path]:
    """Other files in the folders of these files."""
    folders = sorted({path.parent for path in paths})
    return [path for folder in folders for path in sorted(folder.glob("*")) if path not in paths]


def _look_at_whole(counts: _Counts, known: dict[int, RawClass], faults: _Faults, n_readable: int) -> None:
    things = [raw_id for raw_id, entry in known.items() if entry.is_thing and counts.pixels[raw_id]]
    if things and not counts.objects.sum():
        example = (
            f"{', '.join(known[raw_id].name for raw_id in things[:SHOWN_EXAMPLES])} in {n_readable} frames"
        )
        faults.add(
            "things without a single object; so look maps that lost their instances", example, is_error=False
        )
    named = [raw_id for raw_id, entry in known.items() if not entry.is_void]
    if n_readable and not counts.pixels[named].sum():
        faults.add("nothing is annotated", f"all pixels of {n_readable} frames are void", is_error=True)
    stuff = [raw_id for raw_id, entry in known.items() if not entry.is_thing and counts.objects[raw_id]]
    for raw_id in stuff:
        example = f"{known[raw_id].name}: {counts.objects[raw_id]} segments"
        faults.add(
            "a class that no label space counts has instances, which are not used", example, is_error=False
        )


def _class_counts(counts: _Counts, known: dict[int, RawClass]) -> tuple[ClassCount, ...]:
    tracks = Counter(class_id for _, class_id, _ in counts.tracks)
    return tuple(
        ClassCount(
            raw_id,
            known[raw_id].name if raw_id in known else "void" if raw_id == VOID else "not known",
            int(counts.frames[raw_id]),
            int(counts.pixels[raw_id]),
            int(counts.objects[raw_id]),
            tracks[raw_id],
            int(counts.groups[raw_id]),
        )
        for raw_id in np.flatnonzero(counts.frames).tolist()
    )


def _void_shares(pixels: npt.NDArray[np.int64], dataset: str) -> dict[str, float]:
    total = max(int(pixels.sum()), 1)
    return {
        space: int(pixels[raw_id_table(dataset, space) == VOID].sum()) / total for space in spaces_of(dataset)
    }
