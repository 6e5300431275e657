"""Averages over neighbours: plain windows, and windows that stop at edges of the image or of the values themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Fraction of the noise that the edge-keeping average lets through where a surface is flat.
RESIDUAL_NOISE = 0.3


def box_mean(planes: Tensor, radius_y: int, radius_x: int) -> Tensor:
    """Mean over the window of (..., H, W) planes, borders counting what lies inside.

    Summed areas in double precision: the cost does not grow with the window.
    """
    if radius_y == 0 and radius_x == 0:
        return planes
    height, width = planes.shape[-2:]
    total = planes.new_zeros(*planes.shape[:-2], height + 1, width + 1, dtype=torch.float64)
    total[..., 1:, 1:] = planes.cumsum(-2, dtype=torch.float64).cumsum(-1)
    row, column = (torch.arange(side, device=planes.device) for side in (height, width))
    top, bottom = (row - radius_y).clamp(min=0), (row + radius_y + 1).clamp(max=height)
    left, right = (column - radius_x).clamp(min=0), (column + radius_x + 1).clamp(max=width)
    rows = total.index_select(-2, bottom) - total.index_select(-2, top)
    sums = rows.index_select(-1, right) - rows.index_select(-1, left)
    return (sums / ((bottom - top)[:, None] * (right - left))).to(planes.dtype)


def keep_edges(values: Tensor, known: Tensor, std: float, radius: int) -> Tensor:
    """Average noise away where a surface is flat, and leave its edges alone.

    Noise of the first disparity enters the points that motions are fitted to, and least squares then prefers
    rotations to translations (regression dilution), so it is worth removing before the fit.

    Args:
        values: (H, W) float.
        known: (H, W) bool; unknown pixels are returned as they are.
        std: Noise of the values.
        radius: Of the window, pixels.

    Returns:
        (H, W) float.

    Source:
        Self-guided filter (He et al., PAMI 2013): where the variance in the window is far above ``eps`` the
        pixel keeps its value, where it is far below the pixel takes the mean.
    """
    eps = (2 * std) ** 2
    weight = known.float()
    share = box_mean(weight, radius, radius).clamp(min=1e-3)
    center = values * weight
    mean = box_mean(center, radius, radius) / share
    variance = (box_mean(center * values, radius, radius) / share - mean**2).clamp(min=0)
    slope = variance / (variance + eps)
    slope = slope * ((variance > 2 * std**2) | (variance == 0))
    smooth = box_mean(slope * weight, radius, radius) * values
    smooth = (smooth + box_mean((1 - slope) * mean * weight, radius, radius)) / share
    return torch.where(known, smooth, values)


@dataclass(frozen=True)
class GuidedFilter:
    """Guided filter (He et al., PAMI 2013) with a colour guide, normalised for missing pixels.

    Attributes:
        guide: (3, H, W) float in [0, 1].
        weight: (H, W) float, how much each pixel's input counts.
        radius: Pixels.
        eps: Smoothness, intensity^2.
    """

    guide: Tensor
    weight: Tensor
    radius: int
    eps: float

    def __call__(self, planes: Tensor) -> Tensor:
        """Filter (K, H, W) planes; pixels without weight take the value of similar neighbours."""
        guide, weight = self.guide, self.weight
        norm = self._mean(weight[None])[0].clamp(min=1e-4)
        mean_guide = self._mean(guide * weight) / norm
        outer = guide[:, None] * guide[None] * weight
        covariance = self._mean(outer.flatten(0, 1)).view(3, 3, *weight.shape) / norm
        covariance = covariance - mean_guide[:, None] * mean_guide[None]
        covariance = covariance.permute(2, 3, 0, 1) + self.eps * torch.eye(3, device=guide.device)
        inverse = torch.linalg.inv(covariance)
        weighted = planes * weight
        mean = self._mean(weighted) / norm
        cross = self._mean((weighted[:, None] * guide).flatten(0, 1)).view(-1, 3, *weight.shape) / norm
        cross = cross - mean[:, None] * mean_guide
        slope = torch.einsum("hwij,kjhw->kihw", inverse, cross)
        offset = mean - (slope * mean_guide).sum(1)
        # Windows with little evidence count little.
        trust = self._mean(norm[None])
        slope = self._mean((slope * norm).flatten(0, 1)).view(slope.shape) / trust
        offset = self._mean(offset * norm) / trust
        return (slope * guide).sum(1) + offset

    def _mean(self, planes: Tensor) -> Tensor:
        return box_mean(planes, self.radius, self.radius)


def smooth_costs(
    planes: Tensor, weight: Tensor, image: Tensor | None, *, guided_radius: int, eps: float, box_radius: int
) -> Tensor:
    """Costs averaged over neighbours that look alike; over all neighbours where there is no image.

    Args:
        planes: (K, H, W) float.
        weight: (H, W) float, 0 where a pixel has no measurement.
        image: (3, H, W) float in [0, 1] or None.
        guided_radius: Pixels; 0 turns the guide off.
        eps: Smoothness of the guided filter.
        box_radius: Pixels.
    """
    if image is not None and guided_radius > 0:
        return GuidedFilter(image, weight + 1e-3, guided_radius, eps)(planes)
    weight = weight + 1e-3
    total = box_mean(weight[None], box_radius, box_radius)
    return box_mean(planes * weight, box_radius, box_radius) / total
