"""The grid of cells: measurements of a frame sampled sparsely, as the hypotheses see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.matching.warping import pixel_grid
from gestalt.motion.geometry import Camera, back_project
from gestalt.motion.rigid_motion import Precision


@dataclass(frozen=True)
class Cells:
    """Measurements at N = h * w cells, row by row.

    Attributes:
        shape: (h, w).
        rows: (h,) int64, image row of each row of cells.
        columns: (w,) int64.
        points: (N, 3) float, metres, frame t.
        points_next: (N, 3) float, metres, measured in the camera of t+1.
        measured: (N, 3) float, x, y and disparity at t+1, pixels.
        disparity: (N,) float, pixels, at t.
        known: (N,) bool: all of the above exist.
        reliable: (N,) bool: and may vote for a motion.
    """

    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor
    points: Tensor
    points_next: Tensor
    measured: Tensor
    disparity: Tensor
    known: Tensor
    reliable: Tensor

    def __len__(self) -> int:
        return len(self.disparity)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.disparity.device


def sample_cells(
    optical_flow: Tensor,
    disparity: Tensor,
    disparity_next: Tensor,
    known: Tensor,
    reliable: Tensor,
    camera: Camera,
    grid_rows: int,
) -> Cells:
    """Nearest samples of full-resolution maps on a grid with (nearly) square cells.

    Args:
        optical_flow: (2, H, W) float, pixels.
        disparity: (H, W) float, pixels, at t.
        disparity_next: (H, W) float, pixels, at t+1 on the pixels of t.
        known: (H, W) bool.
        reliable: (H, W) bool.
        camera: The camera.
        grid_rows: Rows of cells; images with fewer rows get one per pixel row.
    """
    height, width = disparity.shape
    n_rows = min(grid_rows, height)
    n_columns = max(1, round(width * n_rows / height))
    device = disparity.device
    rows = ((torch.arange(n_rows, device=device) + 0.5) * height / n_rows).long()
    columns = ((torch.arange(n_columns, device=device) + 0.5) * width / n_columns).long()

    def sample(plane: Tensor) -> Tensor:
        return plane[..., rows[:, None], columns].flatten(-2)

    known_cells = sample(known)
    pixels = sample(pixel_grid(height, width, device)).T
    # Unknown cells get harmless numbers: they carry no weight anywhere.
    first = torch.where(known_cells, sample(disparity), 1.0)
    second = torch.where(known_cells, sample(disparity_next), 1.0)
    moved = torch.where(known_cells, sample(optical_flow), 0.0).T
    target = pixels + moved
    return Cells(
        (n_rows, n_columns),
        rows,
        columns,
        back_project(pixels, first, camera),
        back_project(target, second, camera),
        torch.cat([target, second[:, None]], 1),
        first,
        known_cells,
        sample(reliable) & known_cells,
    )


def exact_precision(std: Tensor, shape: tuple[int, ...]) -> Precision:
    """Precision that leaves the noise of the first disparity out, for points of leading shape ``shape``."""
    return Precision(std, std.new_zeros(*shape, 3), std.new_zeros(shape))
