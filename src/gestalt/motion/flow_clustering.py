"""What moves alike in the image: affine optical flow of the cells that the standing scene does not explain.

All runs at once, as in ``clustering``: propose motions from a few neighbouring cells, accept what newly
explains most, part it into what is connected, again. A motion is (2, 3): ``optical flow = A (x, y, 1)``, pixels.
The faces of a box move by different ones, which agree along their common edge: such pieces are joined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor
from torch.nn import functional

from gestalt.config.motion import MonocularSettings
from gestalt.motion.draws import Draws
from gestalt.motion.flow_cells import FlowCells
from gestalt.motion.rigidity_graph import RigidityGraph, connected_parts

# Best proposals that are refitted to what they explain before one is accepted, and how often.
FINALISTS, REFITS = 4, 2
# Standard deviations that the optical flow of two neighbours of one object may differ by, besides stretch.
LINK_STDS = 4.0
# Proposals with fewer cells are coincidences.
MIN_PROPOSAL_CELLS = 3
# Pieces of one object at most, and the share of a piece's cells that have a neighbour in the other which moves alike.
PIECES, JOINING_SHARE = 4, 0.12


@dataclass(frozen=True, eq=False)
class FlowModels:
    """What moves in all runs.

    Attributes:
        run: (A,) int64, run that found each.
        motions: (A, PIECES, 2, 3) float, pixels: affine motions of the pieces, some repeated.
        support: (A, N) bool, the cells behind each.
    """

    run: Tensor
    motions: Tensor
    support: Tensor


def affine_flow(motions: Tensor, pixels: Tensor) -> Tensor:
    """Optical flow (..., N, 2) of affine motions (..., 2, 3) at pixels (..., N, 2)."""
    return pixels @ motions[..., :2].transpose(-1, -2) + motions[..., None, :, 2]


def fit_affine(pixels: Tensor, flow: Tensor, weights: Tensor, stiffness: float) -> Tensor:
    """Affine optical flow by weighted least squares with a prior for pure translation.

    Args:
        pixels: (..., N, 2) float.
        flow: (..., N, 2) float, pixels.
        weights: (..., N) float, not negative.
        stiffness: (noise / expected change of the flow per pixel)^2, pixels^2: few or neighbouring cells
            determine no stretch, many far ones do.

    Returns:
        (..., 2, 3) float; zero where no cell counts.
    """
    total = weights.sum(-1)[..., None, None].clamp(min=1e-9)
    weighted = weights[..., None]
    middle = (pixels * weighted).sum(-2, keepdim=True) / total
    mean = (flow * weighted).sum(-2, keepdim=True) / total
    offset = pixels - middle
    normal = (offset * weighted).transpose(-1, -2) @ offset
    normal = normal + stiffness * torch.eye(2, device=pixels.device)
    slope = torch.linalg.solve(normal, (offset * weighted).transpose(-1, -2) @ (flow - mean))
    shift = mean - middle @ slope
    return torch.cat([slope.transpose(-1, -2), shift.transpose(-1, -2)], -1)


def flow_deviation(motions: Tensor, pixels: Tensor, flow: Tensor, std: Tensor) -> Tensor:
    """(..., N) float: squared deviation of optical flow from affine motions, in variances of the noise (2,)."""
    return ((affine_flow(motions, pixels) - flow) / std).square().sum(-1)


def piece_deviation(motions: Tensor, pixels: Tensor, flow: Tensor, std: Tensor) -> Tensor:
    """(..., N) float: squared deviation from whichever of the pieces (..., PIECES, 2, 3) explains a pixel best."""
    return flow_deviation(motions, pixels, flow, std).amin(-2)


class FlowClustering:
    """The clustering of one frame.

    Args:
        cells: Measurements.
        outliers: (n, N) bool, cells of each run that nothing standing explains.
        std: (2,) float, noise, pixels.
        rows: Of the image; lengths of the settings are shares of it.
        settings: Section ``motion.monocular``.
    """

    def __init__(
        self, cells: FlowCells, outliers: Tensor, std: Tensor, rows: int, settings: MonocularSettings
    ) -> None:
        self._cells, self._outliers, self._std, self._settings = cells, outliers, std, settings
        self._link, self._reach = settings.link_share * rows, settings.reach_share * rows
        self._stiffness = float(std.square().mean()) / settings.prior_stretch**2

    def run(self, draws: Draws) -> FlowModels:
        """Find the motions of every run."""
        settings, cells = self._settings, self._cells
        unexplained = self._outliers.any(0)
        order = torch.where(unexplained, draws.uniform(len(unexplained))[0], -1.0)
        index = order.topk(min(settings.max_cells, int(unexplained.sum()))).indices.sort().values
        found = FlowModels(
            index[:0],
            cells.flow.new_zeros(0, PIECES, 2, 3),
            torch.zeros(0, len(cells), device=cells.device) > 0,
        )
        if len(index) == 0:
            return found
        state = _State(cells, index, self._outliers, self._graph(index))
        accepted = []
        for _ in range(settings.rounds):
            news = self._round(state, draws)
            if not news:
                break
            accepted += news
        if not accepted:
            return found
        run, motions, support = (torch.cat(parts) for parts in zip(*accepted))
        run, motions, support = join_pieces(run, motions, support, state.graph)
        everywhere = torch.zeros(len(run), len(cells), dtype=torch.bool, device=cells.device)
        everywhere[:, index] = support
        kept = _rank(support.sum(1), run) < settings.max_models
        return FlowModels(run[kept], motions[kept], everywhere[kept])

    def _graph(self, index: Tensor) -> RigidityGraph:
        """Which of the cells ``index`` may belong together: near each other, and moving alike."""
        settings, cells = self._settings, self._cells
        pixels, flow = cells.pixels[index], cells.flow[index]
        distance = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist")
        contrast = torch.cdist(
            flow / self._std, flow / self._std, compute_mode="donot_use_mm_for_euclid_dist"
        )
        stretch = settings.prior_stretch * distance / float(self._std.mean())
        alike = contrast < LINK_STDS * (2 + stretch.square()).sqrt()
        window = (settings.link_cells + 0.5) * cells.step_px
        apart = (pixels[:, None] - pixels).abs().amax(-1)
        edges = ((apart < window) & alike).triu(1).nonzero().T
        near = (distance < max(self._link, window)) & alike
        return RigidityGraph(index, near, alike, edges, torch.ones(edges.shape[1], device=cells.device))

    def _round(self, state: _State, draws: Draws) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One round: proposals, selection, parts. Returns (run, motions, support) of what was accepted."""
        motions, middle, counted = self._propose(state, draws)
        soft = self._soft(state, motions, middle) * counted[..., None]
        accepted = []
        for _ in range(self._settings.selections):
            gain = self._gain(state, soft)
            best = gain.topk(min(FINALISTS, gain.shape[1]), dim=1).indices
            run = torch.arange(len(soft), device=soft.device)
            finalists, finalist_soft = self._refit(
                state, soft[run[:, None], best], middle[run[:, None], best]
            )
            # What grew into an accepted motion is a copy of it, and so is a proposal that overlaps one.
            copies = self._copies(state, finalist_soft)
            finalist_gain = self._gain(state, finalist_soft).masked_fill(copies, 0)
            top = finalist_gain.max(1)
            chosen = (top.values > self._settings.min_gain).nonzero()[:, 0]
            if len(chosen) == 0:
                break
            taken = torch.zeros_like(finalist_soft[:, 0])
            taken[chosen] = finalist_soft[chosen, top.indices[chosen]]
            accepted += self._part(state, finalists[run, top.indices], taken)
            soft = soft * ~self._copies(state, soft)[..., None] * state.voters[:, None]
        return accepted

    def _propose(self, state: _State, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Motions (n, P, 2, 3) of a seed and some neighbours that move alike, their middles, and which count."""
        settings = self._settings
        open_cells = state.voters & ~state.covered
        index, usable = draws.subset(open_cells, open_cells.shape[1])
        choice = draws.members(usable.sum(1), settings.proposals)
        seeds = index.gather(1, choice)
        order = draws.uniform(settings.proposals, open_cells.shape[1])
        candidates = torch.where(state.graph.near[seeds] & open_cells[:, None], order, -1.0)
        best = candidates.topk(min(settings.proposal_cells, candidates.shape[2]), dim=2)
        weights = (best.values >= 0).float()
        pixels, flow = state.pixels[best.indices], state.flow[best.indices]
        motions = fit_affine(pixels, flow, weights, self._stiffness)
        middle = (pixels * weights[..., None]).sum(-2) / weights.sum(-1, keepdim=True).clamp(min=1)
        return motions, middle, weights.sum(-1) >= MIN_PROPOSAL_CELLS

    def _soft(self, state: _State, motions: Tensor, middle: Tensor) -> Tensor:
        """Soft inliers (n, P, U): how probable a larger deviation is, 0 out of reach."""
        deviation = flow_deviation(motions, state.pixels, state.flow, self._std)
        within = (state.pixels - middle[..., None, :]).square().sum(-1) < self._reach**2
        return torch.exp(-deviation / 2) * (within & state.voters[:, None])

    def _gain(self, state: _State, soft: Tensor) -> Tensor:
        """Share of the frame's cells that each motion newly explains, (n, P)."""
        fresh = (soft > self._settings.inlier_tail) & ~state.covered[:, None]
        return (soft * fresh).sum(-1) * state.scale[:, None]

    def _copies(self, state: _State, soft: Tensor) -> Tensor:
        """Whether motions overlap an accepted one, (n, P) bool."""
        return (_soft_overlap(soft, state.accepted) > self._settings.max_overlap).any(2)

    def _refit(self, state: _State, soft: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Motions (n, F, 2, 3) fitted to everything they explain, and their soft inliers."""
        motions = soft.new_zeros(*soft.shape[:2], 2, 3)
        for _ in range(REFITS):
            inliers = (soft > self._settings.inlier_tail).float()
            motions = fit_affine(state.pixels, state.flow, inliers, self._stiffness)
            soft = self._soft(state, motions, middle)
        return motions, soft

    def _part(self, state: _State, motions: Tensor, soft: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Part the accepted motions (n, 2, 3) and cover what their parts explain."""
        settings, tail = self._settings, self._settings.inlier_tail
        hard = soft > tail
        parts = connected_parts(state.graph, soft, hard, tail)
        members = parts[:, None] == torch.arange(settings.splits, device=parts.device)[:, None]
        fresh = ((soft * ~state.covered)[:, None] * members).sum(-1) * state.scale[:, None]
        kept = fresh > settings.min_gain
        refined = fit_affine(state.pixels, state.flow, members.float(), self._stiffness)
        owned = soft[:, None] * (members & kept[..., None])
        state.accepted = torch.cat([state.accepted, owned], 1)
        state.covered = state.covered | (members & kept[..., None]).any(1)
        # Parts too small to keep would be proposed again and again.
        state.voters = state.voters & ~(hard & ~(members & kept[..., None]).any(1))
        run, part = kept.nonzero(as_tuple=True)
        return [(run, refined[run, part], members[run, part])] if len(run) else []


def join_pieces(
    run: Tensor, motions: Tensor, support: Tensor, graph: RigidityGraph
) -> tuple[Tensor, Tensor, Tensor]:
    """Join motions of one run whose cells touch where they move alike: surfaces of one body meet in an edge.

    Args:
        run: (A,) int64.
        motions: (A, 2, 3) float.
        support: (A, U) bool, cells behind each.
        graph: Which cells touch and move alike.

    Returns:
        Runs (G,), motions (G, PIECES, 2, 3) of the largest pieces and supports (G, U) of what is joined.
    """
    cells = support.shape[1]
    touching = torch.zeros(cells, cells, device=support.device)
    touching[graph.edges[0], graph.edges[1]] = 1
    touching = touching + touching.T
    own = support.float()
    beside = (own @ touching > 0).float()
    contact = own @ beside.T
    size = own.sum(1)
    # Each way round, so that the smaller piece decides.
    meets = (contact > JOINING_SHARE * size[:, None]) & (run == run[:, None])
    links = sparse.coo_array((meets | meets.T).cpu().numpy())
    count, labels = csgraph.connected_components(links, directed=False)
    group = torch.from_numpy(labels.astype(np.int64)).to(run.device)
    members = group == torch.arange(count, device=run.device)[:, None]
    joined = (members.float() @ own) > 0
    # The largest pieces first; a group with fewer repeats its largest.
    best = torch.where(members, 1 + size, 0.0).sort(dim=1, descending=True, stable=True)
    index = functional.pad(best.indices[:, :PIECES], (0, max(0, PIECES - best.indices.shape[1])))
    there = functional.pad(best.values[:, :PIECES], (0, max(0, PIECES - best.values.shape[1]))) > 0
    index = torch.where(there, index, index[:, :1])
    return run[index[:, 0]], motions[index], joined


def _rank(size: Tensor, run: Tensor) -> Tensor:
    """(A,) int64: how many of the same run are larger; equal ones count in their order."""
    number = torch.arange(len(size), device=size.device)
    larger = (size > size[:, None]) | ((size == size[:, None]) & (number < number[:, None]))
    return (larger & (run == run[:, None])).sum(1)


class _State:
    """What the rounds of one call keep between them; never leaves this module."""

    def __init__(self, cells: FlowCells, index: Tensor, outliers: Tensor, graph: RigidityGraph) -> None:
        self.graph = graph
        self.pixels, self.flow = cells.pixels[index], cells.flow[index]
        self.voters = outliers[:, index]
        self.covered = torch.zeros_like(self.voters)
        self.accepted = torch.zeros(len(outliers), 0, len(index), device=index.device)
        # From sampled cells to shares of the frame.
        share = outliers.sum(1) / self.voters.sum(1).clamp(min=1)
        self.scale = share / cells.reliable.sum().clamp(min=1)


def _soft_overlap(soft: Tensor, accepted: Tensor) -> Tensor:
    """Soft IoU (n, P, K) of soft inliers (n, P, U) with those of accepted motions (n, K, U)."""
    both = soft @ accepted.transpose(1, 2)
    either = soft.sum(-1)[..., None] + accepted.sum(-1)[:, None] - both
    return both / either.clamp(min=1e-12)
