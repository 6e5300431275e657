"""Which pixels of an image another one shows: by what lands on them, or by there and back again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gestalt.matching.warping import pixel_grid

if TYPE_CHECKING:
    from gestalt.config.optical_flow import OcclusionSettings


def sample_batch(images: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """``warping.sample`` for every image of a batch, bit for bit, in as many kernels as for one.

    Args:
        images: (B, C, H, W) float.
        positions: (B, 2, h, w) float, x and y, pixels of the images; may lie outside or be NaN.

    Returns:
        (B, C, h, w) samples, 0 outside; (B, h, w) bool, whether a position lies inside.
    """
    batch, channels, height, width = images.shape
    x, y = positions.unbind(1)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)  # False for NaN
    x, y = torch.where(inside, x, 0.0), torch.where(inside, y, 0.0)
    flat = images.reshape(batch, channels, -1)

    def pick(column: Tensor, row: Tensor) -> Tensor:
        index = (row * width + column).reshape(batch, 1, -1).expand(-1, channels, -1)
        return flat.gather(2, index).reshape(batch, channels, *positions.shape[2:])

    left, top = x.long(), y.long()
    right, below = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    upper = pick(left, top) * (1 - share_x) + pick(right, top) * share_x
    lower = pick(left, below) * (1 - share_x) + pick(right, below) * share_x
    return (upper * (1 - share_y) + lower * share_y) * inside[:, None], inside


def targets(optical_flow: Tensor) -> Tensor:
    """Where displacements (B, 2, H, W) lead: (B, 2, H, W) positions, x and y, pixels."""
    return pixel_grid(optical_flow.shape[-2], optical_flow.shape[-1], optical_flow.device) + optical_flow


def range_map(optical_flow: Tensor) -> Tensor:
    """How many pixels land on each pixel of the other image.

    Args:
        optical_flow: (B, 2, H, W) float32, pixels; every pixel is spread bilinearly over four.

    Returns:
        (B, H, W) float32, at least 0; what leads out of the image lands nowhere.

    Source:
        Wang et al., Occlusion Aware Unsupervised Learning of Optical Flow, CVPR 2018.
    """
    batch, _, height, width = optical_flow.shape
    x, y = targets(optical_flow).unbind(1)
    left, top = x.floor(), y.floor()
    counts = torch.zeros(batch, height * width, device=optical_flow.device)
    for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
            index = torch.where(inside, row * width + column, 0.0).long()
            share = torch.where(inside, share_x * share_y, 0.0)
            counts.scatter_add_(1, index.flatten(1), share.flatten(1))
    return counts.reshape(batch, height, width)


def round_trip(forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is left of going forward and back again.

    Args:
        forward: (B, 2, H, W) float, pixels.
        backward: (B, 2, H, W) float, pixels, of the other image.

    Returns:
        (B, H, W) squared length of ``forward(p) + backward(p + forward(p))``; (B, H, W) sum of the squared
        lengths of both; (B, H, W) bool, whether the target lies inside the image.
    """
    back, inside = sample_batch(backward, targets(forward))
    error = (forward + back).square().sum(1)
    return error, forward.square().sum(1) + back.square().sum(1), inside


def is_consistent(forward: Tensor, backward: Tensor, *, share: float, constant_px2: float) -> Tensor:
    """The forward-backward test: (B, H, W) bool, true where going there and back again ends near the start.

    Args:
        forward: (B, 2, H, W) float, pixels.
        backward: (B, 2, H, W) float, pixels, of the other image.
        share: Share of the squared lengths that the squared error may have.
        constant_px2: What it may have in any case, px^2.

    Source:
        Sundaram et al., Dense Point Trajectories, ECCV 2010.
    """
    error, lengths, inside = round_trip(forward, backward)
    return (error < share * lengths + constant_px2) & inside


def visibility(forward: Tensor, backward: Tensor, settings: OcclusionSettings, step: int) -> Tensor:
    """Weight of each pixel in the photometric loss.

    A pixel that leaves the crop counts as visible: what lies there was not looked at from the other side, and
    the loss itself knows whether the image goes on there.

    Args:
        forward: (B, 2, H, W) float32, pixels; no gradient flows into it.
        backward: (B, 2, H, W) float32, pixels, of the other image.
        settings: Method, its start and its constants.
        step: Of the training.

    Returns:
        (B, H, W) float32 in [0, 1].
    """
    forward, backward = forward.detach(), backward.detach()
    batch, _, height, width = forward.shape
    if step < settings.start_step:
        return torch.ones(batch, height, width, device=forward.device)
    if settings.method == "range_map":
        visible = range_map(backward).clamp(max=1)
    else:
        visible = is_consistent(
            forward, backward, share=settings.consistency_share, constant_px2=settings.consistency_px2
        ).float()
    x, y = targets(forward).unbind(1)
    stays = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return torch.where(stays, visible, 1.0)
