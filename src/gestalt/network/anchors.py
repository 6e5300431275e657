"""Anchors: the boxes that the proposal network starts from, one grid per pyramid level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def anchor_boxes(side_px: float, ratios: Sequence[float]) -> Tensor:
    """Boxes of one area around the origin.

    Args:
        side_px: Square root of their area.
        ratios: Height to width of each.

    Returns:
        (A, 4) float32, x0, y0, x1, y1. Not rounded, as in Detectron2; torchvision rounds to whole pixels.
    """
    widths = torch.tensor([side_px / math.sqrt(ratio) for ratio in ratios], dtype=torch.float64)
    heights = widths * torch.tensor(list(ratios), dtype=torch.float64)
    return (0.5 * torch.stack([-widths, -heights, widths, heights], dim=1)).float()


def anchor_grid(boxes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """The boxes at every cell of a level.

    Args:
        boxes: (A, 4) float, around the origin.
        size: (h, w), cells of the level.
        stride: Pixels between cells; cell (0, 0) lies at the image's corner.

    Returns:
        (h * w * A, 4) float, row by row, the boxes of a cell beside each other.
    """
    height, width = size
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype) * stride
    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype) * stride
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + boxes).reshape(-1, 4)
