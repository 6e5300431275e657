"""Masks of monocular objects at full resolution: the evidence of every pixel, smoothed along edges of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.motion import BoundarySettings
from gestalt.motion.boundary import (
    CORE_VOTES,
    MIN_CORE_PX,
    MIN_MARGIN_PX,
    DrawnObject,
    filter_radii,
    surroundings,
)
from gestalt.motion.flow_clustering import PIECES, affine_flow, fit_affine, flow_deviation, piece_deviation
from gestalt.motion.labelling import UNEXPLAINED_SHARE
from gestalt.motion.photometry import Photometry, compare_errors, photometric_step
from gestalt.motion.smoothing import smooth_costs

# What a standing pixel's free depth costs, in squared deviations: an affine motion has no such freedom at each
# pixel, so where both explain a pixel alike the object is the simpler one (the price of GRIC, see
# ``camera_motion``).
DEPTH_FREEDOM = math.log(4)
# Rounds of robust refitting, and the squared deviation at which the weight has fallen to a quarter.
REFITS, CUTOFF = 3, 9.0


@dataclass(frozen=True, eq=False)
class FlowEvidence:
    """Measurements of every pixel of a frame and what the standing scene says about them.

    Attributes:
        pixels: (H, W, 2) float, coordinates.
        flow: (H, W, 2) float, optical flow, pixels; 0 where unknown.
        standing: (H, W, 2) float, the most similar optical flow of a standing point.
        weight: (H, W) float, 1 where a pixel has a consistent measurement.
        std: (2,) float, noise, pixels.
        photometry: The images, or None where there are none.
    """

    pixels: Tensor
    flow: Tensor
    standing: Tensor
    weight: Tensor
    std: Tensor
    photometry: Photometry | None

    def crop(self, rows: slice, columns: slice) -> FlowEvidence:
        """The same for a rectangle of the image."""
        return FlowEvidence(
            self.pixels[rows, columns],
            self.flow[rows, columns],
            self.standing[rows, columns],
            self.weight[rows, columns],
            self.std,
            None if self.photometry is None else self.photometry.crop(rows, columns),
        )

    def standing_deviation(self) -> Tensor:
        """(H, W) float: squared deviation from the standing scene, in variances; 0 where unmeasured."""
        return ((self.flow - self.standing) / self.std).square().sum(-1) * self.weight


def draw_flow_object(
    frame: FlowEvidence,
    motion: Tensor,
    votes: Tensor,
    stiffness: float,
    settings: BoundarySettings,
    cost_limit: float,
) -> DrawnObject | None:
    """Decide pixel by pixel what belongs to one object.

    Args:
        frame: Evidence of the whole frame.
        motion: (PIECES, 2, 3), of the object.
        votes: (H, W) float in [0, 1], share of the runs that put a pixel into the object.
        stiffness: See ``fit_affine``.
        settings: Filters.
        cost_limit: Squared deviations count at most this much.

    Returns:
        None where too few pixels of the object are measured.
    """
    guided, box = filter_radii(len(votes), settings)
    rows, columns = surroundings(votes, max(2 * guided, 2 * box, MIN_MARGIN_PX))
    near, votes = frame.crop(rows, columns), votes[rows, columns]
    core = (votes > CORE_VOTES) & (near.weight > 0)
    if int(core.sum()) < MIN_CORE_PX:
        return None
    motion = _refit(near, motion, core, stiffness)
    own = piece_deviation(motion, near.pixels.flatten(0, 1), near.flow.flatten(0, 1), near.std)
    own = own.view(votes.shape).clamp(max=cost_limit) * near.weight
    ego = near.standing_deviation().clamp(max=cost_limit)
    measured_gain = own - ego
    gain, weight = measured_gain - DEPTH_FREEDOM * near.weight, near.weight
    errors = _photometric_errors(near, motion)
    if errors is not None:
        known = errors.isfinite().all(0)
        gain = gain + settings.photometric_weight * photometric_step(errors, known)
        weight = torch.maximum(weight, known * settings.photometric_share)
    smooth, smooth_own = smooth_costs(
        torch.stack([gain, own]),
        weight,
        None if near.photometry is None else near.photometry.guide,
        guided_radius=guided,
        eps=settings.guided_eps,
        box_radius=max(1, box),
    )
    smooth = smooth + settings.vote_weight * (1 - 2 * votes)
    smooth = torch.where((smooth_own > UNEXPLAINED_SHARE * cost_limit) & (smooth < 0), 0.0, smooth)
    mask = smooth < 0
    measured = mask & (near.weight > 0)
    evidence = -float(measured_gain[measured].mean()) if bool(measured.any()) else 0.0
    return DrawnObject(
        rows,
        columns,
        smooth,
        motion,
        evidence,
        compare_errors(errors, mask),
    )


def _refit(near: FlowEvidence, motion: Tensor, core: Tensor, stiffness: float) -> Tensor:
    """The pieces (PIECES, 2, 3) robustly refitted to those of the chosen pixels that each explains best."""
    pixels, flow = near.pixels[core], near.flow[core]
    for _ in range(REFITS):
        deviation = flow_deviation(motion, pixels, flow, near.std)
        best = deviation.argmin(0)
        weights = (CUTOFF / (CUTOFF + deviation)) ** 2 * (
            best == torch.arange(PIECES, device=best.device)[:, None]
        )
        refitted = fit_affine(pixels, flow, weights, stiffness)
        # A repeated piece explains nothing first and stays what it is.
        motion = torch.where((weights.sum(1) > MIN_CORE_PX)[:, None, None], refitted, motion)
    return motion


def _photometric_errors(near: FlowEvidence, motion: Tensor) -> Tensor | None:
    """(2, h, w) photometric error of standing and of the best piece's motion; None without images."""
    if near.photometry is None:
        return None
    shape = near.weight.shape
    moved = affine_flow(motion, near.pixels.flatten(0, 1)).view(len(motion), *shape, 2)
    off = ((moved - near.flow) / near.std).square().sum(-1)
    best = off.argmin(0)[None, ..., None].expand(1, *shape, 2)
    flows = (near.standing, moved.gather(0, best)[0])
    return torch.stack([near.photometry.error(near.pixels + flow) for flow in flows])
