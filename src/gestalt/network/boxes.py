"""Box arithmetic that proposal network and box cascade share: offsets to boxes and back, clipping."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A box may grow at most from 16 to 1000 px in one step, so that exp() cannot overflow early in training.
MAX_LOG_GROWTH = math.log(1000.0 / 16)

Weights = tuple[float, float, float, float]


def encode_boxes(targets: Tensor, references: Tensor, weights: Weights) -> Tensor:
    """Offsets that turn ``references`` into ``targets``.

    Args:
        targets: (N, 4) float, x0, y0, x1, y1 in pixels.
        references: (N, 4) float, anchors or proposals with positive sides.
        weights: Factors of the four offsets (dx, dy, dw, dh).

    Returns:
        (N, 4) float: centre shift in reference sides, log ratio of sides, times ``weights``.
    """
    target_centre, target_side = _centre_and_side(targets)
    centre, side = _centre_and_side(references)
    shift = (target_centre - centre) / side
    growth = torch.log(target_side.clamp(min=1e-3) / side)
    return torch.cat([shift, growth], dim=1) * targets.new_tensor(weights)


def decode_boxes(offsets: Tensor, references: Tensor, weights: Weights) -> Tensor:
    """Inverse of ``encode_boxes``: (N, 4) offsets and (N, 4) references -> (N, 4) boxes in pixels."""
    offsets = offsets / offsets.new_tensor(weights)
    centre, side = _centre_and_side(references)
    new_centre = centre + offsets[:, :2] * side
    half = 0.5 * side * torch.exp(offsets[:, 2:].clamp(max=MAX_LOG_GROWTH))
    return torch.cat([new_centre - half, new_centre + half], dim=1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) limited to an image of ``size`` (H, W)."""
    height, width = size
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (N, 4) of the mirrored image of ``width`` pixels."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([width - x1, y0, width - x0, y1], dim=1)


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    side = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * side, side
