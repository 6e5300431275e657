"""Frames that features are learned from: a file of pixels, which a machine without any image library can read."""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import DataError, GestaltError
from gestalt.runtime import progress

if TYPE_CHECKING:
    from gestalt.config.frames import FrameSettings
    from gestalt.data.records import StereoFrame

UInt8Array = npt.NDArray[np.uint8]
SPARSE = 16


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Frames of one size.

    Attributes:
        frames: (N, H, W, 3) uint8 RGB, perhaps a file that is read when it is needed.
        usable: (U,) int, numbers of the frames that show anything, in order.
        sequences: Names of the N frames' sequences, or None where they are not known.
    """

    frames: UInt8Array
    usable: npt.NDArray[np.int64]
    sequences: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def n_constant(self) -> int:
        """Frames of one colour, which are left out: nothing in them tells one crop from another."""
        return len(self.frames) - len(self.usable)


def make_images(frames: UInt8Array, sequences: Sequence[str] | None = None, *, origin: str) -> TrainingImages:
    """Check frames and leave out those of one colour.

    Args:
        frames: (N, H, W, 3) uint8 RGB.
        sequences: Names of their sequences, if known.
        origin: Where they come from, for messages.

    Raises:
        DataError: They have another form, there is none that shows anything, or names are missing.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise DataError(
            f"{origin}: frames must be (N, H, W, 3) uint8 RGB. Got: {frames.shape} {frames.dtype}"
        )
    if sequences is not None and len(sequences) != len(frames):
        raise DataError(f"{origin}: {len(frames)} frames need as many sequences. Got: {len(sequences)}")
    usable = np.array([number for number, frame in enumerate(frames) if not _is_constant(frame)], np.int64)
    if len(usable) == 0:
        raise DataError(
            f"{origin}: each of the {len(frames)} frames has one colour only; nothing can be learned"
        )
    return TrainingImages(frames, usable, None if sequences is None else tuple(map(str, sequences)))


def read_images(path: Path) -> TrainingImages:
    """Frames from a file.

    Args:
        path: NPY of (N, H, W, 3) uint8 RGB, which stays on disk; or NPZ with ``images`` of that form and, if known,
            ``sequences``, (N,) strings. The NPZ of the training of displacements has such ``images`` too.

    Raises:
        DataError: The file is missing, broken or holds something else.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; `python -m gestalt.features.training_images` makes such a file"
        )
    try:
        if path.suffix == ".npy":
            return make_images(np.load(path, mmap_mode="r"), origin=str(path))
        with np.load(path) as stored:
            if not hasattr(stored, "files") or "images" not in stored.files:
                found = ", ".join(getattr(stored, "files", ["one array"]))
                raise DataError(f"{path} must hold `images`, (N, H, W, 3) uint8. Got: {found}")
            sequences = stored["sequences"].tolist() if "sequences" in stored.files else None
            return make_images(stored["images"], sequences, origin=str(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no NPZ or NPY file of pixels: {error}") from error


def write_images(path: Path, frames: UInt8Array, sequences: Sequence[str]) -> None:
    """Write an NPZ that ``read_images`` reads.

    Raises:
        DataError: The disk is full.
    """
    content = io.BytesIO()
    np.savez_compressed(content, images=frames, sequences=np.array(list(sequences), np.str_))
    write_bytes(path, content.getvalue())


def load_frames(
    frames: Sequence[StereoFrame], settings: FrameSettings, *, left_only: bool
) -> tuple[UInt8Array, list[str]]:
    """All images of a manifest, each once: (N, H, W, 3) uint8 RGB, and their sequences.

    Args:
        frames: Usable rows of a manifest.
        settings: Size of the images.
        left_only: Leave out the right camera and the frames at t+1.

    Raises:
        DataError: An image is missing or broken, or sizes differ.
    """
    # Decoding needs an image library, which is not there where frames come from a file of pixels.
    from gestalt.data.frames import load_left

    sources: dict[Path, StereoFrame] = {}
    for frame in frames:
        others = () if left_only else (frame.left_next, frame.right, frame.right_next)
        for path in (frame.left, *others):
            if path is not None:
                sources.setdefault(path, dataclasses.replace(frame, left=path))
    ordered = [sources[path] for path in sorted(sources)]
    images = [load_left(source, settings) for source in progress(ordered, label="images", unit="image")]
    if len(sizes := {image.shape for image in images}) > 1:
        raise DataError(f"all frames need one size: set frames.height and frames.width. Got: {sorted(sizes)}")
    return np.stack(images), [source.sequence for source in ordered]


def main() -> None:
    """Pack the images of manifests into one file, for a machine that has nothing else."""
    from gestalt.config import load_params
    from gestalt.data.manifest import read_manifest

    parser = argparse.ArgumentParser(
        prog="python -m gestalt.features.training_images", description=main.__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="NPZ to write")
    parser.add_argument(
        "--manifest", type=Path, required=True, nargs="+", help="such as data/manifests/monday.parquet"
    )
    parser.add_argument("--left-only", action="store_true", help="only the left image at t of each frame")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="such as frames.scale=1")
    arguments = parser.parse_args()
    try:
        settings = load_params(overrides=arguments.set).frames
        rows = [frame for path in arguments.manifest for frame in read_manifest(path)]
        write_images(arguments.out, *load_frames(rows, settings, left_only=arguments.left_only))
    except GestaltError as error:
        print(f"training_images: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _is_constant(frame: UInt8Array) -> bool:
    # A few pixels of nearly every frame settle it.
    first = frame[:1, :1]
    return bool((frame[::SPARSE, ::SPARSE] == first).all()) and bool((frame == first).all())


if __name__ == "__main__":
    main()
