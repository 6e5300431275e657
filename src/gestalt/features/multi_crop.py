"""Crops of frames for self-distillation: places are drawn on the CPU, pixels are read on the device of the frames.

A square window of each frame comes first and crops of that window second, so that a local crop of a street is not
nearly always road. All crops of a batch are made by two batched matrix products, whatever their places and sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from gestalt.config.distillation import ViewSettings

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

GLOBAL_VIEWS = 2
# Shapes drawn for a crop until one fits into its window; then the whole window is taken (torchvision: 10).
ATTEMPTS = 10
# Keys' cubic kernel with the slope of Pillow's, and of torch's antialiased, bicubic filter.
CUBIC_SLOPE = -0.5


@dataclass(frozen=True, eq=False)
class Views:
    """Where crops lie in their frames.

    Attributes:
        boxes: (B, V, 4) float64: top, left, height, width, pixels of the frame (its upper left corner is 0, 0).
        mirrored: (B, V) bool, whether left and right are exchanged.
    """

    boxes: FloatArray
    mirrored: BoolArray

    def of(self, images: slice) -> Views:
        """The views of some of the images."""
        return Views(self.boxes[images], self.mirrored[images])


def draw_views(
    size: tuple[int, int], settings: ViewSettings, n_images: int, generator: np.random.Generator
) -> tuple[Views, Views]:
    """Two global crops and the local crops of each of ``n_images`` frames of ``size`` (H, W).

    Source:
        Crops of the window as torchvision's random resized crop draws them: area uniform, logarithm of the ratio of
        sides uniform. Places and sizes are not rounded to whole pixels here.
    """
    windows = draw_windows(size, settings, n_images, generator)
    areas = (settings.global_low, settings.global_high), (settings.local_low, settings.local_high)
    drawn = []
    for (low, high), count in zip(areas, (GLOBAL_VIEWS, settings.local_count)):
        boxes = _draw_boxes(windows, (low, high), settings.stretch, count, generator)
        drawn.append(Views(boxes, generator.random((n_images, count)) < settings.flip_prob))
    return drawn[0], drawn[1]


def draw_windows(
    size: tuple[int, int], settings: ViewSettings, n_images: int, generator: np.random.Generator
) -> FloatArray:
    """Square windows of frames of ``size`` (H, W): (B, 3) top, left, side, pixels."""
    height, width = size
    low, high = sorted((settings.window_low, settings.window_high))
    sides = min(size) * generator.uniform(low, high, n_images)
    top = generator.random(n_images) * (height - sides)
    left = generator.random(n_images) * (width - sides)
    return np.stack([top, left, sides], 1)


def crop_frames(frames: Tensor, boxes: Tensor, mirrored: Tensor, side: int) -> Tensor:
    """Crops of frames, resized to squares with an antialiased bicubic filter.

    Args:
        frames: (B, 3, H, W) uint8, or float in [0, 1]; RGB.
        boxes: (B, V, 4) float on the same device, as in ``Views``.
        mirrored: (B, V) bool on the same device.
        side: Of the crops S, pixels.

    Returns:
        (V, B, 3, S, S) float32 in [0, 1].
    """
    batch, _, height, width = frames.shape
    n_views = boxes.shape[1]
    values = frames.float().div(255) if frames.dtype == torch.uint8 else frames
    top, left, rows, columns = boxes.unbind(2)
    nowhere = torch.zeros_like(mirrored)
    vertical = resize_matrices(top, rows, nowhere, side, height)
    horizontal = resize_matrices(left, columns, mirrored, side, width)
    # Rows first: their product is read by every channel and column of the second one.
    by_column = values.permute(0, 2, 1, 3).flatten(2)
    thin = (vertical.flatten(1, 2) @ by_column).view(batch, n_views, side * 3, width)
    crops = (thin @ horizontal.transpose(2, 3)).view(batch, n_views, side, 3, side)
    return crops.permute(1, 0, 3, 2, 4).clamp(0, 1).contiguous()


def resize_matrices(starts: Tensor, lengths: Tensor, mirrored: Tensor, n_out: int, n_in: int) -> Tensor:
    """Weights of the pixels of a line for each of its resized pixels.

    Args:
        starts: (...,) float, where the part that is read begins; 0 is the outer edge of the first pixel.
        lengths: (...,) float, its length, positive.
        mirrored: (...,) bool, whether it is read backwards.
        n_out: Pixels that come out.
        n_in: Pixels of the line.

    Returns:
        (..., n_out, n_in); rows sum to 1. Only pixels whose centre lies in the part count, unless there is none.
    """
    device, scale = starts.device, (lengths / n_out)[..., None, None]
    start, end = starts[..., None, None], (starts + lengths)[..., None, None]
    place = torch.arange(n_out, device=device, dtype=starts.dtype) + 0.5
    place = torch.where(mirrored[..., None], n_out - place, place)
    pixel = torch.arange(n_in, device=device, dtype=starts.dtype) + 0.5
    # Reduction widens the filter, so that no pixel of the part is skipped; enlargement does not narrow it.
    distance = (pixel - (place[..., None] * scale + start)).abs() / scale.clamp(min=1)
    inside = (pixel >= start) & (pixel < end)
    weights = _cubic(distance) * inside
    total = weights.sum(-1, keepdim=True)
    # A part thinner than a pixel may hold no centre: the nearest pixel then.
    nearest = torch.zeros_like(weights).scatter_(-1, distance.argmin(-1, keepdim=True), 1.0)
    is_empty = ~inside.any(-1, keepdim=True) | (total.abs() < 1e-6)
    return torch.where(is_empty, nearest, weights / torch.where(is_empty, torch.ones_like(total), total))


def overlap_places(views: Views, n_side: int, min_side_share: float) -> tuple[FloatArray, BoolArray]:
    """Places that both global crops of an image show, on a regular grid over what they share.

    Args:
        views: (B, 2) global crops.
        n_side: Side of the grid, so that P = n_side^2.
        min_side_share: An overlap counts where each of its sides is at least this share of both crops' side.

    Returns:
        (2, B, P, 2) x and y in either crop, where -1 and 1 are the outer edges of its first and last pixel, mirrored
        as the crop is; and (B,) bool, whether the overlap counts. Places of the others lie in their crops all the same.
    """
    starts, lengths = views.boxes[..., :2], views.boxes[..., 2:]
    first, last = starts.max(1), (starts + lengths).min(1)
    shared = last - first
    counts = (shared > 0).all(1) & (shared >= min_side_share * lengths.max(1)).all(1)
    steps = (np.arange(n_side) + 0.5) / n_side
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    places = first[:, None] + np.maximum(shared, 0)[:, None] * grid
    within = 2 * (places[:, None] - starts[:, :, None]) / lengths[:, :, None] - 1
    x = np.where(views.mirrored[..., None], -within[..., 1], within[..., 1])
    found = np.stack([x, within[..., 0]], -1).clip(-1, 1)
    return np.ascontiguousarray(found.transpose(1, 0, 2, 3)), counts


def _draw_boxes(
    windows: FloatArray,
    areas: tuple[float, float],
    stretch: float,
    count: int,
    generator: np.random.Generator,
) -> FloatArray:
    """(B, count, 4) boxes in windows (B, 3)."""
    shape = (len(windows), count, ATTEMPTS)
    top, left, side = (values[:, None] for values in windows.T)
    area = generator.uniform(min(areas), max(areas), shape)
    ratio = np.exp(generator.uniform(-np.log(stretch), np.log(stretch), shape))
    sides = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], -1)
    fits: BoolArray = np.all(sides <= 1, axis=-1)
    chosen = np.take_along_axis(sides, fits.argmax(2)[..., None, None], 2)[:, :, 0]
    chosen = np.where(np.any(fits, axis=2)[..., None], chosen, 1.0)
    free = (1 - chosen) * generator.random((len(windows), count, 2))
    relative: FloatArray = np.concatenate([free, chosen], -1) * side[..., None]
    relative[..., 0] += top
    relative[..., 1] += left
    return relative


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic kernel of distances that are not negative, in pixels."""
    a = CUBIC_SLOPE
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
