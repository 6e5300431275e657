"""The ground: the one surface that surely stands, onto which matched optical flow smears what moves above it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.motion import GroundSettings
from gestalt.motion.cells import Cells
from gestalt.motion.geometry import Camera

# Triples of cells that propose planes, in one batch.
PROPOSALS = 256
# Fewer cells below the camera cannot show a plane.
MIN_CELLS = 32
# Rounds of least squares on the inliers.
REFITS = 3
# A plane counts as ground when its normal is this near to the image's vertical (cosine; about 18 degrees).
UPRIGHT = 0.95


@dataclass(frozen=True)
class Ground:
    """A plane below the camera, as disparity over the image: ``disparity = (x, y, 1) . coefficients``.

    Attributes:
        coefficients: (3,) float.
        camera_height_m: Distance of the camera from the plane.
    """

    coefficients: Tensor
    camera_height_m: float

    def height(self, pixels: Tensor, disparity: Tensor) -> Tensor:
        """Height of pixels above the plane.

        Args:
            pixels: (..., 2) float.
            disparity: (...) float, pixels, positive.

        Returns:
            (...) float, metres; above the horizon the plane is infinitely far and the height what it is.
        """
        plane = pixels @ self.coefficients[:2] + self.coefficients[2]
        return self.camera_height_m * (1 - plane / disparity)


def find_ground(
    cells: Cells, triples: Tensor, std: Tensor, camera: Camera, settings: GroundSettings
) -> Ground | None:
    """Fit the largest upright plane below the camera, from disparity alone.

    Args:
        cells: Measurements.
        triples: (PROPOSALS, 3) float in [0, 1), random numbers.
        std: 0-d float, noise of the disparity, pixels.
        camera: The camera.
        settings: Tolerance and least support.

    Returns:
        The plane, or None where none below the camera holds enough cells.
    """
    reliable = int(cells.reliable.sum())
    below = cells.reliable & (cells.points[:, 1] > 0)
    index = below.nonzero()[:, 0]
    if len(index) < settings.min_share * reliable or len(index) < MIN_CELLS:
        return None
    points = cells.points[index]
    disparity = cells.disparity[index]
    x = points[:, 0] / points[:, 2] * camera.focal_x + camera.center_x
    y = points[:, 1] / points[:, 2] * camera.focal_y + camera.center_y
    design = torch.stack([x, y, torch.ones_like(x)], 1)
    chosen = (triples * len(index)).long().clamp(max=len(index) - 1)
    planes = torch.linalg.lstsq(
        design[chosen] + 1e-3 * torch.eye(3, device=x.device), disparity[chosen][..., None]
    ).solution[..., 0]
    tolerance = settings.tolerance_stds * std
    error = ((design @ planes.T - disparity[:, None]) / tolerance).square().clamp(max=1)
    upright, _ = _orientation(planes, camera)
    loss = torch.where(upright, error.sum(0), torch.inf)
    plane = planes[loss.argmin()]
    for _ in range(REFITS):
        inlier = ((design @ plane - disparity).abs() < tolerance).float()[:, None]
        normal = (design * inlier).T @ design + 1e-6 * torch.eye(3, device=x.device)
        plane = torch.linalg.solve(normal, (design * inlier).T @ disparity)
    inliers = (design @ plane - disparity).abs() < tolerance
    upright, height = _orientation(plane[None], camera)
    if not bool(upright) or int(inliers.sum()) < settings.min_share * reliable:
        return None
    return Ground(plane, float(height))


def _orientation(planes: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Whether planes (P, 3) lie below and upright, and how far below the camera they are, metres."""
    # d = f b (n . ray) / h, so the coefficients give n / h in camera coordinates.
    by_x, by_y = planes[:, 0] * camera.focal_x, planes[:, 1] * camera.focal_y
    by_z = planes[:, 2] + planes[:, 0] * camera.center_x + planes[:, 1] * camera.center_y
    normal = torch.stack([by_x, by_y, by_z], 1) / camera.disparity_scale
    length = normal.norm(dim=1).clamp(min=1e-9)
    return normal[:, 1] / length > UPRIGHT, 1 / length
