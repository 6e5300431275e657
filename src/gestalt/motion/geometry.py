"""Pixels and points: the camera, and projection both ways.

Coordinates: pixel centres are whole numbers, x to the right, y down, z forward, metres. A *measurement* of a
point is ``(x, y, disparity)`` in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Points nearer than this to the camera plane, or behind it, are projected as if they were here.
MIN_DEPTH_M = 0.1


@dataclass(frozen=True)
class Camera:
    """A rectified stereo camera at the size of the images.

    Attributes:
        focal_x: Horizontal focal length, pixels.
        focal_y: Vertical focal length, pixels.
        center_x: Principal point, pixels from the centre of the first column.
        center_y: Principal point, pixels from the centre of the first row.
        stereo_baseline: Metres.
    """

    focal_x: float
    focal_y: float
    center_x: float
    center_y: float
    stereo_baseline: float

    @property
    def disparity_scale(self) -> float:
        """Depth times disparity, metres times pixels."""
        return self.focal_x * self.stereo_baseline


def back_project(pixels: Tensor, disparity: Tensor, camera: Camera) -> Tensor:
    """Points in front of the camera from pixels and disparities.

    Args:
        pixels: (..., 2) float, x and y.
        disparity: (...) float, pixels, positive.
        camera: The camera.

    Returns:
        (..., 3) float, metres.
    """
    depth = camera.disparity_scale / disparity
    x = (pixels[..., 0] - camera.center_x) / camera.focal_x * depth
    y = (pixels[..., 1] - camera.center_y) / camera.focal_y * depth
    return torch.stack([x, y, depth], -1)


def project(points: Tensor, camera: Camera) -> Tensor:
    """Measurements that the camera would make of points.

    Args:
        points: (..., 3) float, metres.
        camera: The camera.

    Returns:
        (..., 3) float: x, y and disparity, pixels.
    """
    inverse_depth = 1 / points[..., 2].clamp(min=MIN_DEPTH_M)
    return torch.stack(
        [
            points[..., 0] * inverse_depth * camera.focal_x + camera.center_x,
            points[..., 1] * inverse_depth * camera.focal_y + camera.center_y,
            camera.disparity_scale * inverse_depth,
        ],
        -1,
    )
