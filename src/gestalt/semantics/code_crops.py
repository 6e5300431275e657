"""Crops of images for the training of codes: which part, at which size, with which camera and depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gestalt.config.codes import CodeCropSettings
from gestalt.errors import ShapeError
from gestalt.semantics.disparity import is_measured


@dataclass(frozen=True, eq=False)
class CodeImage:
    """What codes are learned from.

    Attributes:
        frame_id: For messages.
        image: (H, W, 3) uint8 RGB.
        disparity: (H, W) float32, pixels, 0 where there is no match.
        focal_length: Horizontal, pixels.
        stereo_baseline: Metres.
        channels: (C, H, W) float32, scaled geometry that follows the features of a cell, or None.
        principal_point: (x, y), pixels; None takes the centre of the image.
    """

    frame_id: str
    image: NDArray[np.uint8]
    disparity: NDArray[np.float32]
    focal_length: float
    stereo_baseline: float
    channels: NDArray[np.float32] | None = None
    principal_point: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rectangle:
    """A part of an image or of its grid: first row, first column, rows, columns."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, maps: Tensor) -> Tensor:
        """The part of (..., H, W)."""
        return maps[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, eq=False)
class Crop:
    """A crop on its way to the backbone, or a grid that comes from it.

    Attributes:
        image: (3, H, W) float, what is encoded: the crop, or the whole image where grids are cut.
        maps: (2 + C, H, W) float of the same pixels: inverse depth, whether it is known, geometry.
        rectangle: What is cut of the grid; None takes all.
        columns: Values of the crop's row in ``crops.npz``.
    """

    image: Tensor
    maps: Tensor
    rectangle: Rectangle | None
    columns: dict[str, Any]


def crop_rectangles(height: int, width: int, ratio: float) -> list[Rectangle]:
    """The four corners and the centre of an image, or of a grid; the whole alone where ``ratio`` is 1."""
    rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
    bottom, right = height - rows, width - columns
    if bottom == right == 0:
        return [Rectangle(0, 0, rows, columns)]
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return [Rectangle(top, left, rows, columns) for top, left in corners]


def cut_images(
    item: CodeImage, number: int, is_mirrored: bool, stride: int, settings: CodeCropSettings, nearest: bool
) -> list[Crop]:
    """Crops as images of their own, scaled to cover the size that is wanted.

    Args:
        item: The image.
        number: Its number, for the columns.
        is_mirrored: Flip what is encoded; maps stay, since the grid is flipped back.
        stride: Of the features, pixels.
        settings: Section ``codes.crops``.
        nearest: Scale without smoothing.

    Raises:
        ShapeError: A disparity or channels of another size than the image.
    """
    image, maps = _to_tensors(item)
    H, W = image.shape[1:]
    crops = []
    for outer in crop_rectangles(H, W, settings.ratio):
        size = (settings.height or outer.height, settings.width or outer.width)
        scale = max(size[0] / outer.height, size[1] / outer.width)
        part = _middle(outer, round(size[0] / scale), round(size[1] / scale))
        columns = _columns(item, number, is_mirrored, part, scale, stride)
        pixels = _resize(part.cut(image), size, nearest)
        crops.append(
            Crop(
                pixels.flip(-1) if is_mirrored else pixels, _resize_area(part.cut(maps), size), None, columns
            )
        )
    return crops


def cut_grids(
    item: CodeImage, number: int, is_mirrored: bool, stride: int, settings: CodeCropSettings, nearest: bool
) -> list[Crop]:
    """The whole image, with the parts of its grid that are crops; arguments as in ``cut_images``."""
    image, maps = _to_tensors(item)
    if is_mirrored:
        image = image.flip(-1)
    h, w = -(-image.shape[1] // stride), -(-image.shape[2] // stride)
    crops = []
    for cells in crop_rectangles(h, w, settings.ratio):
        pixels = Rectangle(
            cells.top * stride, cells.left * stride, cells.height * stride, cells.width * stride
        )
        columns = _columns(item, number, is_mirrored, pixels, 1.0, stride)
        crops.append(Crop(image, maps, cells, columns))
    return crops


def _columns(
    item: CodeImage, number: int, is_mirrored: bool, part: Rectangle, scale: float, stride: int
) -> dict[str, Any]:
    """Camera of a crop in cells, 0 at the centre of the first one, and where it lies in the image."""
    H, W = item.image.shape[:2]
    x, y = item.principal_point or ((W - 1) / 2, (H - 1) / 2)
    cell = stride / scale
    return {
        "image": number,
        "is_mirrored": is_mirrored,
        "focal": item.focal_length / cell,
        "centres": ((x + 0.5 - part.left) / cell - 0.5, (y + 0.5 - part.top) / cell - 0.5),
        "rows": (part.top / H, (part.top + part.height) / H),
    }


def _to_tensors(item: CodeImage) -> tuple[Tensor, Tensor]:
    """Image (3, H, W) in [0, 1] and maps (2 + C, H, W)."""
    size = item.image.shape[:2]
    if item.image.shape != (*size, 3) or item.image.dtype != np.uint8:
        raise ShapeError(
            f"{item.frame_id}: the image must be (H, W, 3) uint8 RGB. Got: {item.image.shape} {item.image.dtype}"
        )
    if item.disparity.shape != size or (item.channels is not None and item.channels.shape[1:] != size):
        channels = None if item.channels is None else item.channels.shape
        raise ShapeError(
            f"{item.frame_id}: disparity and channels must have the size of the image {size}. "
            f"Got: {item.disparity.shape} and {channels}"
        )
    known = is_measured(item.disparity)
    nearness = np.where(known, item.disparity, 0) / (item.focal_length * item.stereo_baseline)
    maps = [np.stack([nearness, known])] + ([] if item.channels is None else [item.channels])
    image = torch.from_numpy(np.ascontiguousarray(item.image)).permute(2, 0, 1).float() / 255
    return image, torch.from_numpy(np.concatenate(maps).astype(np.float32))


def _middle(outer: Rectangle, height: int, width: int) -> Rectangle:
    height, width = min(height, outer.height), min(width, outer.width)
    return Rectangle(
        outer.top + (outer.height - height) // 2, outer.left + (outer.width - width) // 2, height, width
    )


def _resize(image: Tensor, size: tuple[int, int], nearest: bool) -> Tensor:
    if image.shape[1:] == size:
        return image
    if nearest:
        return functional.interpolate(image[None], size, mode="nearest")[0]
    return functional.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[
        0
    ].clamp(0, 1)


def _resize_area(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[1:] == size else functional.interpolate(maps[None], size, mode="area")[0]
