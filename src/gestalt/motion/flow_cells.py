"""Optical flow of a frame sampled sparsely, in coordinates of the camera: what monocular hypotheses see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.matching.warping import pixel_grid
from gestalt.motion.geometry import Camera


@dataclass(frozen=True, eq=False)
class View:
    """How pixels of a camera relate to directions, and how noisy optical flow is in them.

    Directions are ``((x - center_x) / focal_x, (y - center_y) / focal_y)``, the image plane one unit in front
    of the camera.

    Attributes:
        center: (2,) float, principal point, pixels.
        focal: (2,) float, pixels.
        std: (2,) float, noise of optical flow along x and y, pixels.
    """

    center: Tensor
    focal: Tensor
    std: Tensor

    @classmethod
    def of(cls, camera: Camera, std_x: float, std_y: float, device: torch.device) -> View:
        """From a camera and noise in pixels."""
        return cls(
            torch.tensor([camera.center_x, camera.center_y], dtype=torch.float32, device=device),
            torch.tensor([camera.focal_x, camera.focal_y], dtype=torch.float32, device=device),
            torch.tensor([std_x, std_y], dtype=torch.float32, device=device),
        )

    @property
    def scale(self) -> Tensor:
        """(2,) float: turns differences of directions into standard deviations of the noise."""
        return self.focal / self.std

    def directions(self, pixels: Tensor) -> Tensor:
        """Directions (..., 2) of pixels (..., 2)."""
        return (pixels - self.center) / self.focal

    def pixels(self, directions: Tensor) -> Tensor:
        """Pixels (..., 2) of directions (..., 2)."""
        return directions * self.focal + self.center


@dataclass(frozen=True, eq=False)
class FlowCells:
    """Optical flow at N = h * w cells, row by row.

    Attributes:
        shape: (h, w).
        step_px: Pixels from one row of cells to the next.
        pixels: (N, 2) float, x and y at t.
        rays: (N, 2) float, directions at t.
        targets: (N, 2) float, directions at t+1.
        flow: (N, 2) float, pixels; 0 where unknown.
        reliable: (N,) bool: optical flow is known, agrees with its reverse and may vote.
    """

    shape: tuple[int, int]
    step_px: float
    pixels: Tensor
    rays: Tensor
    targets: Tensor
    flow: Tensor
    reliable: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.pixels.device


def sample_flow_cells(optical_flow: Tensor, reliable: Tensor, view: View, grid_rows: int) -> FlowCells:
    """Nearest samples of an optical flow on a grid with (nearly) square cells.

    Args:
        optical_flow: (2, H, W) float, pixels, finite.
        reliable: (H, W) bool.
        view: The camera.
        grid_rows: Rows of cells; images with fewer rows get one per pixel row.
    """
    height, width = reliable.shape
    n_rows = min(grid_rows, height)
    n_columns = max(1, min(width, round(width * n_rows / height)))
    device = optical_flow.device
    rows = ((torch.arange(n_rows, device=device) + 0.5) * height / n_rows).long()
    columns = ((torch.arange(n_columns, device=device) + 0.5) * width / n_columns).long()

    def sample(plane: Tensor) -> Tensor:
        return plane[..., rows[:, None], columns].flatten(-2)

    pixels, flow = sample(pixel_grid(height, width, device)).T, sample(optical_flow).T
    return FlowCells(
        (n_rows, n_columns),
        height / n_rows,
        pixels,
        view.directions(pixels),
        view.directions(pixels + flow),
        flow,
        sample(reliable),
    )
