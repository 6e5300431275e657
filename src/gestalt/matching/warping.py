"""The one warp: values of an image where optical flow points; pixel centres are whole numbers, y down."""

from __future__ import annotations

import torch
from torch import Tensor

from gestalt.errors import ShapeError


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Coordinates of every pixel.

    Returns:
        (2, H, W) float32, x then y.
    """
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y])


def warp(image: Tensor, optical_flow: Tensor, *, nearest: bool = False) -> tuple[Tensor, Tensor]:
    """Sample ``image`` where ``optical_flow`` points: ``out(p) = image(p + optical_flow(p))``.

    The only warp of the package. Coordinates stay in pixels, so a zero optical flow returns the input exactly
    (the official CUPS code normalises for one corner convention and samples with the other, which shifts an
    identity warp by up to half a pixel).

    Args:
        image: (C, H, W) float, of the second frame.
        optical_flow: (2, H, W) float, pixels, x then y; may point outside or be NaN.
        nearest: Take the nearest pixel instead of bilinear interpolation.

    Returns:
        The samples, (C, H, W), 0 outside; and whether the target lies inside the image, (H, W) bool.

    Raises:
        ShapeError: Sizes differ.
    """
    if image.shape[-2:] != optical_flow.shape[-2:] or image.ndim != 3 or optical_flow.ndim != 3:
        raise ShapeError(
            f"warp needs (C, H, W) and (2, H, W). Got: {tuple(image.shape)} and {tuple(optical_flow.shape)}"
        )
    return sample(
        image, pixel_grid(image.shape[1], image.shape[2], image.device) + optical_flow, nearest=nearest
    )


def sample(image: Tensor, positions: Tensor, *, nearest: bool = False) -> tuple[Tensor, Tensor]:
    """Values of ``image`` at positions between its pixels.

    Args:
        image: (C, H, W) float.
        positions: (2, h, w) float, x and y, pixels of ``image``; may lie outside or be NaN.
        nearest: Take the nearest pixel instead of bilinear interpolation.

    Returns:
        (C, h, w) samples, 0 outside; (h, w) bool, whether a position lies inside.
    """
    _, height, width = image.shape
    x, y = positions.unbind(0)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)  # False for NaN
    x, y = torch.where(inside, x, 0.0), torch.where(inside, y, 0.0)
    flat = image.reshape(image.shape[0], -1)

    def pick(index: Tensor) -> Tensor:
        return flat.index_select(1, index.reshape(-1)).reshape(-1, *positions.shape[1:])

    # 32-bit indices are picked three times as fast as 64-bit ones, and no image has 2^31 pixels.
    if nearest:
        column, row = ((c + 0.5).int() for c in (x, y))
        return pick(row.clamp(max=height - 1) * width + column.clamp(max=width - 1)) * inside, inside
    left, top = x.int(), y.int()
    right, below = (left < width - 1).int(), (top < height - 1).int() * width
    share_x, share_y = x - left, y - top
    rest_x, corner = 1 - share_x, top * width + left
    upper = pick(corner) * rest_x + pick(corner + right) * share_x
    corner = corner + below
    lower = pick(corner) * rest_x + pick(corner + right) * share_x
    return (upper * (1 - share_y) + lower * share_y) * inside, inside
