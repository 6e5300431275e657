"""Positions that cover the scene: farthest point sampling of cells lifted to points in space.

Source: DepthG (Sick et al., CVPR 2024), which fixes the field of view; ours is the camera's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gestalt.errors import ShapeError

# What the published code assumes of every camera: a field of view, and the depth of the farthest point, in
# units of the width at depth 1. The angle enters a tangent as if it were in radians.
PUBLISHED_FIELD_OF_VIEW_DEGREES, PUBLISHED_FARTHEST = 90.0, 5.0


def back_project(nearness: Tensor, focal: Tensor, centres: Tensor) -> Tensor:
    """Points that cells see.

    Args:
        nearness: (B, h, w) float, inverse depth, 1/m, 0 where it is unknown.
        focal: (B,) float, focal length, cells.
        centres: (B, 2) float, principal point (x, y), cells, 0 at the centre of the first cell.

    Returns:
        (B, h * w, 3) float: right, down and forward from the camera, metres; the camera itself where the depth
        is unknown.
    """
    _, h, w = nearness.shape
    known = nearness > 0
    depth_m = torch.where(known, 1 / torch.where(known, nearness, 1.0), 0.0)
    columns = torch.arange(w, device=nearness.device) - centres[:, 0, None]
    rows = torch.arange(h, device=nearness.device) - centres[:, 1, None]
    right = depth_m * columns[:, None, :] / focal[:, None, None]
    down = depth_m * rows[:, :, None] / focal[:, None, None]
    return torch.stack([right, down, depth_m], -1).flatten(1, 2)


def back_project_as_published(nearness: Tensor) -> Tensor:
    """Points as the published code computes them: another field of view than any camera's, uneven axes.

    Args:
        nearness: (B, h, w) float, inverse depth, 1/m, 0 where it is unknown.

    Returns:
        (B, h * w, 3) float; depth runs to 1 in each map and is stretched along the axis.
    """
    _, h, w = nearness.shape
    known = nearness > 0
    depth = torch.where(known, 1 / torch.where(known, nearness, 1.0), 0.0)
    depth = depth / depth.amax((1, 2), keepdim=True).clamp(min=1e-6)
    factor = 2 * math.tan(PUBLISHED_FIELD_OF_VIEW_DEGREES / 2)
    columns = (torch.arange(w, device=nearness.device) - w / 2) / w
    rows = (torch.arange(h, device=nearness.device) - h / 2) / h
    right, down = factor * depth * columns, factor * depth * rows[:, None]
    return torch.stack([right, down, -PUBLISHED_FARTHEST * depth], -1).flatten(1, 2)


def farthest_points(points: Tensor, known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose points one after the other, each the farthest from those chosen before it.

    All point sets advance together: a step is one distance to the latest point and one arg max.

    Args:
        points: (B, n, 3) float.
        known: (B, n) bool. Unknown points are chosen only when no other is left, in random order.
        count: How many of each set, at most n.
        generator: CPU generator, draws the first point.

    Returns:
        (B, count) int64, distinct in each row.

    Raises:
        ShapeError: More points are wanted than there are.
    """
    B, n, _ = points.shape
    if count > n:
        raise ShapeError(f"{count} positions need a crop of at least as many cells. Got: {n} cells")
    draws = torch.rand(B, n, generator=generator).to(points.device)
    infinity = math.inf
    # Known points before all others, these in the order of their draws: negative, so below every distance.
    distance = torch.where(known, infinity, draws - 2)
    latest = torch.where(known, draws, draws - 2).argmax(1)
    sets = torch.arange(B, device=points.device)
    chosen = [latest]
    for _ in range(count - 1):
        distance[sets, latest] = -infinity
        fresh = (points - points[sets, latest][:, None]).square().sum(2)
        distance = torch.where(known, torch.minimum(distance, fresh), distance)
        latest = distance.argmax(1)
        chosen.append(latest)
    return torch.stack(chosen, 1)


def cells_to_positions(cells: Tensor, height: int, width: int) -> Tensor:
    """Centres of cells as positions.

    Args:
        cells: (B, P) int64, row-major numbers of cells of a (height, width) grid.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        (B, P, 2) float, (x, y) in [-1, 1] as in ``correspondence.sample_positions``.
    """
    rows, columns = cells // width, cells % width
    return torch.stack([_to_unit(columns, width), _to_unit(rows, height)], 2)


def cells_to_positions_as_published(cells: Tensor, height: int, width: int) -> Tensor:
    """The same as the published code has it: rows where x is expected, and corners instead of centres."""
    rows, columns = cells // width, cells % width
    return torch.stack([rows / height, columns / width], 2) * 2 - 1


def _to_unit(places: Tensor, length: int) -> Tensor:
    return places * (2 / max(length - 1, 1)) - (1 if length > 1 else 0)
