"""Edge-aware smoothing of a map under the guidance of an image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


def guided_filter(guide: Float32Array, values: Float32Array, radius_px: int, epsilon: float) -> Float32Array:
    """Smooth ``values`` so that they are locally a linear function of ``guide``.

    Args:
        guide: (H, W) float32 in [0, 1].
        values: (H, W) float32.
        radius_px: Half the side of the square windows, pixels.
        epsilon: Regularisation, squared units of ``guide``: smaller keeps weaker edges.

    Returns:
        (H, W) float32.

    Source:
        He, Sun and Tang, Guided Image Filtering, PAMI 2013; grey guide.
    """

    def mean(array: npt.NDArray[np.floating[Any]]) -> Float32Array:
        side = 2 * radius_px + 1
        filtered: Float32Array = cv2.boxFilter(array, -1, (side, side), borderType=cv2.BORDER_REFLECT)
        return filtered

    mean_guide, mean_values = mean(guide), mean(values)
    variance = mean(guide * guide) - mean_guide * mean_guide
    covariance = mean(guide * values) - mean_guide * mean_values
    slope = covariance / (variance + np.float32(epsilon))
    offset = mean_values - slope * mean_guide
    return mean(slope) * guide + mean(offset)
