"""Optical flow by OpenCV's dense inverse search, which needs no weights."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.matching import DenseInverseSearchSettings

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

# The coarsest level of the search pyramid follows from patch and image size; an image needs this many
# patches a side.
MIN_PATCHES = 2


class DenseInverseSearch:
    """Dense inverse search (Kroeger et al., ECCV 2016) as OpenCV implements it, down to full resolution.

    OpenCV's presets stop at a quarter or half of the resolution, which loses thin and far objects.

    Args:
        settings: Patches, iterations, finest level.
    """

    def __init__(self, settings: DenseInverseSearchSettings) -> None:
        self._settings = settings
        self._min_side = settings.patch_size * MIN_PATCHES * 2**settings.finest_scale

    def __call__(self, first: UInt8Array, second: UInt8Array) -> FloatArray:
        """Displacements from ``first`` to ``second``, both (H, W, 3) uint8 RGB: (2, H, W) float32 px, x then y.

        Images smaller than the search needs are padded by repeating their border.
        """
        height, width = first.shape[:2]
        below, right = max(0, self._min_side - height), max(0, self._min_side - width)
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second)]
        if below or right:
            grey = [cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE) for image in grey]
        found = self._open_search().calc(grey[0], grey[1], None)[:height, :width]
        return np.ascontiguousarray(found.transpose(2, 0, 1), dtype=np.float32)

    def _open_search(self) -> cv2.DISOpticalFlow:
        # One for every call: its buffers crash the process when two threads of a worker share them.
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(self._settings.finest_scale)
        search.setPatchSize(self._settings.patch_size)
        search.setPatchStride(self._settings.patch_stride)
        search.setGradientDescentIterations(self._settings.gradient_iterations)
        search.setVariationalRefinementIterations(self._settings.refinement_iterations)
        search.setUseSpatialPropagation(True)
        return search
