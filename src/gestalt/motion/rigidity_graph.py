"""Which unexplained cells may belong to one rigid body: closeness and rigidity of pairs, growth of clusters, parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from gestalt.config.motion import ClusteringSettings
from gestalt.motion.cells import Cells
from gestalt.motion.draws import Draws
from gestalt.motion.geometry import Camera

# A seed needs more compatible cells than this, itself included.
MIN_COMPATIBLE = 2


@dataclass(frozen=True)
class RigidityGraph:
    """Pairwise relations of U cells.

    Attributes:
        index: (U,) int64 into the cells of the frame.
        near: (U, U) bool: closer than the link distance.
        rigid: (U, U) bool: keep their distance from t to t+1.
        edges: (2, E) int64, pairs that touch in the image and in space, first index smaller.
        edge_strength: (E,) float, two-sided tail of the pair's distance in the image under the spatial model.
    """

    index: Tensor
    near: Tensor
    rigid: Tensor
    edges: Tensor
    edge_strength: Tensor


def two_sided_tail(deviation: Tensor) -> Tensor:
    """q(z) = 2 (1 - Phi(|z|)): how probable a larger deviation of one standard normal variable is."""
    tail: Tensor = torch.erfc(deviation.abs() / math.sqrt(2))
    return tail


def tail_probability(squared: Tensor) -> Tensor:
    """How probable a larger squared deviation of three standard normal variables is, in [0, 1]: the soft inlier.

    SF2SE3 multiplies the three one-dimensional tails, which calls four of ten exact inliers outliers at the
    usual threshold; this is the joint tail (chi-square with three degrees of freedom).
    """
    root = (squared / 2).clamp(min=0).sqrt()
    tail: Tensor = torch.erfc(root) + root * torch.exp(-(root**2)) * (2 / math.pi**0.5)
    return tail


def build_graph(
    cells: Cells, index: Tensor, std: Tensor, camera: Camera, settings: ClusteringSettings
) -> RigidityGraph:
    """Relate the cells ``index`` to each other.

    Distances may differ by the rigidity tolerance plus ``noise_factor`` standard deviations of what disparity
    noise does to them; with a factor of 0 the test is the published one.
    """
    first, second = cells.points[index], cells.points_next[index]
    distance, along, first_noise = _pairs(first, std, camera)
    distance_next, along_next, second_noise = _pairs(second, std, camera)
    factor = settings.noise_factor
    depth_gap = (along * distance).abs() - factor * first_noise
    lateral = (distance**2 - (along * distance) ** 2).clamp(min=0)
    near = lateral + depth_gap.clamp(min=0) ** 2 < settings.link_distance_m**2
    spread = (along * first_noise) ** 2 + (along_next * second_noise) ** 2
    # Pixel noise moves points sideways as well.
    sideways = std[0] / camera.focal_x * second[:, 2]
    spread = spread + sideways[:, None] ** 2 + sideways[None] ** 2
    rigid = (distance - distance_next).abs() < settings.rigidity_m + factor * spread.sqrt()
    width = cells.shape[1]
    row, column = cells.rows[index // width], cells.columns[index % width]
    row_gap, column_gap = (row[:, None] - row).abs(), (column[:, None] - column).abs()
    step = float(cells.rows[1] - cells.rows[0]) if len(cells.rows) > 1 else 1.0
    window = (settings.window_cells + 0.5) * step
    touching = ((row_gap < window) & (column_gap < window) & near).triu(1)
    edges = touching.nonzero().T
    strength = two_sided_tail(
        row_gap[edges[0], edges[1]] / camera.focal_y / settings.link_std
    ) * two_sided_tail(column_gap[edges[0], edges[1]] / camera.focal_x / settings.link_std)
    return RigidityGraph(index, near, rigid, edges, strength)


def _pairs(points: Tensor, std: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Distances, share of the distance along the depth, and standard deviation of the difference of depths."""
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    depth = points[:, 2]
    along = (depth[:, None] - depth) / distance.clamp(min=1e-6)
    noise = depth**2 / camera.disparity_scale * std[2]
    return distance, along, (noise[:, None] ** 2 + noise**2).sqrt()


def grow_clusters(
    graph: RigidityGraph, open_cells: Tensor, draws: Draws, settings: ClusteringSettings
) -> tuple[Tensor, Tensor]:
    """Draw small sets of cells that may move as one body.

    Args:
        graph: Relations of the U cells.
        open_cells: (n, U) bool, cells that no accepted motion of the run explains.
        draws: Random numbers.
        settings: Number and size of the sets, growth rule.

    Returns:
        Members (n, P, C) int64 into the U cells, and which of them count, (n, P, C) bool.

    Source:
        SF2SE3 grows a cluster by cells that are compatible with its members. Its paper means near one member
        and rigid with all; the released code does the reverse, which ``growth = "released"`` keeps for
        comparison.
    """
    size = open_cells.shape[1]
    both = (graph.near & graph.rigid).float()
    compatible = (open_cells.float() @ both) * open_cells
    seeds_allowed = compatible > MIN_COMPATIBLE
    index, usable = draws.subset(seeds_allowed, size)
    choice = draws.members(usable.sum(1), settings.proposals)
    seeds = index.gather(1, choice)
    alive = (usable.sum(1) > 0)[:, None].expand_as(seeds)
    order = draws.uniform(settings.proposals, size)
    members, counted = [seeds], [alive]
    near, rigid = graph.near[seeds], graph.rigid[seeds]
    free = open_cells[:, None] & alive[..., None]
    free = free.scatter(2, seeds[..., None], False)
    for _ in range(settings.proposal_points - 1):
        candidates = torch.where(near & rigid & free, order, -1.0)
        best = candidates.max(2)
        members.append(best.indices)
        counted.append(best.values >= 0)
        near_new, rigid_new = graph.near[best.indices], graph.rigid[best.indices]
        grown = counted[-1][..., None]
        if settings.growth == "released":
            near, rigid = near & (near_new | ~grown), rigid | (rigid_new & grown)
        else:
            near, rigid = near | (near_new & grown), rigid & (rigid_new | ~grown)
        free = free.scatter(2, best.indices[..., None], False)
    return torch.stack(members, 2), torch.stack(counted, 2)


def connected_parts(graph: RigidityGraph, soft: Tensor, hard: Tensor, tail: float) -> Tensor:
    """Spatially connected parts of each run's explained cells.

    Single linkage is the connected components of a thresholded graph; one sparse graph holds all runs.

    Args:
        graph: Relations of the U cells.
        soft: (n, U) float, soft inliers in [0, 1].
        hard: (n, U) bool, the cells to part.
        tail: Threshold of link strength times soft inlier.

    Returns:
        (n, U) int64, part of each cell, numbered from 0 within a run by decreasing size; -1 elsewhere.
    """
    runs, size = hard.shape
    first, second = graph.edges
    strongest = torch.maximum(soft[:, first], soft[:, second]) * graph.edge_strength
    kept = (strongest > tail) & hard[:, first] & hard[:, second]
    run, edge = (part.cpu().numpy() for part in kept.nonzero(as_tuple=True))
    rows = run * size + first.cpu().numpy()[edge]
    columns = run * size + second.cpu().numpy()[edge]
    adjacency = sparse.coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(runs * size,) * 2)
    _, labels = csgraph.connected_components(adjacency, directed=False)
    mask = hard.cpu().numpy().reshape(-1)
    parts = np.full(runs * size, -1, np.int64)
    names, inverse, counts = np.unique(labels[mask], return_inverse=True, return_counts=True)
    owner = np.zeros(len(names), np.int64)
    owner[inverse] = np.flatnonzero(mask) // size
    # Rank of a part within its run: by size, then by position, which makes it unique.
    order = np.lexsort((names, -counts, owner))
    rank = np.empty(len(names), np.int64)
    starts = np.searchsorted(owner[order], np.arange(runs))
    rank[order] = np.arange(len(names)) - starts[owner[order]]
    parts[mask] = rank[inverse]
    return torch.from_numpy(parts.reshape(runs, size)).to(hard.device)
