"""Many images, each with ground truth and prediction in whatever files they lie, into one intersection table.

A side of an image is read as it is stored; what its numbers mean is asked for the few tuples of numbers that occur, not
for every pixel. Images are independent, so they are spread over processes and their tables merge in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, GestaltError, ShapeError
from gestalt.evaluation.intersections import (
    NO_PREDICTION,
    BoolArray,
    IntArray,
    IntersectionTable,
    build_table,
    count_tuples,
    merge_tables,
)
from gestalt.evaluation.protocols import Protocol
from gestalt.evaluation.table_files import TableFiles, write_table
from gestalt.evaluation.window import window_places
from gestalt.panoptic import VOID, PanopticMap
from gestalt.runtime import open_executor, progress

# Images that a process is handed at once: enough that handing over costs nothing, few enough for an even end.
CHUNK_IMAGES = 8
# Chunks waiting per process; more would only fill memory.
WAITING_CHUNKS = 3
# Images whose table is in memory at once, where parts go to files.
PART_IMAGES = 1000
SHOWN_FAULTS = 10

# Class, instance and crowd flag of rows, from their values per plane and their numbers of pixels.
Named = tuple[IntArray, IntArray, BoolArray]
NameRows = Callable[[Sequence[IntArray], IntArray], Named]

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Pixels:
    """One side of an image as it is stored.

    Attributes:
        planes: (H, W) integers or (H, W, 3) uint8 colours of ids, as ``count_tuples`` takes them.
        name_rows: Says what tuples of their values are; raises where one means nothing.
        origin: File they come from, for messages.
    """

    planes: tuple[npt.NDArray[Any], ...]
    name_rows: NameRows
    origin: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.planes[0].shape[:2]
        return height, width


ReadPixels = Callable[[], Pixels]


@dataclass(frozen=True, eq=False)
class ImagePair:
    """One image of an evaluation set; picklable.

    Attributes:
        image_id: Unique in the set.
        truth: Reads the ground truth.
        prediction: Reads the prediction; None where there is none, which counts as missed.
    """

    image_id: str
    truth: ReadPixels
    prediction: ReadPixels | None


@dataclass(frozen=True)
class Fault:
    """Why an image cannot be compared."""

    image_id: str
    reason: str


def intersect_pairs(
    pairs: Sequence[ImagePair], *, protocol: Protocol | None = None, workers: int = 1, label: str = "evaluate"
) -> IntersectionTable:
    """One table of all images; the same bytes for any number of workers.

    Args:
        pairs: All images with ground truth.
        protocol: Says which part of the images counts; all of it without one.
        workers: Processes; 1 works in this one.
        label: Name of the work in the progress bar and in messages.

    Raises:
        DataError: There is no image, or some cannot be compared; the first ten are shown with their reasons.
    """
    return merge_tables(_intersect_parts(pairs, len(pairs), protocol, workers, label))


def intersect_to_files(
    pairs: Sequence[ImagePair],
    folder: Path,
    *,
    protocol: Protocol | None = None,
    workers: int = 1,
    label: str = "evaluate",
    part_images: int = PART_IMAGES,
) -> TableFiles:
    """As ``intersect_pairs``, for more images than fit memory: parts of the table go to files as they are done.

    Args:
        pairs: All images with ground truth.
        folder: Empty; a file per part is written into it.
        protocol: As for ``intersect_pairs``.
        workers: As for ``intersect_pairs``.
        label: As for ``intersect_pairs``.
        part_images: Images per file.

    Raises:
        DataError: As for ``intersect_pairs``.
    """
    ordered = sorted(pairs, key=lambda pair: pair.image_id)
    paths = []
    for number, part in enumerate(_intersect_parts(ordered, part_images, protocol, workers, label)):
        paths.append(folder / f"part_{number:06}.parquet")
        write_table(paths[-1], part)
    return TableFiles(tuple(paths))


def _intersect_parts(
    pairs: Sequence[ImagePair], part_images: int, protocol: Protocol | None, workers: int, label: str
) -> Iterator[IntersectionTable]:
    """Tables of so many images each, in the order of ``pairs``."""
    if not pairs:
        raise DataError(f"{label}: there is no image to evaluate; the ground truth is empty")
    part_of = {pair.image_id: place // part_images for place, pair in enumerate(pairs)}
    sizes = Counter(part_of.values())
    tables: dict[int, list[IntersectionTable]] = {}
    faults: list[Fault] = []
    following = 0
    for found in map_pairs(partial(intersect_pair, protocol=protocol), pairs, workers=workers, label=label):
        if isinstance(found, Fault):
            faults.append(found)
            continue
        part = part_of[found.image_ids[0]]
        tables.setdefault(part, []).append(found)
        # Nothing is kept any more where the end will be an error.
        while not faults and len(tables.get(following, ())) == sizes[following] > 0:
            yield merge_tables(tables.pop(following))
            following += 1
    if faults:
        raise DataError(describe_faults(faults, len(pairs), label))


def map_pairs(
    work: Callable[[ImagePair], Result], pairs: Sequence[ImagePair], *, workers: int, label: str
) -> Iterator[Result | Fault]:
    """What ``work`` makes of each pair, in any order; a ``Fault`` where it raises what a file can cause.

    Args:
        work: Picklable.
        pairs: What to do.
        workers: Processes; 1 works in this one.
        label: Name of the work in the progress bar.
    """
    chunks = [pairs[start : start + CHUNK_IMAGES] for start in range(0, len(pairs), CHUNK_IMAGES)]
    if workers == 1 or len(chunks) == 1:
        for pair in progress(pairs, label=label, unit="image"):
            yield from _do_chunk(work, [pair])
        return
    workers = min(workers, len(chunks))
    with open_executor(workers=workers) as executor:
        results = _results(executor, partial(_do_chunk, work), chunks, WAITING_CHUNKS * workers)
        finished = (result for chunk in results for result in chunk)
        yield from progress(finished, label=label, total=len(pairs), unit="image")


def intersect_pair(pair: ImagePair, protocol: Protocol | None = None) -> IntersectionTable:
    """The table of one image.

    Raises:
        DataError: A file is missing or broken, or a value means nothing.
        ShapeError: The two sides, or the ground truth and the protocol, differ in size.
    """
    truth, prediction = read_pair(pair, protocol)
    planes = truth.planes + (() if prediction is None else prediction.planes)
    values, n_pixels = count_tuples(*planes)
    n_truth = len(truth.planes)
    true_class, true_instance, is_crowd = truth.name_rows(values[:n_truth], n_pixels)
    if prediction is None:
        predicted_class = np.full(len(n_pixels), NO_PREDICTION, np.int64)
        predicted_instance = np.zeros(len(n_pixels), np.int64)
    else:
        predicted_class, predicted_instance, _ = prediction.name_rows(values[n_truth:], n_pixels)
    return build_table(
        (pair.image_id,),
        image=np.zeros(len(n_pixels), np.int64),
        predicted_class=predicted_class,
        predicted_instance=predicted_instance,
        true_class=true_class,
        true_instance=true_instance,
        is_crowd=is_crowd,
        n_pixels=n_pixels,
    )


def read_pair(pair: ImagePair, protocol: Protocol | None = None) -> tuple[Pixels, Pixels | None]:
    """Both sides of an image, cut to the part that counts; see ``intersect_pair``."""
    truth = pair.truth()
    prediction = None if pair.prediction is None else pair.prediction()
    if protocol is not None and protocol.image_size is not None and truth.size != protocol.image_size:
        raise ShapeError(
            f"protocol {protocol.name} is defined for images of {protocol.image_size} (height, width). Got: "
            f"{truth.origin} {truth.size}; choose a protocol without image_size"
        )
    if prediction is not None and prediction.size != truth.size:
        raise ShapeError(
            "prediction and ground truth must have one size (H, W), because resizing a label map changes the score. "
            f"Got: {prediction.origin} {prediction.size}, {truth.origin} {truth.size}"
        )
    places = None if protocol is None else window_places(truth.size, protocol)
    if places is None:
        return truth, prediction
    return _cut(truth, places), None if prediction is None else _cut(prediction, places)


def class_maps(pixels: Pixels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every pixel of a side with its name: (H, W) int64 class, and (H, W) int64 instance, 0 in void and crowds."""
    codes = np.zeros(pixels.size, np.int64)
    for plane in pixels.planes:
        wide = plane.astype(np.int64)
        if plane.ndim == 3:
            wide = wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)
        codes = codes * (int(wide.max(initial=0)) + 1) + wide
    _, first, inverse, counts = np.unique(
        codes.reshape(-1), return_index=True, return_inverse=True, return_counts=True
    )
    values = []
    for plane in pixels.planes:
        chosen = plane.reshape(-1, *plane.shape[2:])[first].astype(np.int64)
        values.append(chosen @ np.array([1, 2**8, 2**16]) if chosen.ndim == 2 else chosen)
    class_id, instance, is_crowd = pixels.name_rows(values, counts)
    inverse = inverse.reshape(pixels.size)
    return class_id[inverse], np.where((class_id >= VOID) | is_crowd, 0, instance)[inverse]


def panoptic_of(pixels: Pixels, class_of: npt.NDArray[np.int64] | None = None) -> PanopticMap:
    """A side as a panoptic map; instances are numbered anew, 1..N.

    Args:
        pixels: One side.
        class_of: (256) class of each value, where values are pseudo-classes.
    """
    class_id, instance = class_maps(pixels)
    if class_of is not None:
        class_id = class_of[np.minimum(class_id, VOID)]
    _, numbers = np.unique(instance * (NO_PREDICTION + 1) + class_id, return_inverse=True)
    numbered = np.where(instance > 0, numbers.reshape(pixels.size) + 1, 0)
    return PanopticMap(class_id.astype(np.uint8), numbered.astype(np.uint16))


def describe_faults(faults: Sequence[Fault], n_images: int, label: str) -> str:
    """The first faults by image, and how many there are."""
    ordered = sorted(faults, key=lambda fault: fault.image_id)
    lines = [f"  {fault.image_id}: {fault.reason}" for fault in ordered[:SHOWN_FAULTS]]
    if len(ordered) > SHOWN_FAULTS:
        lines.append(f"  and {len(ordered) - SHOWN_FAULTS} more")
    return "\n".join([f"{label}: {len(faults)} of {n_images} images cannot be compared:", *lines])


def _do_chunk(work: Callable[[ImagePair], Result], pairs: Sequence[ImagePair]) -> list[Result | Fault]:
    found: list[Result | Fault] = []
    for pair in pairs:
        try:
            found.append(work(pair))
        except GestaltError as error:
            found.append(Fault(pair.image_id, str(error)))
    return found


def _results(
    executor: Executor, work: Callable[[Any], Result], items: Sequence[Any], n_waiting: int
) -> Iterator[Result]:
    """Results as they are finished, with a bounded number of items under way."""
    under_way: set[Future[Result]] = set()
    for item in items:
        if len(under_way) >= n_waiting:
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
        under_way.add(executor.submit(work, item))
    while under_way:
        finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in finished)


def _cut(pixels: Pixels, places: tuple[IntArray, IntArray]) -> Pixels:
    where = np.ix_(*places)
    return Pixels(tuple(plane[where] for plane in pixels.planes), pixels.name_rows, pixels.origin)
