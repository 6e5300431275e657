"""Pairs of images to learn displacements from: frames that follow each other, and the two views of one time.

They come from the frames of a manifest, decoded once or when they are drawn, or from one NPZ file, which a machine
without any image library can read.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import DataError, GestaltError
from gestalt.runtime import progress

if TYPE_CHECKING:
    from gestalt.config.frames import FrameSettings
    from gestalt.data.records import StereoFrame

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

# A pair of the first frame of a sequence has no pair before it.
NONE_BEFORE = -1


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """Which images form pairs, and how to get them.

    Attributes:
        read: Number of an image -> (H, W, 3) uint8 RGB, all of one size; may be called from several threads.
        pairs: (N, 2) numbers of the first and the second image.
        is_stereo: (N,) bool, whether the two are views of one time, left and right; else frame t and frame t+1.
        previous: (N,) number of the pair (t-1, t) for a pair (t, t+1), or -1.
        size: (H, W) of all images.
    """

    read: Callable[[int], UInt8Array]
    pairs: IntArray
    is_stereo: npt.NDArray[np.bool_]
    previous: IntArray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        n = len(self.pairs)
        if n == 0:
            raise DataError("training needs at least one pair of images. Got: none")
        if len(self.is_stereo) != n or len(self.previous) != n:
            raise DataError(
                f"is_stereo and previous need an entry for each of {n} pairs. "
                f"Got: {len(self.is_stereo)} and {len(self.previous)}"
            )
        if self.previous.min() < NONE_BEFORE or self.previous.max() >= n:
            raise DataError(
                f"previous must number pairs, -1..{n - 1}. Got: {self.previous.min()}..{self.previous.max()}"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> UInt8Array:
        """(2, H, W, 3) uint8 RGB images of a pair.

        Raises:
            DataError: An image is missing, broken or of another size.
        """
        images = [self.read(int(number)) for number in self.pairs[index]]
        for number, image in zip(self.pairs[index], images, strict=True):
            if image.shape != (*self.size, 3):
                raise DataError(
                    f"image {number} of the training set must be {(*self.size, 3)} like the first one. "
                    f"Got: {image.shape}; one size for all comes from frames.height and frames.width"
                )
        return np.stack(images)

    def draw(self, n: int, stereo_share: float, generator: np.random.Generator) -> IntArray:
        """Numbers of ``n`` random pairs; where only one kind of pair exists the share has no effect."""
        kinds = (np.flatnonzero(~self.is_stereo), np.flatnonzero(self.is_stereo))
        share = stereo_share if len(kinds[0]) else 1.0
        wanted = (generator.random(n) < share) & (len(kinds[1]) > 0)
        places = generator.random(n)
        return np.array(
            [
                kinds[int(stereo)][int(place * len(kinds[int(stereo)]))]
                for stereo, place in zip(wanted, places)
            ],
            np.int64,
        )

    def middles(self) -> IntArray:
        """Numbers of the pairs (t, t+1) whose frame t-1 is there too."""
        return np.flatnonzero(self.previous != NONE_BEFORE)


def pairs_of_frames(
    frames: Sequence[StereoFrame], settings: FrameSettings, *, keep_in_memory: bool, threads: int
) -> TrainingPairs:
    """The pairs of a manifest: t and t+1 of the left and of the right camera, left and right of each time.

    Args:
        frames: Usable rows of a manifest; right images may be missing.
        settings: Size of the images.
        keep_in_memory: Decode every image now and keep it as bytes of pixels, else whenever it is drawn.
        threads: That decode.

    Raises:
        DataError: An image is missing, broken or of another size.
    """
    numbers: dict[Path, int] = {}
    # The frame that each image belongs to, as its left image.
    sources: list[StereoFrame] = []
    found: dict[tuple[int, int], bool] = {}

    def number(path: Path, frame: StereoFrame) -> int:
        if path not in numbers:
            numbers[path] = len(numbers)
            sources.append(dataclasses.replace(frame, left=path))
        return numbers[path]

    for frame in frames:
        left, left_next = number(frame.left, frame), number(frame.left_next, frame)
        found.setdefault((left, left_next), False)
        for other, start in ((frame.right, left), (frame.right_next, left_next)):
            if other is not None:
                found.setdefault((start, number(other, frame)), True)
        if frame.right is not None and frame.right_next is not None:
            found.setdefault((numbers[frame.right], numbers[frame.right_next]), False)
    pairs, is_stereo = (
        np.array(list(found), np.int64).reshape(-1, 2),
        np.array(list(found.values()), np.bool_),
    )
    read = _reader(sources, settings)
    if keep_in_memory:
        read = _kept(read, len(numbers), threads)
    height, width = read(0).shape[:2]
    return TrainingPairs(read, pairs, is_stereo, find_previous(pairs, is_stereo), (height, width))


def find_previous(pairs: IntArray, is_stereo: npt.NDArray[np.bool_]) -> IntArray:
    """For each pair in time the number of the pair that ends where it starts, or -1; (N, 2), (N,) -> (N,)."""
    ends = {int(second): index for index, (_, second) in enumerate(pairs) if not is_stereo[index]}
    return np.array(
        [
            NONE_BEFORE if stereo else ends.get(int(first), NONE_BEFORE)
            for (first, _), stereo in zip(pairs, is_stereo, strict=True)
        ],
        np.int64,
    )


def read_pairs(path: Path) -> TrainingPairs:
    """Pairs from one NPZ file.

    Args:
        path: Holds either ``pairs``, (N, 2, H, W, 3) uint8 RGB; or ``images``, (M, H, W, 3) uint8 RGB, and
            ``pairs``, (N, 2) int, their numbers, so that an image of several pairs is stored once. Where they are
            known also ``is_stereo``, (N,) bool, and ``previous``, (N,) int, as in ``TrainingPairs``.

    Raises:
        DataError: The file or an array is missing or has another form.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; `python -m gestalt.matching.training_pairs` makes such a file"
        )
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no NPZ file: {error}") from error
    images, pairs = _images_and_pairs(path, arrays)
    n = len(pairs)
    return TrainingPairs(
        read=images.__getitem__,
        pairs=pairs,
        is_stereo=np.asarray(arrays.get("is_stereo", np.zeros(n, np.bool_)), np.bool_),
        previous=np.asarray(arrays.get("previous", np.full(n, NONE_BEFORE)), np.int64),
        size=(images.shape[1], images.shape[2]),
    )


def write_pairs(path: Path, pairs: TrainingPairs) -> None:
    """Write what ``read_pairs`` reads, every image once.

    Raises:
        DataError: An image is missing or broken, or the disk is full.
    """
    used, numbers = np.unique(pairs.pairs, return_inverse=True)
    images = np.stack([pairs.read(int(number)) for number in used])
    content = io.BytesIO()
    np.savez_compressed(
        content,
        images=images,
        pairs=numbers.reshape(-1, 2),
        is_stereo=pairs.is_stereo,
        previous=pairs.previous,
    )
    write_bytes(path, content.getvalue())


def _images_and_pairs(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> tuple[UInt8Array, IntArray]:
    """(M, H, W, 3) images and (N, 2) numbers, from either form of the file."""
    pairs, images = arrays.get("pairs"), arrays.get("images")
    if pairs is not None and pairs.ndim == 5 and pairs.shape[1] == 2 and images is None:
        n = len(pairs)
        images = pairs.reshape(2 * n, *pairs.shape[2:])
        pairs = np.arange(2 * n, dtype=np.int64).reshape(n, 2)
    good_pairs = pairs is not None and pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind in "iu"
    good_images = (
        images is not None and images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
    )
    if pairs is None or images is None or not good_pairs or not good_images:
        got = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items()) or "nothing"
        raise DataError(
            f"{path} must hold `pairs`, (N, 2, H, W, 3) uint8, or `images`, (M, H, W, 3) uint8, and `pairs`, "
            f"(N, 2) int. Got: {got}"
        )
    if len(pairs) and not 0 <= int(pairs.min()) <= int(pairs.max()) < len(images):
        raise DataError(f"{path}: pairs must number {len(images)} images. Got: {pairs.min()}..{pairs.max()}")
    return images, pairs.astype(np.int64)


def _reader(sources: Sequence[StereoFrame], settings: FrameSettings) -> Callable[[int], UInt8Array]:
    # Decoding needs an image library, which is not there where pairs come from an NPZ file.
    from gestalt.data.frames import load_left

    def read(number: int) -> UInt8Array:
        return load_left(sources[number], settings)

    return read


def _kept(read: Callable[[int], UInt8Array], n_images: int, threads: int) -> Callable[[int], UInt8Array]:
    with ThreadPoolExecutor(threads) as pool:
        images = list(progress(pool.map(read, range(n_images)), label="images", total=n_images, unit="image"))
    return images.__getitem__


def main() -> None:
    """Pack the pairs of a manifest into one file, for a machine that has nothing else."""
    from gestalt.config import load_params
    from gestalt.data.manifest import read_manifest

    parser = argparse.ArgumentParser(
        prog="python -m gestalt.matching.training_pairs", description=main.__doc__
    )
    parser.add_argument("--manifest", type=Path, required=True, help="such as data/manifests/monday.parquet")
    parser.add_argument("--out", type=Path, required=True, help="NPZ to write")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="values, such as frames.scale=1"
    )
    arguments = parser.parse_args()
    try:
        settings = load_params(overrides=arguments.overrides).frames
        pairs = pairs_of_frames(read_manifest(arguments.manifest), settings, keep_in_memory=False, threads=1)
        write_pairs(arguments.out, pairs)
    except GestaltError as error:
        print(f"training_pairs: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
