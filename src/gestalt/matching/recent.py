"""Results that are found again by what the images show, because consecutive frames share a stereo pair."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Value = TypeVar("Value")

# What is t+1 now is t of the next frame: two stereo pairs, four images.
REMEMBERED = 4
# Images that differ nearly always do so in every sixteenth row and column already.
SAMPLE_STEP = 16


class Recent(Generic[Value]):
    """The latest results of a function of images, found again by content; safe between threads.

    Consecutive frames share a stereo pair, so half of the stereo work is a repetition. What is found again is
    what would be computed again, so results do not depend on what was kept. Pixels are compared, which is exact
    and takes a small part of the time of hashing them.

    Args:
        compute: The function; equal images must give equal values.
        size: Results that are kept.
    """

    def __init__(self, compute: Callable[..., Value], size: int = REMEMBERED) -> None:
        self._compute, self._size = compute, size
        # The one used last stands last.
        self._kept: list[tuple[list[UInt8Array], Value]] = []
        self._lock = threading.Lock()

    def __call__(self, *images: UInt8Array) -> Value:
        """The function's value for these images."""
        with self._lock:
            for index in reversed(range(len(self._kept))):
                if _show_the_same(self._kept[index][0], images):
                    self._kept.append(self._kept.pop(index))
                    return self._kept[-1][1]
        value = self._compute(*images)
        # Copies: the caller may go on to write into its arrays.
        entry = [image.copy() for image in images], value
        with self._lock:
            self._kept = [*self._kept, entry][-self._size :]
        return value


def _show_the_same(kept: Sequence[UInt8Array], images: Sequence[UInt8Array]) -> bool:
    pairs = list(zip(kept, images, strict=True))
    return all(
        np.array_equal(one[::SAMPLE_STEP, ::SAMPLE_STEP], other[::SAMPLE_STEP, ::SAMPLE_STEP])
        for one, other in pairs
    ) and all(np.array_equal(one, other) for one, other in pairs)
