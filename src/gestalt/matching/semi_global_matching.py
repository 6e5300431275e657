"""Disparity of rectified pairs by semi-global matching, both ways round."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.matching import SemiGlobalMatchingSettings
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

    def __init__(self, settings: SemiGlobalMatchingSettings) -> None:
        self._range = -(-settings.n_disparities // SUBPIXEL) * SUBPIXEL
        weight = 3 * settings.block_size**2
        # One matcher for every call: two threads of a worker would share its buffers.
        self._open_matcher = partial(
            cv2.StereoSGBM.create,
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
        found = self._open_matcher().compute(padded[0], padded[1])[:, self._range :]
        return np.asarray(np.maximum(found / SUBPIXEL, 0), np.float32)

    def right(self, left: UInt8Array, right: UInt8Array) -> FloatArray:
        """Disparity on the grid of the right image, as ``left``: matching the mirrored pair."""
        mirrored = self.left(np.ascontiguousarray(right[:, ::-1]), np.ascontiguousarray(left[:, ::-1]))
        return np.ascontiguousarray(mirrored[:, ::-1])
