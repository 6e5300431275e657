"""Disparity of rectified pairs by semi-global matching, both ways round, and depth from it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gestalt.config.motion import DisparitySettings
from gestalt.errors import ShapeError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

# The matcher returns sixteenths of a pixel and searches a multiple of sixteen.
SUBPIXEL = 16
# Penalties of the authors of the matcher: small and large disparity steps, per channel and pixel of the
# block.
SMALL_STEP, LARGE_STEP = 8, 32


class SemiGlobalMatching:
    """Semi-global matching (Hirschmueller, PAMI 2008), three paths, colour, sub-pixel.

    Args:
        settings: Search range, block, checks.
    """

    def __init__(self, settings: DisparitySettings) -> None:
        self._range = -(-settings.n_disparities // SUBPIXEL) * SUBPIXEL
        weight = 3 * settings.block_size**2
        self._matcher = cv2.StereoSGBM.create(
            minDisparity=0,
            numDisparities=self._range,
            blockSize=settings.block_size,
            P1=SMALL_STEP * weight,
            P2=LARGE_STEP * weight,
            disp12MaxDiff=1,
            uniquenessRatio=settings.uniqueness_percent,
            speckleWindowSize=settings.speckle_area_px,
            speckleRange=settings.speckle_range_px,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
        )

    def left(self, left: UInt8Array, right: UInt8Array) -> FloatArray:
        """Disparity on the grid of the left image.

        Args:
            left: (H, W, 3) uint8 RGB.
            right: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) float32, pixels, positive; 0 where no match was found.

        Raises:
            ShapeError: The images differ in size.
        """
        if left.shape != right.shape:
            raise ShapeError(f"a stereo pair needs one size. Got: left {left.shape}, right {right.shape}")
        # The matcher leaves the first columns empty by its search range; padding gives them a chance.
        padded = [
            cv2.copyMakeBorder(image, 0, 0, self._range, 0, cv2.BORDER_REPLICATE) for image in (left, right)
        ]
        found = self._matcher.compute(padded[0], padded[1])[:, self._range :]
        return np.asarray(np.maximum(found / SUBPIXEL, 0), np.float32)

    def right(self, left: UInt8Array, right: UInt8Array) -> FloatArray:
        """Disparity on the grid of the right image, as ``left``: matching the mirrored pair."""
        mirrored = self.left(np.ascontiguousarray(right[:, ::-1]), np.ascontiguousarray(left[:, ::-1]))
        return np.ascontiguousarray(mirrored[:, ::-1])


def disparity_to_depth(
    disparity: Tensor, focal_length: Tensor, stereo_baseline: Tensor, *, max_depth_m: float = 200.0
) -> Tensor:
    """Metric depth of rectified stereo pixels.

    Args:
        disparity: (B, 1, H, W) float, pixels of the left image, positive to the left. Zero or negative
            marks pixels without a match.
        focal_length: (B,) float, horizontal, pixels at the resolution of ``disparity``.
        stereo_baseline: (B,) float, metres.
        max_depth_m: Farther pixels, and those without a match, get this depth.

    Returns:
        (B, 1, H, W) float, metres, in (0, max_depth_m].

    Raises:
        ShapeError: ``disparity`` is not (B, 1, H, W), or the batch sizes differ.

    Source:
        Pinhole stereo, Z = f * b / d. The official CUPS code (Hahn et al., CVPR 2025) computes
        f * b / (|d| + 1e-10) * sign(d), so d = 0 gives depth 0 and d < 0 a negative depth; ours gives
        ``max_depth_m`` for both.
    """
    if disparity.ndim != 4 or disparity.shape[1] != 1:
        raise ShapeError(f"disparity must be (B, 1, H, W). Got: {tuple(disparity.shape)}")
    if focal_length.shape != disparity.shape[:1] or stereo_baseline.shape != disparity.shape[:1]:
        raise ShapeError(
            f"focal_length and stereo_baseline must be ({len(disparity)},). "
            f"Got: {tuple(focal_length.shape)} and {tuple(stereo_baseline.shape)}"
        )
    scale = (focal_length * stereo_baseline)[:, None, None, None]
    depth = scale / disparity.clamp(min=1e-6)
    return torch.where(disparity > 0, depth, max_depth_m).clamp(max=max_depth_m)
