"""The masks of the runs: every cell goes to the motion that explains it best, nearby evidence counting with its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from gestalt.config.motion import ClusteringSettings
from gestalt.motion.background import Background
from gestalt.motion.cells import Cells
from gestalt.motion.clustering import Models
from gestalt.motion.geometry import Camera
from gestalt.motion.rigid_motion import squared_deviation
from gestalt.motion.rigidity_graph import two_sided_tail
from gestalt.motion.smoothing import box_mean

# A cell whose best cost comes this near the limit is explained by nothing.
UNEXPLAINED_SHARE = 0.75
# Cost of a motion where the spatial model excludes it.
EXCLUDED = 1e6
# Components are eight-connected and stay within their own plane.
WITHIN_PLANE = np.zeros((3, 3, 3), np.bool_)
WITHIN_PLANE[1] = True


@dataclass(frozen=True)
class RunMasks:
    """Masks of all runs, disjoint within a run.

    Attributes:
        run: (M,) int64.
        masks: (M, h, w) bool on the grid of cells.
        scores: (M,) float in (0, 1].
        motions: (M, 4, 4) rigid motions, or (M, 2, 3) affine optical flow of monocular video.
    """

    run: Tensor
    masks: Tensor
    scores: Tensor
    motions: Tensor


def spatial_support(support: Tensor, spacing: tuple[float, float], settings: ClusteringSettings) -> Tensor:
    """How well each cell fits the nearest-neighbour model of a set of cells.

    Args:
        support: (A, h, w) float, 1 for members.
        spacing: Distance of neighbouring cells down and across in normalised image coordinates.
        settings: Spread and window.

    Returns:
        (A, h, w) float in [0, 1]: the best tail q(Dx) q(Dy) of a member in the window. The product separates,
        so the maximum is taken down and then across.
    """
    reach = settings.window_cells
    offsets = torch.arange(-reach, reach + 1, device=support.device)
    best = support
    for axis, step in ((-2, spacing[0]), (-1, spacing[1])):
        tails = two_sided_tail(offsets * step / settings.link_std)
        pad = (0, 0, reach, reach) if axis == -2 else (reach, reach)
        padded = functional.pad(best, pad)
        length = best.shape[axis]
        best = torch.stack([padded.narrow(axis, i, length) * tail for i, tail in enumerate(tails)]).amax(0)
    return best


def label_runs(
    cells: Cells,
    background: Background,
    models: Models,
    camera: Camera,
    cell_area_px: float,
    settings: ClusteringSettings,
) -> RunMasks:
    """Assign every cell of every run and cut the result into connected masks.

    Args:
        cells: Measurements.
        background: Ego-motion of each run.
        models: Motions of all runs.
        camera: The camera.
        cell_area_px: Pixels that a cell stands for.
        settings: Spatial model, cost limit, smallest component.
    """
    height, width = cells.shape
    spacing = (
        float(cells.rows[-1] - cells.rows[0]) / max(1, height - 1) / camera.focal_y,
        float(cells.columns[-1] - cells.columns[0]) / max(1, width - 1) / camera.focal_x,
    )
    known = cells.known.float().view(height, width)
    reach = settings.smoothing_cells
    weight = box_mean(known, reach, reach)

    def smooth(deviation: Tensor) -> Tensor:
        cost = deviation.clamp(max=settings.cost_limit).view(-1, height, width) * known
        return box_mean(cost, reach, reach) / weight.clamp(min=1e-6)

    deviation = squared_deviation(models.motions, cells.points, cells.measured, background.precision, camera)
    fits = spatial_support(models.support.float().view(-1, height, width), spacing, settings)
    object_cost = torch.where(fits > settings.inlier_tail, smooth(deviation), EXCLUDED)
    return assign_runs(
        object_cost,
        smooth(background.deviation),
        models.run,
        models.motions,
        weight > 0,
        settings.cost_limit,
        settings.min_component_px / cell_area_px,
    )


def assign_runs(
    object_cost: Tensor,
    standing_cost: Tensor,
    run: Tensor,
    motions: Tensor,
    known: Tensor,
    cost_limit: float,
    min_cells: float,
) -> RunMasks:
    """Give every cell of every run to what explains it best, and cut that into connected masks.

    Args:
        object_cost: (A, h, w) float, squared deviations from each motion; ``EXCLUDED`` out of its reach.
        standing_cost: (n, h, w) float, the same from the standing scene of each run.
        run: (A,) int64, of each motion.
        motions: (A, ...), what each mask will carry.
        known: (h, w) bool, cells with any evidence.
        cost_limit: What costs nearly this much is explained by nothing.
        min_cells: Smaller components are dropped.
    """
    runs, height, width = standing_cost.shape
    slot, n_slots = _slots(run, runs)
    cost = torch.full((runs, n_slots + 1, height, width), EXCLUDED, device=standing_cost.device)
    cost[:, 0] = standing_cost
    cost[run, slot + 1] = object_cost
    best = cost.min(1)
    labels = torch.where(known & (best.values < UNEXPLAINED_SHARE * cost_limit), best.indices, 0)
    probability = torch.softmax(-cost / 2, 1)[run, slot + 1]
    planes = labels[run] == (slot + 1)[:, None, None]
    return _components(planes, probability, run, motions, min_cells)


def _slots(run: Tensor, runs: int) -> tuple[Tensor, int]:
    """Number of each model within its run, and the largest number of models of a run."""
    order = torch.argsort(run, stable=True)
    counts = torch.bincount(run, minlength=runs)
    starts = counts.cumsum(0) - counts
    slot = torch.empty_like(run)
    slot[order] = torch.arange(len(run), device=run.device) - starts[run[order]]
    return slot, int(counts.max()) if len(run) else 0


def _components(
    planes: Tensor, probability: Tensor, run: Tensor, motions: Tensor, min_cells: float
) -> RunMasks:
    labels, count = ndimage.label(planes.cpu().numpy(), WITHIN_PLANE)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    score = np.bincount(labels.ravel(), probability.cpu().numpy().ravel(), count + 1) / np.maximum(area, 1)
    plane = np.zeros(count + 1, np.int64)
    where = labels.nonzero()
    plane[labels[where]] = where[0]
    names = np.flatnonzero(area[1:] >= min_cells) + 1
    masks = labels[plane[names]] == names[:, None, None]
    owner = torch.from_numpy(plane[names]).to(run.device)
    return RunMasks(
        run[owner],
        torch.from_numpy(masks).to(owner.device),
        torch.from_numpy(score[names]).float().to(owner.device),
        motions[owner],
    )
