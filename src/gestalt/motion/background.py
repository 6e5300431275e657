"""The ego-motion: the one rigid motion that explains most of the scene, for all runs at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.motion.cells import Cells, exact_precision
from gestalt.motion.draws import Draws
from gestalt.motion.geometry import Camera
from gestalt.motion.rigid_motion import (
    Precision,
    fit_kabsch,
    measurement_precision,
    refine_motion,
    squared_deviation,
)

# Cells that refine and that judge; more change nothing visible and cost time.
REFINING_CELLS, JUDGING_CELLS = 1500, 400
# Proposals per run and cells of each: few inliers are needed, because most of a street stands still.
PROPOSALS, PROPOSAL_CELLS = 64, 5
# A proposal from five noisy cells is judged with this many times the noise.
JUDGING_SLACK = 3.0
# Depth bins per doubling of the disparity.
BINS_PER_OCTAVE = 3
# Squared deviations at which the robust weight falls, from coarse to fine, and steps at each.
CUTOFFS, STEPS = (100.0, 25.0, 9.0), 3


@dataclass(frozen=True)
class Background:
    """The ego-motion of each run.

    Attributes:
        motions: (n, 4, 4) rigid motions.
        shares: (n,) float, share of the reliable cells that each explains.
        precision: Of the N cells, given this motion.
        deviation: (n, N) float, squared deviation of every cell.
    """

    motions: Tensor
    shares: Tensor
    precision: Precision
    deviation: Tensor


def find_background(
    cells: Cells,
    allowed: Tensor,
    weights: Tensor,
    draws: Draws,
    std: Tensor,
    first_std: Tensor,
    camera: Camera,
    inlier_limit: float,
) -> Background:
    """Fit the ego-motion of every run.

    SF2SE3 takes the largest of the motions it finds, each proposed from a few neighbouring cells. Ours
    proposes the first
    motion from cells all over the image: neighbours determine it badly, and it is the one every other is
    judged against.

    Args:
        cells: Measurements.
        allowed: (n, N) bool, the reliable cells that each run may use.
        weights: (N,) float, how much each cell says about the static scene; see ``cell_weights``.
        draws: Random numbers.
        std: (3,) float, noise of x, y and disparity, pixels.
        first_std: 0-d float, noise of the first disparity that predictions inherit, pixels.
        camera: The camera.
        inlier_limit: Squared deviation up to which a cell is explained.
    """
    index, usable = draws.subset(allowed, REFINING_CELLS)
    points, measured, points_next = cells.points[index], cells.measured[index], cells.points_next[index]
    weight = usable * weights[index]
    picked = draws.members(usable.sum(1), PROPOSALS, PROPOSAL_CELLS)
    run = torch.arange(len(index), device=index.device)[:, None, None]
    # Depth noise grows with the square of the depth, so near points say more about a metric motion.
    inverse_depth = 1 / points[..., 2]
    proposed, _ = fit_kabsch(points[run, picked], points_next[run, picked], inverse_depth[run, picked] ** 2)
    identity = torch.eye(4, device=cells.device).expand(len(index), 1, 4, 4)
    proposed = torch.cat([proposed, identity], 1)
    judges = slice(0, JUDGING_CELLS)
    loose = exact_precision(std * JUDGING_SLACK, (len(index), 1, len(usable[0, judges])))
    deviation = squared_deviation(proposed, points[:, None, judges], measured[:, None, judges], loose, camera)
    loss = (deviation.clamp(max=inlier_limit) * weight[:, None, judges]).sum(-1)
    motions = proposed[run[:, 0, 0], loss.argmin(1)]
    precision = exact_precision(std, tuple(index.shape))
    for cutoff in CUTOFFS:
        motions = refine_motion(
            motions, points, measured, weight, precision, camera, iterations=STEPS, cutoff=cutoff
        )
    best = _explained(motions, points, measured, precision, camera, inlier_limit, weight).argmax()
    # A wall and an object can share a false motion that some runs fall for: all go on from the best one.
    motions = motions[best].expand_as(motions)
    everywhere = measurement_precision(motions[best], cells.points, cells.disparity, std, first_std, camera)
    motions = refine_motion(
        motions,
        points,
        measured,
        weight,
        everywhere.select(index),
        camera,
        iterations=STEPS,
        cutoff=CUTOFFS[-1],
    )
    deviation = squared_deviation(motions, cells.points, cells.measured, everywhere, camera)
    explained = (deviation < inlier_limit) & cells.reliable
    shares = explained.sum(1) / cells.reliable.sum().clamp(min=1)
    return Background(motions, shares, everywhere, deviation)


def cell_weights(cells: Cells, on_ground: Tensor | None) -> Tensor:
    """How much each cell says about the static scene, (N,) float.

    A truck that fills half of the view would win a plain count. Where there is a ground, which surely stands, it
    weighs at least as much as all the rest, and among all cells those of a common depth weigh less (the inverse
    square root of their number): a truck is one depth, the static world is many. Without a ground a count
    decides, because a scene may be one wall.

    Args:
        cells: Measurements.
        on_ground: (N,) bool, or None where no ground was found.
    """
    if on_ground is None:
        return cells.reliable.float()
    octave = (cells.disparity.log2() * BINS_PER_OCTAVE).floor().long()
    octave = octave - octave.min()
    counts = torch.zeros(int(octave.max()) + 1, device=cells.device)
    counts.index_add_(0, octave, cells.reliable.float())
    weights = counts[octave].clamp(min=1).rsqrt() * math.sqrt(len(cells)) * cells.reliable
    ground, rest = weights[on_ground].sum().clamp(min=1e-6), weights[~on_ground].sum()
    return torch.where(on_ground, weights * (rest / ground).clamp(min=1), weights)


def _explained(
    motions: Tensor,
    points: Tensor,
    measured: Tensor,
    precision: Precision,
    camera: Camera,
    limit: float,
    weights: Tensor,
) -> Tensor:
    deviation = squared_deviation(motions, points, measured, precision, camera)
    total: Tensor = ((deviation < limit) * weights).sum(1)
    return total
