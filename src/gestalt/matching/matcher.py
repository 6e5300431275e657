"""Who measures a stereo pair at t and t+1: the classic matchers or a network, behind one interface."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gestalt.config.motion import MotionSettings
from gestalt.data.frames import StereoImages
from gestalt.errors import ConfigError
from gestalt.matching.dense_inverse_search import DenseInverseSearch
from gestalt.matching.measurement import Measurement, measure_pairs
from gestalt.matching.recent import Recent
from gestalt.matching.semi_global_matching import SemiGlobalMatching
from gestalt.runtime import choose_device

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


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
        return measure_pairs(images, self.optical_flow, self._disparities)

    def optical_flow(self, first: UInt8Array, second: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """See ``Matcher``."""
        return self._search(first, second), self._search(second, first)

    def _match_views(self, left: UInt8Array, right: UInt8Array) -> tuple[FloatArray, FloatArray | None]:
        return self._matching.left(left, right), (
            self._matching.right(left, right) if self._both_views else None
        )


@lru_cache(maxsize=1)
def open_matcher(settings: MotionSettings, device: str) -> Matcher:
    """The matcher of ``motion.matcher``, made once per process: a network's weights are read once.

    Args:
        settings: Section ``motion``.
        device: ``runtime.device``.

    Raises:
        ConfigError: ``motion.raft.weights`` names no folder of weights.
        DataError: The weights are broken.
    """
    if settings.matcher == "classic":
        return ClassicMatcher(settings)
    from gestalt.matching.raft_matcher import RaftMatcher
    from gestalt.matching.raft_weights import load_network

    network = load_network(weights_folder(settings))
    return RaftMatcher(network, settings.raft, choose_device(device))


def check_matcher(settings: MotionSettings) -> str:
    """Raise, before the first frame, what ``open_matcher`` would raise at every frame.

    Returns:
        What results depend on beside the settings: the content hash of a network's weights, or nothing.

    Raises:
        ConfigError: ``motion.raft.weights`` names no folder of weights.
        DataError: The weights are broken.
    """
    if settings.matcher == "classic":
        return ""
    from gestalt.matching.raft_weights import load_network, read_card

    folder = weights_folder(settings)
    load_network(folder)
    return str(read_card(folder)["weights_sha256"])


def weights_folder(settings: MotionSettings) -> Path:
    """``motion.raft.weights``, when it holds weights.

    Raises:
        ConfigError: It does not; with the two ways to get some.
    """
    from gestalt.matching.raft_weights import CARD, WEIGHTS

    folder = Path(settings.raft.weights)
    missing = [name for name in (WEIGHTS, CARD) if not (folder / name).is_file()]
    if missing:
        found = f"which has no {' and no '.join(missing)}" if folder.is_dir() else "which does not exist"
        raise ConfigError(
            f"motion.matcher is raft, so motion.raft.weights must name a folder with {WEIGHTS} and {CARD}. "
            f"Got: {folder} (seen from {Path.cwd()}), {found}. Bring SMURF's weights with `gestalt weights smurf "
            "FILE --out models/optical_flow/smurf`, or train some without labels with the stage optical_flow, "
            "which writes models/optical_flow/<batch>; then name that folder. motion.matcher=classic needs none"
        )
    return folder
