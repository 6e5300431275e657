"""Which measurements can be trusted: forward-backward agreement, depth edges, depth range, the mask of 3-D motion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.config.motion import ReliabilitySettings
from gestalt.matching.warping import warp
from gestalt.motion.geometry import Camera
from gestalt.motion.noise import Noise

# Smallest disparity of the logarithm, px.
LOG_OFFSET_PX = 0.001
# Gaussian of one pixel, which smooths the logarithm before its slope is taken.
GAUSS = tuple(math.exp(-(tap**2) / 2) for tap in (-2, -1, 0, 1, 2))
# Standard deviation that one pixel's noise keeps after the edge filter's smoothing and difference.
EDGE_NOISE_GAIN = 1.1
# Neighbouring disparities of one surface differ by less than this: pixels plus a share of the disparity.
JUMP_PX, JUMP_SHARE = 1.0, 0.05


@dataclass(frozen=True)
class Reliability:
    """What is known about the pixels of frame t.

    Attributes:
        disparity_next: (H, W) float, pixels: disparity at t+1 of the point seen at t; 0 where unknown.
        measured: (H, W) bool: optical flow and both disparities exist and agree with their reverse.
        reliable: (H, W) bool: also in the depth range, away from depth edges and in the valid region (mask
        O).
        visible: (H, W) bool: optical flow agrees with its reverse and stays inside.
    """

    disparity_next: Tensor
    measured: Tensor
    reliable: Tensor
    visible: Tensor


def consistent(
    forward: Tensor, backward: Tensor, settings: ReliabilitySettings, variance: float = 0.0
) -> Tensor:
    """Whether following ``forward`` and then ``backward`` leads back.

    Args:
        forward: (2, H, W) float, pixels.
        backward: (2, H, W) float, pixels, on the grid that ``forward`` points to.
        settings: Thresholds.
        variance: Expected squared length of the disagreement from noise alone, px^2; the threshold grows by
            ``noise_factor`` of it. The published threshold assumes noise far below one pixel and rejects
            nearly everything that moves little once noise reaches a pixel.

    Returns:
        (H, W) bool; False where the target lies outside.

    Source:
        |f + g|^2 < 0.01 (|f|^2 + |g|^2) + 0.5 (Sundaram et al., ECCV 2010), with g sampled bilinearly.
    """
    returned, inside = warp(backward, forward)
    error = (forward + returned).square().sum(0)
    size = forward.square().sum(0) + returned.square().sum(0)
    limit = settings.consistency_share * size + settings.consistency_px2 + settings.noise_factor * variance
    return inside & (error < limit)


def depth_edges(disparity: Tensor, settings: ReliabilitySettings, noise_px: float) -> Tensor:
    """Pixels at jumps of the depth, where two surfaces mix.

    Args:
        disparity: (H, W) float, pixels; 0 where unknown.
        settings: Threshold of the gradient of log(disparity) and width of the margin.
        noise_px: Standard deviation of ``disparity``; jumps that noise alone makes are no edges.

    Returns:
        (H, W) bool.

    Source:
        CUPS takes the Canny magnitude (5x5 Gaussian of one pixel, un-normalised Sobel) above 0.2, dilated
        5x5, and counts the rim of every hole as an edge; ours smooths over known pixels only.
    """
    known = (disparity > 0).float()[None]
    log = disparity.clamp(min=LOG_OFFSET_PX).log()[None] * known
    # Only known pixels count: a hole is no jump.
    planes = _replicate(torch.cat([log, known]), 2)
    log, weight = _weighted_sum(_weighted_sum(planes, GAUSS, -1), GAUSS, -2)
    smooth = _replicate(torch.where(weight > 0, log / weight.clamp(min=1e-12), 0.0)[None], 1)
    # Sobel, one factor at a time: a convolution unfolds the image, which costs eight times the time and memory.
    across = _weighted_sum(smooth[..., 2:] - smooth[..., :-2], (1.0, 2.0, 1.0), -2)
    down = _weighted_sum(smooth[..., 2:, :] - smooth[..., :-2, :], (1.0, 2.0, 1.0), -1)
    steepness = (across.square() + down.square()).sqrt()[0]
    limit = settings.edge_threshold + settings.noise_factor * EDGE_NOISE_GAIN * noise_px / disparity.clamp(
        min=1
    )
    whole = -functional.max_pool2d(-weight[None, None], 3, 1, 1)[0, 0] > 0
    edges = ((steepness > limit) & whole).float()
    margin = settings.edge_margin_px
    return functional.max_pool2d(edges[None, None], 2 * margin + 1, 1, margin)[0, 0] > 0


def _replicate(planes: Tensor, margin: int) -> Tensor:
    """(C, H, W) planes with their rim repeated outwards on all sides."""
    return functional.pad(planes[None], (margin,) * 4, mode="replicate")[0]


def _weighted_sum(planes: Tensor, weights: tuple[float, ...], axis: int) -> Tensor:
    """Correlation along one axis, without the rim."""
    length = planes.shape[axis] - len(weights) + 1
    total = planes.narrow(axis, 0, length) * weights[0]
    for start, weight in enumerate(weights[1:], start=1):
        total.add_(planes.narrow(axis, start, length), alpha=weight)
    return total


def assess(
    forward: Tensor,
    backward: Tensor | None,
    disparity: Tensor,
    disparity_next: Tensor | None,
    disparity_next_warped: Tensor | None,
    disparity_right: Tensor | None,
    disparity_right_next: Tensor | None,
    valid: Tensor,
    noise: Noise,
    camera: Camera,
    settings: ReliabilitySettings,
) -> Reliability:
    """Judge every pixel's measurement; what was not measured (None) is not tested.

    Args:
        forward: (2, H, W) float, optical flow t to t+1, pixels; NaN where unknown.
        backward: (2, H, W) float, t+1 to t.
        disparity: (H, W) float, pixels, at t; 0 where unknown.
        disparity_next: (H, W) float, pixels, at t+1 on its own grid.
        disparity_next_warped: (H, W) float, pixels: at t+1, on the pixels of t. One of the two is given.
        disparity_right: (H, W) float, pixels, at t on the right image's grid.
        disparity_right_next: (H, W) float, the same at t+1.
        valid: (H, W) bool, region where measurements make sense.
        noise: Of the measurements.
        camera: The camera.
        settings: Thresholds.
    """
    seen = forward.isfinite().all(0)
    forward = torch.where(seen, forward, 0.0)
    flow_variance = 2 * (noise.x**2 + noise.y**2)
    visible = seen
    if backward is not None:
        visible = visible & consistent(forward, backward, settings, flow_variance)
    else:
        visible = visible & warp(disparity[None], forward)[1]
    measured = visible & _matched(disparity, disparity_right, noise, settings)
    clean = _in_range(disparity, camera, settings) & ~depth_edges(disparity, settings, noise.disparity)
    if disparity_next is not None:
        fit_next = _matched(disparity_next, disparity_right_next, noise, settings)
        clean_next = _in_range(disparity_next, camera, settings)
        clean_next &= ~depth_edges(disparity_next, settings, noise.disparity)
        stack = torch.stack([disparity_next, fit_next.float(), clean_next.float()])
        (nearest, fit, clean_there), _ = warp(stack, forward, nearest=True)
        next_warped = _between_pixels(disparity_next, nearest, forward)
        measured, clean = measured & (fit > 0), clean & (clean_there > 0)
    else:
        assert disparity_next_warped is not None, "one of the two forms of the second disparity is required"
        next_warped = disparity_next_warped
        measured = measured & (next_warped > 0)
        clean = clean & _in_range(next_warped, camera, settings)
    # A surface may come nearer by the ego-motion; its disparity need not stay above the minimum, only be
    # known.
    measured = measured & (disparity >= settings.min_disparity_px) & (next_warped > 0) & valid
    return Reliability(next_warped, measured, measured & clean, visible)


def _between_pixels(disparity: Tensor, nearest: Tensor, forward: Tensor) -> Tensor:
    """Disparity where ``forward`` points: between pixels of one surface, the nearest pixel's across a jump.

    On a slanted surface the nearest pixel is wrong by up to half the slope, which on a road a few metres ahead
    is more than the noise of the matcher.
    """
    neighbours = disparity[None, None]
    lowest = -functional.max_pool2d(-neighbours, 3, 1, 1)[0, 0]
    highest = functional.max_pool2d(neighbours, 3, 1, 1)[0, 0]
    # A hole is a jump too: unknown is 0.
    (low, high), _ = warp(torch.stack([lowest, highest]), forward, nearest=True)
    (between,), _ = warp(neighbours[0], forward)
    smooth = (low > 0) & (high - low < JUMP_PX + JUMP_SHARE * nearest)
    return torch.where(smooth, between, nearest)


def _matched(disparity: Tensor, other: Tensor | None, noise: Noise, settings: ReliabilitySettings) -> Tensor:
    known = disparity > 0
    if other is None:
        return known
    zero = torch.zeros_like(disparity)
    variance = 2 * noise.disparity**2
    agree = consistent(torch.stack([-disparity, zero]), torch.stack([other, zero]), settings, variance)
    return known & agree


def _in_range(disparity: Tensor, camera: Camera, settings: ReliabilitySettings) -> Tensor:
    near, far = camera.disparity_scale / settings.min_depth_m, camera.disparity_scale / settings.max_depth_m
    return (disparity >= far) & (disparity <= near)
