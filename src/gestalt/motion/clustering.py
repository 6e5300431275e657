"""All runs of SF2SE3 at once: propose motions, accept what explains most, part it, refine it, again.

In: cells and the ego-motion of each run. Out: rigid motions with the cells that support them. Every tensor
has the runs as its first dimension; the only loops are the few rounds and the few selections of a round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.motion import ClusteringSettings, StaticSettings
from gestalt.motion.background import Background
from gestalt.motion.cells import Cells
from gestalt.motion.draws import Draws
from gestalt.motion.geometry import MIN_DEPTH_M, Camera, project
from gestalt.motion.rigid_motion import (
    Precision,
    compose_motion,
    fit_kabsch,
    move,
    refine_motion,
    rotation_angle,
    squared_deviation,
)
from gestalt.motion.rigidity_graph import (
    RigidityGraph,
    build_graph,
    connected_parts,
    grow_clusters,
    tail_probability,
)

# Best proposals of a round that are refined before one is accepted, cells that refine them, steps and cutoff.
FINALISTS, REFINING_CELLS = 3, 96
PROPOSAL_STEPS, FINAL_STEPS, CUTOFF = 4, 2, 16.0
# Cells of a body that decide whether it stands.
STATIC_CELLS = 128


@dataclass(frozen=True)
class Models:
    """Rigid motions of all runs.

    Attributes:
        run: (A,) int64, run that found each.
        motions: (A, 4, 4).
        support: (A, N) bool, the cells behind each.
        graph_cells: Number of cells that were in the rigidity graph.
    """

    run: Tensor
    motions: Tensor
    support: Tensor
    graph_cells: int


@dataclass
class _Round:
    """What one call of ``cluster`` keeps between its rounds; never leaves this module."""

    graph: RigidityGraph
    points: Tensor
    measured: Tensor
    points_next: Tensor
    precision: Precision
    voters: Tensor
    coverage: Tensor
    accepted: Tensor
    scale: Tensor


@dataclass(frozen=True)
class _Finalists:
    """Motions (n, F, 4, 4), middles (n, F, 3) and gains (n, F) of the best proposals."""

    motions: Tensor
    middle: Tensor
    gain: Tensor


class Clustering:
    """The clustering of one frame.

    Args:
        cells: Measurements.
        background: Ego-motion of each run.
        allowed: (n, N) bool, reliable cells of each run.
        std: (3,) float, noise, pixels.
        camera: The camera.
        settings: Of the clustering.
        inlier_limit: Squared deviation up to which a cell is explained.
    """

    def __init__(
        self,
        cells: Cells,
        background: Background,
        allowed: Tensor,
        std: Tensor,
        camera: Camera,
        settings: ClusteringSettings,
        inlier_limit: float,
    ) -> None:
        self._cells, self._background, self._allowed = cells, background, allowed
        self._std, self._camera, self._settings, self._limit = std, camera, settings, inlier_limit
        self._prior = object_prior(settings, cells.device)

    def run(self, draws: Draws) -> Models:
        """Find the motions of every run."""
        settings, cells = self._settings, self._cells
        outliers = self._allowed & (self._background.deviation > self._limit)
        index = self._graph_cells(outliers, draws)
        runs = len(outliers)
        empty = torch.zeros(0, dtype=torch.int64, device=cells.device)
        found = Models(
            empty,
            cells.points.new_zeros(0, 4, 4),
            torch.zeros(0, len(cells), dtype=torch.bool, device=cells.device),
            len(index),
        )
        if len(index) == 0:
            return found
        voters = outliers[:, index]
        scale = outliers.sum(1) / voters.sum(1).clamp(min=1) / cells.reliable.sum().clamp(min=1)
        state = _Round(
            build_graph(cells, index, self._std, self._camera, settings),
            cells.points[index],
            cells.measured[index],
            cells.points_next[index],
            self._background.precision.select(index),
            voters,
            torch.zeros(runs, len(index), device=cells.device),
            torch.zeros(runs, 0, len(index), device=cells.device),
            scale,
        )
        accepted: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(settings.outer_iterations):
            news = self._round(state, draws)
            if not news:
                break
            accepted += news
        if not accepted:
            return found
        run, motions, support = (torch.cat(parts) for parts in zip(*accepted))
        keep = _largest(run, support, settings.max_models)
        run, motions, support = run[keep], motions[keep], support[keep]
        everywhere = torch.zeros(len(run), len(cells), dtype=torch.bool, device=cells.device)
        everywhere[:, index] = support
        return Models(run, motions, everywhere, len(index))

    def _graph_cells(self, outliers: Tensor, draws: Draws) -> Tensor:
        """Cells that some run leaves unexplained, at most ``max_graph_cells`` of them, in order."""
        unexplained = outliers.any(0)
        order = torch.where(unexplained, draws.uniform(len(unexplained))[0], -1.0)
        count = min(self._settings.max_graph_cells, int(unexplained.sum()))
        return order.topk(count).indices.sort().values

    def _round(self, state: _Round, draws: Draws) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One round: proposals, selection, parts. Returns (run, motions, support) of what was accepted."""
        tail = self._settings.inlier_tail
        open_cells = state.voters & (state.coverage < tail)
        members, counted = grow_clusters(state.graph, open_cells, draws, self._settings)
        motions, middle = self._fit(state, members, counted)
        soft = self._soft(state, motions, middle)
        soft = soft * (counted.sum(2) > 1)[..., None]
        accepted = []
        for _ in range(self._settings.selections):
            finalists = self._refine_finalists(state, motions, middle, soft, draws)
            best = finalists.gain.max(1)
            chosen = (best.values > self._settings.min_gain).nonzero()[:, 0]
            if len(chosen) == 0:
                break
            picked = best.indices[chosen]
            accepted += self._part(
                state, chosen, finalists.motions[chosen, picked], finalists.middle[chosen, picked], draws
            )
            # What overlaps an accepted motion is a copy of it.
            copies = (_soft_overlap(soft, state.accepted) > self._settings.max_overlap).any(2)
            soft = soft * ~copies[..., None] * state.voters[:, None]
        return accepted

    def _fit(self, state: _Round, members: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Motion and middle of each proposed set of cells."""
        runs, proposals, size = members.shape
        points, target = state.points[members], state.points_next[members]
        weights = counted.float()
        ego = self._background.motions[:, None].expand(runs, proposals, 4, 4)
        total = weights.sum(-1, keepdim=True).clamp(min=1)
        middle = (points * weights[..., None]).sum(-2) / total
        if self._prior is None:
            near = points[..., 2].clamp(min=MIN_DEPTH_M) ** -2
            motions, determined = fit_kabsch(points, target, weights * near)
            motions = torch.where(determined[..., None, None], motions, ego)
        else:
            shift = ((target - move(ego, points)) * weights[..., None]).sum(-2) / total
            motions = compose_motion(ego[..., :3, :3], ego[..., :3, 3] + shift)
        flat = members.reshape(-1, size)
        refined = refine_motion(
            motions.reshape(-1, 4, 4),
            state.points[flat],
            state.measured[flat],
            weights.reshape(-1, size),
            state.precision.select(flat),
            self._camera,
            iterations=PROPOSAL_STEPS,
            cutoff=CUTOFF,
            prior=self._prior,
        )
        return refined.reshape(runs, proposals, 4, 4), middle

    def _soft(self, state: _Round, motions: Tensor, middle: Tensor) -> Tensor:
        """Soft inliers (n, P, U) of motions (n, P, 4, 4): 0 for cells that do not vote or are out of reach."""
        deviation = squared_deviation(motions, state.points, state.measured, state.precision, self._camera)
        gap = state.points - middle[..., None, :]
        depth_noise = state.points[:, 2] ** 2 / self._camera.disparity_scale * self._std[2]
        depth_gap = gap[..., 2].abs() - self._settings.noise_factor * depth_noise
        reach = self._settings.reach_m
        within = (gap[..., :2].square().sum(-1) < reach**2) & (depth_gap < reach)
        return tail_probability(deviation) * (within & state.voters[:, None])

    def _gain(self, state: _Round, soft: Tensor) -> Tensor:
        """Share of the frame's cells that each motion newly explains, (n, P)."""
        fresh = (soft - state.coverage[:, None]).clamp(min=0)
        hard = soft > self._settings.inlier_tail
        return (fresh * hard).sum(-1) * state.scale[:, None]

    def _refine_finalists(
        self, state: _Round, motions: Tensor, middle: Tensor, soft: Tensor, draws: Draws
    ) -> _Finalists:
        """Refit the best proposals to everything they explain; keep whichever version explains more."""
        best = self._gain(state, soft).topk(min(FINALISTS, soft.shape[1]), dim=1).indices
        run = torch.arange(len(soft), device=soft.device)[:, None]
        motions, middle, soft = motions[run, best], middle[run, best], soft[run, best]
        refined, center = self._refit(state, motions, soft > self._settings.inlier_tail, draws)
        center = torch.where(center.isfinite(), center, middle)
        gain, gain_refined = self._gain(state, soft), self._gain(state, self._soft(state, refined, center))
        better = gain_refined > gain
        return _Finalists(
            torch.where(better[..., None, None], refined, motions),
            torch.where(better[..., None], center, middle),
            torch.maximum(gain, gain_refined),
        )

    def _refit(self, state: _Round, motions: Tensor, inliers: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Motions (n, P, 4, 4) refitted to a sample of their inliers (n, P, U), and the middle of these."""
        order = torch.where(inliers, draws.uniform(inliers.shape[2])[:, None], -1.0)
        sample = order.topk(min(REFINING_CELLS, inliers.shape[2]), dim=2)
        index, weights = sample.indices, (sample.values >= 0).float()
        points = state.points[index]
        refined = refine_motion(
            motions.flatten(0, 1),
            points.flatten(0, 1),
            state.measured[index].flatten(0, 1),
            weights.flatten(0, 1),
            Precision(
                state.precision.std,
                state.precision.direction[index].flatten(0, 1),
                state.precision.shrink[index].flatten(0, 1),
            ),
            self._camera,
            iterations=FINAL_STEPS,
            cutoff=CUTOFF,
            prior=self._prior,
        ).reshape(motions.shape)
        middle = (points * weights[..., None]).sum(-2) / weights.sum(-1, keepdim=True)
        return refined, middle

    def _part(
        self, state: _Round, chosen: Tensor, motions: Tensor, middle: Tensor, draws: Draws
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Part the accepted motions (one each of the runs ``chosen``) and cover what their parts explain."""
        settings = self._settings
        everyone = self._background.motions.clone()[:, None]
        everyone[chosen, 0] = motions
        center = torch.full_like(everyone[:, :, :3, 3], torch.inf)
        center[chosen, 0] = middle
        soft = self._soft(state, everyone, center)[:, 0]
        parts = connected_parts(state.graph, soft, soft > settings.inlier_tail, settings.inlier_tail)
        ranks = torch.arange(settings.splits, device=parts.device)
        members = parts[:, None] == ranks[:, None]
        fresh = ((soft - state.coverage).clamp(min=0)[:, None] * members).sum(-1) * state.scale[:, None]
        kept = fresh > settings.min_gain
        refined, _ = self._refit(state, everyone.expand(-1, settings.splits, 4, 4), members, draws)
        owned = soft[:, None] * (members & kept[..., None])
        state.accepted = torch.cat([state.accepted, owned], 1)
        state.coverage = torch.maximum(state.coverage, owned.max(1).values)
        # Parts too small to keep would be proposed again and again.
        spent = (soft > settings.inlier_tail) & ~(members & kept[..., None]).any(1)
        state.voters = state.voters & ~spent
        run, part = kept.nonzero(as_tuple=True)
        return [(run, refined[run, part], members[run, part])] if len(run) else []


def merge_models(
    models: Models, cells: Cells, precision: Precision, camera: Camera, settings: ClusteringSettings
) -> Models:
    """Join the parts of a body that noise has split: a larger motion takes over what it explains as well.

    Args:
        models: Motions of all runs.
        cells: Measurements.
        precision: Of the cells.
        camera: The camera.
        settings: Cost limit and ``merge_cost``.
    """
    if len(models.run) < 2:
        return models
    used = models.support.any(0).nonzero()[:, 0]
    support = models.support[:, used].float()
    cost = squared_deviation(
        models.motions, cells.points[used], cells.measured[used], precision.select(used), camera
    ).clamp(max=settings.cost_limit)
    size = support.sum(1)
    mean_cost = cost @ support.T / size
    extra = mean_cost - mean_cost.diagonal()
    touching = _boxes_touch(models.support, cells, settings.window_cells)
    number = torch.arange(len(size), device=size.device)
    larger = (size[:, None] > size) | ((size[:, None] == size) & (number[:, None] < number))
    may = (extra < settings.merge_cost) & touching & larger & (models.run[:, None] == models.run)
    # Each goes to the largest that takes it, and along with that one where it goes itself.
    best = torch.where(may, size[:, None], -1.0).max(0)
    parent = torch.where(best.values > 0, best.indices, number)
    for _ in range(settings.max_models):
        parent = parent[parent]
    joined = torch.zeros_like(models.support, dtype=torch.float32)
    joined.index_add_(0, parent, models.support.float())
    kept = parent == number
    return Models(models.run[kept], models.motions[kept], joined[kept] > 0, models.graph_cells)


def _boxes_touch(support: Tensor, cells: Cells, gap: int) -> Tensor:
    """(A, A) bool: whether the boxes around two sets of cells come within ``gap`` cells of each other."""
    grid = support.view(-1, *cells.shape)
    apart = torch.zeros(len(grid), len(grid), dtype=torch.bool, device=grid.device)
    for axis in (1, 2):
        line = grid.any(3 - axis).float()
        first = line.argmax(1)
        last = line.shape[1] - 1 - line.flip(1).argmax(1)
        apart |= (first[:, None] > last + gap) | (first > last[:, None] + gap)
    return ~apart


def is_static(
    motions: Tensor,
    ego: Tensor,
    support: Tensor,
    cells: Cells,
    camera: Camera,
    settings: StaticSettings,
) -> Tensor:
    """Which motions are no object: they agree with the ego-motion, or turn more than anything can.

    Args:
        motions: (A, 4, 4).
        ego: (A, 4, 4), ego-motion of the run of each.
        support: (A, N) bool, cells behind each.
        cells: Measurements.
        camera: The camera.
        settings: Thresholds.

    Returns:
        (A,) bool.

    Source:
        The released code subtracts the ego-translation from itself and compares the wrong way round, so it
        keeps what stands and removes what turns. Ours: static if both the relative rotation and what the
        motion does to the body's own points are small.
    """
    angle = rotation_angle(ego[:, :3, :3].transpose(-1, -2) @ motions[:, :3, :3])
    sample = support.float().topk(min(STATIC_CELLS, support.shape[1]), dim=1)
    points, counted = cells.points[sample.indices], sample.values > 0
    with_object, with_ego = move(motions, points), move(ego, points)
    displacement = _median_where((with_object - with_ego).norm(dim=-1), counted)
    shift = (project(with_object, camera) - project(with_ego, camera))[..., :2].norm(dim=-1)
    small = (displacement < settings.max_displacement_m) | (
        _median_where(shift, counted) < settings.max_flow_px
    )
    return ((angle < settings.max_rotation_rad) & small) | (angle > settings.implausible_rotation_rad)


def _median_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, torch.nan).nanmedian(-1).values


def object_prior(settings: ClusteringSettings, device: torch.device) -> Tensor | None:
    """Precision of object motion around its start for ``refine_motion``; None where the settings use no prior."""
    if settings.prior_translation_m == 0 or settings.prior_rotation_rad == 0:
        return None
    spread = [settings.prior_translation_m] * 3 + [settings.prior_rotation_rad] * 3
    return torch.tensor(spread, device=device) ** -2


def _soft_overlap(soft: Tensor, accepted: Tensor) -> Tensor:
    """Soft IoU (n, P, K) of (n, P, U) with (n, K, U): sum ab / (sum ab + sum a(1-b) + sum (1-a)b)."""
    both = soft @ accepted.transpose(1, 2)
    either = soft.sum(-1)[..., None] + accepted.sum(-1)[:, None] - both
    return both / either.clamp(min=1e-12)


def _largest(run: Tensor, support: Tensor, count: int) -> Tensor:
    """Indices of each run's ``count`` motions with the largest support, in order of run."""
    size = support.sum(1)
    order = torch.argsort(size, descending=True, stable=True)
    order = order[torch.argsort(run[order], stable=True)]
    first = torch.searchsorted(run[order], run[order])
    rank = torch.arange(len(order), device=order.device) - first
    return order[rank < count]
