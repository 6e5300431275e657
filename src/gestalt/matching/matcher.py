"""Who measures a stereo pair at t and t+1: the classic matchers or a network, behind one interface."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gestalt.config.motion import MotionSettings
from gestalt.data.frames import StereoImages
from gestalt.errors import DataError
from gestalt.matching.dense_inverse_search import DenseInverseSearch
from gestalt.matching.measurement import Measurement
from gestalt.matching.semi_global_matching import SemiGlobalMatching

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Value = TypeVar("Value")

# Pairs of one camera whose results are kept: what is t+1 now is t of the next frame.
REMEMBERED = 4


class Matcher(Protocol):
    """Whoever measures where pixels go between times and between views."""

    def measure(self, images: StereoImages) -> Measurement:
        """Optical flow and disparities, both ways round.

        Raises:
            DataError: A right image is missing.
        """
        ...

    def optical_flow(self, first: UInt8Array, second: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Displacements first -> second and second -> first of (H, W, 3) uint8 RGB: (2, H, W) float32 px each."""
        ...


class Recent(Generic[Value]):
    """The latest results of a function of images, found again by content; safe between threads.

    Consecutive frames share a stereo pair, so half of the stereo work is a repetition. What is found again is
    what would be computed again, so results do not depend on what was kept.
    """

    def __init__(self, compute: Callable[..., Value], size: int = REMEMBERED) -> None:
        self._compute, self._size = compute, size
        self._values: OrderedDict[bytes, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *images: UInt8Array) -> Value:
        """The function's value for these images."""
        digest = hashlib.blake2b(digest_size=16)
        for image in images:
            digest.update(str(image.shape).encode())
            digest.update(np.ascontiguousarray(image).data)
        key = digest.digest()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = self._compute(*images)
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value


class ClassicMatcher:
    """Dense inverse search and semi-global matching, which need no weights.

    Args:
        settings: Section ``motion``.
    """

    def __init__(self, settings: MotionSettings) -> None:
        self._search = DenseInverseSearch(settings.dense_inverse_search)
        self._matching = SemiGlobalMatching(settings.semi_global_matching)
        self._both_views = settings.semi_global_matching.both_views
        self._disparities = Recent(self._match_views)

    def measure(self, images: StereoImages) -> Measurement:
        """See ``Matcher``."""
        right, right_next = both_right_images(images)
        forward, backward = self.optical_flow(images.left, images.left_next)
        disparity, disparity_right = self._disparities(images.left, right)
        disparity_next, disparity_right_next = self._disparities(images.left_next, right_next)
        return Measurement(
            optical_flow_forward=forward,
            optical_flow_backward=backward,
            disparity=disparity,
            disparity_next=disparity_next,
            disparity_right=disparity_right,
            disparity_right_next=disparity_right_next,
        )

    def optical_flow(self, first: UInt8Array, second: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """See ``Matcher``."""
        return self._search(first, second), self._search(second, first)

    def _match_views(self, left: UInt8Array, right: UInt8Array) -> tuple[FloatArray, FloatArray | None]:
        return self._matching.left(left, right), (
            self._matching.right(left, right) if self._both_views else None
        )


def both_right_images(images: StereoImages) -> tuple[UInt8Array, UInt8Array]:
    """The right images at t and t+1.

    Raises:
        DataError: One is missing.
    """
    if images.right is None or images.right_next is None:
        raise DataError("a frame without stored measurements needs both right images. Got: one is missing")
    return images.right, images.right_next


@lru_cache(maxsize=1)
def open_matcher(settings: MotionSettings, device: str) -> Matcher:
    """The matcher of ``motion.matcher``, made once per process: a network's weights are read once.

    Args:
        settings: Section ``motion``.
        device: ``runtime.device``.
    """
    return ClassicMatcher(settings)
