"""RAFT as a matcher: optical flow and disparity of a stereo pair at t and t+1 from one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import DataError, ShapeError
from gestalt.matching.measurement import Measurement, measure_pairs
from gestalt.matching.raft import MIN_SIDE, STRIDE, Features, Raft
from gestalt.matching.recent import Recent
from gestalt.runtime import uses_bf16

if TYPE_CHECKING:  # a machine that only trains has neither OpenCV nor OmegaConf
    from gestalt.config.matching import RaftSettings
    from gestalt.data.frames import StereoImages

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


class RaftMatcher:
    """Optical flow and disparity by RAFT.

    An image is encoded once, although it belongs to up to three pairs, and what is t+1 now is found again as t
    of the next frame. Results must not depend on what is found again, and a GPU rounds otherwise for
    other batch sizes. So every network call has a fixed one: an image alone, or the two directions of a pair.

    Args:
        network: The network; its weights are moved to ``device``.
        settings: Section ``motion.raft``.
        device: Where it runs.
    """

    def __init__(self, network: Raft, settings: RaftSettings, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._settings, self._device = settings, device
        self._is_bf16 = uses_bf16(settings.precision, device)
        self._features = Recent(self._encode)
        self._disparities = Recent(self._match_views)

    def measure(self, images: StereoImages) -> Measurement:
        """See ``Matcher``.

        Raises:
            DataError: A right image is missing, or the network gives a value that is not finite.
            ShapeError: The images differ in size.
        """
        return measure_pairs(images, self.optical_flow, self._disparities)

    def optical_flow(self, first: UInt8Array, second: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """See ``Matcher``.

        Raises:
            DataError: The network gives a value that is not finite.
            ShapeError: The images differ in size.
        """
        forward, backward = self._both_ways(first, second, self._settings.flow_iterations)
        return _to_array(forward), _to_array(backward)

    def _match_views(self, left: UInt8Array, right: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Disparity of a rectified pair on the grids of its left and its right image."""
        to_right, to_left = self._both_ways(left, right, self._settings.stereo_iterations)
        # What the left image shows at x, the right image shows at x - d.
        return _to_array(self._keep_rows(-to_right[0], to_right)), _to_array(
            self._keep_rows(to_left[0], to_left)
        )

    def _keep_rows(self, disparity: Tensor, displacement: Tensor) -> Tensor:
        """Disparity of at least 0, and 0 = unknown where the match lies on another row of a rectified pair."""
        limit = self._settings.max_vertical_px
        if limit > 0:
            disparity = torch.where(displacement[1].abs() > limit, 0.0, disparity)
        return disparity.clamp(min=0)

    @torch.inference_mode()
    def _both_ways(self, first: UInt8Array, second: UInt8Array, iterations: int) -> Tensor:
        """Displacements first -> second and second -> first, (2, 2, H, W) float32 px."""
        if first.shape != second.shape:
            raise ShapeError(f"the images of a pair need one size. Got: {first.shape} and {second.shape}")
        one, other = self._features(first), self._features(second)
        with self._precision():
            found = self._network.displace(
                Features.join([one, other]), Features.join([other, one]), iterations
            )
        height, width = first.shape[:2]
        found = found[:, :, :height, :width]
        n_bad = int((~found.isfinite()).sum())
        if n_bad:
            raise DataError(
                f"RAFT must give finite displacements. Got: {n_bad} of {found.numel()} that are not; "
                "other weights, or motion.raft.precision=fp32, may help"
            )
        return found

    @torch.inference_mode()
    def _encode(self, image: UInt8Array) -> Features:
        with self._precision():
            return self._network.encode(to_network(image, self._device))

    def _precision(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._is_bf16)


def to_network(image: UInt8Array, device: torch.device) -> Tensor:
    """An image in the form that the network takes, its last row and column repeated up to a fitting size.

    Args:
        image: (H, W, 3) uint8 RGB.
        device: Where to.

    Returns:
        (1, 3, H', W') float32 in [0, 1]; H' and W' are multiples of 8, at least 64, and at least H and W.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
    below, right = (max(MIN_SIDE, -(-side // STRIDE) * STRIDE) - side for side in image.shape[:2])
    return functional.pad(pixels, (0, right, 0, below), mode="replicate")


def _to_array(values: Tensor) -> FloatArray:
    return np.ascontiguousarray(values.cpu().numpy(), dtype=np.float32)
