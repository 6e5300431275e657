"""How noisy optical flow and disparity are, from their own forward-backward and left-right disagreement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.motion import NoiseSettings
from gestalt.matching.warping import warp

# A residual adds the noise of two measurements.
TWO_MEASUREMENTS = math.sqrt(2)
# Below this share of usable residuals nothing can be estimated.
MIN_USABLE_SHARE = 0.1
# Largest mismatch of the truncation equation that still counts as a solution, and its search grid.
TRUNCATION_TOLERANCE, TRUNCATION_STEPS = 0.01, 100
# Median of |x| of a standard normal variable.
MEDIAN_OF_NORMAL = 0.6745


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the measurements of a frame, pixels."""

    x: float
    y: float
    disparity: float


def gaussian_std(residuals: Tensor, settings: NoiseSettings) -> float:
    """Standard deviation of one measurement from differences of two.

    Args:
        residuals: (N,) float, pixels, differences of two equally noisy measurements; NaN where unusable.
        settings: Estimator and bounds.

    Returns:
        Pixels, within the bounds.

    Source:
        SF2SE3 (Sommer et al., 2022) as used by CUPS: the spread of residuals below a limit, corrected for the
        truncation at that limit. ``median`` is ours: with matching by hand-made costs a tenth of the
        residuals are outliers, and they, not the noise, decide a truncated variance.
    """
    limit = settings.max_std_px * TWO_MEASUREMENTS
    kept = residuals[residuals.abs() < limit]
    if len(kept) == 0 or len(kept) < MIN_USABLE_SHARE * len(residuals):
        return settings.min_std_px
    if settings.estimator == "median":
        std = float(kept.abs().median()) / MEDIAN_OF_NORMAL
    else:
        truncated = float(kept.square().mean().sqrt())
        std = truncated / _truncation_ratio(limit, truncated)
    return min(max(std / TWO_MEASUREMENTS, settings.min_std_px), settings.max_std_px)


def _truncation_ratio(limit: float, truncated: float) -> float:
    """Truncated over full standard deviation of a Gaussian cut off at ``limit``; 0.1 where nothing fits."""
    if truncated == 0:
        return 1.0
    a = limit / (truncated * math.sqrt(2))
    ratio = torch.linspace(0.1, 1, TRUNCATION_STEPS, dtype=torch.float64)
    inside = torch.erf(a * ratio)
    loss = 2 / math.sqrt(math.pi) * a * ratio * torch.exp(-((a * ratio) ** 2)) / inside
    fits = (1 - loss - ratio**2).abs() < TRUNCATION_TOLERANCE
    return float(ratio[fits].max()) if bool(fits.any()) else float(ratio[0])


def estimate_noise(
    forward: Tensor,
    backward: Tensor | None,
    disparity: Tensor,
    disparity_right: Tensor | None,
    settings: NoiseSettings,
) -> Noise:
    """Noise of a frame's measurements.

    Args:
        forward: (2, H, W) float, optical flow from t to t+1, pixels.
        backward: (2, H, W) float, from t+1 to t; None where it was not measured.
        disparity: (H, W) float, pixels, left image; 0 where unknown.
        disparity_right: (H, W) float, pixels, right image; None where it was not measured.
        settings: Estimator and bounds.

    Returns:
        Standard deviations; ``unknown_std_px`` for what cannot be estimated.
    """
    std_x = std_y = std_disparity = settings.unknown_std_px
    if backward is not None:
        returned, inside = warp(backward, forward)
        residual = torch.where(inside, forward + returned, torch.nan)
        std_x, std_y = (gaussian_std(component.reshape(-1), settings) for component in residual)
    if disparity_right is not None:
        shift = torch.stack([-disparity, torch.zeros_like(disparity)])
        other, inside = warp(disparity_right[None], shift)
        known = inside & (disparity > 0) & (other[0] > 0)
        residual = torch.where(known, disparity - other[0], torch.nan)
        std_disparity = gaussian_std(residual.reshape(-1), settings)
    return Noise(std_x, std_y, std_disparity)
