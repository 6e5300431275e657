"""Soft inliers, growth of clusters, connected parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from scipy import ndimage, stats

from gestalt.config.motion import MotionSettings
from gestalt.motion.cells import Cells
from gestalt.motion.draws import Draws
from gestalt.motion.geometry import Camera, back_project, project
from gestalt.motion.rigidity_graph import (
    RigidityGraph,
    build_graph,
    connected_parts,
    grow_clusters,
    tail_probability,
    two_sided_tail,
)

CAMERA = Camera(100.0, 100.0, 15.5, 11.5, 0.5)
STD = torch.full((3,), 0.1)


def two_bodies() -> Cells:
    """A wall of 12 x 16 cells whose right half moves sideways by half a metre."""
    height, width = 12, 16
    rows, columns = torch.arange(height) * 2, torch.arange(width) * 2
    y, x = torch.meshgrid(rows.float(), columns.float(), indexing="ij")
    pixels = torch.stack([x.flatten(), y.flatten()], 1)
    disparity = torch.full((height * width,), 10.0)
    points = back_project(pixels, disparity, CAMERA)
    moved = points.clone()
    moved[pixels[:, 0] >= 16, 0] += 0.5
    yes = torch.ones(len(points), dtype=torch.bool)
    return Cells((height, width), rows, columns, points, moved, project(moved, CAMERA), disparity, yes, yes)


def test_soft_inliers_are_tails_in_zero_one() -> None:
    squared = torch.linspace(0, 40, 50)
    ours = tail_probability(squared)
    assert torch.allclose(ours, torch.from_numpy(stats.chi2.sf(squared.numpy(), 3)).float(), atol=1e-5)
    assert float(tail_probability(torch.tensor(0.0))) == 1
    assert float(two_sided_tail(torch.tensor(2.0))) == pytest.approx(0.0455, abs=1e-4)


def test_released_and_intended_growth_differ_as_described(settings: MotionSettings) -> None:
    # Cells 0-1-2 form a chain: neighbours are near, all are rigid. Cell 3 is near all and rigid with 0 only.
    near = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    rigid = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 1]]).bool()
    graph = RigidityGraph(torch.arange(4), near, rigid, torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0))
    found = {}
    for growth in ("intended", "released"):
        options = dataclasses.replace(settings.clustering, growth=growth, proposals=200, proposal_points=4)
        draws = Draws(0, "frame", 1, torch.device("cpu"))
        members, counted = grow_clusters(graph, torch.ones(1, 4, dtype=torch.bool), draws, options)
        found[growth] = {frozenset(m[c].tolist()) for m, c in zip(members[0], counted[0], strict=True)}
    assert frozenset({0, 1, 2}) in found["intended"]
    assert not any({1, 3} <= cluster or {2, 3} <= cluster for cluster in found["intended"])
    assert not any({0, 2} <= cluster for cluster in found["released"])
    assert any({1, 3} <= cluster for cluster in found["released"])


def test_clusters_never_mix_two_bodies_and_never_repeat_a_cell(settings: MotionSettings) -> None:
    cells = two_bodies()
    # A pair across the bodies keeps its distance only by chance of direction, so the tolerance is exact here.
    options = dataclasses.replace(
        settings.clustering, rigidity_m=0.004, noise_factor=0.0, link_distance_m=1.5
    )
    graph = build_graph(cells, torch.arange(len(cells)), STD, CAMERA, options)
    draws = Draws(0, "frame", 2, torch.device("cpu"))
    members, counted = grow_clusters(graph, cells.reliable.expand(2, -1), draws, options)
    right = cells.columns[members % 16] >= 16
    assert bool(counted.all(2).any())
    complete = counted.sum(2) >= 6
    mixed = (right & counted).any(2) & (~right & counted).any(2)
    assert float((mixed & complete).float().sum() / complete.sum()) < 0.05
    for proposal, alive in zip(members[0], counted[0], strict=True):
        chosen = proposal[alive].tolist()
        assert len(set(chosen)) == len(chosen)


def test_closed_cells_are_never_drawn(settings: MotionSettings) -> None:
    cells = two_bodies()
    graph = build_graph(cells, torch.arange(len(cells)), STD, CAMERA, settings.clustering)
    open_cells = torch.zeros(2, len(cells), dtype=torch.bool)
    open_cells[0, :40] = True
    members, counted = grow_clusters(
        graph, open_cells, Draws(0, "f", 2, torch.device("cpu")), settings.clustering
    )
    assert int(members[0][counted[0]].max()) < 40
    assert not bool(counted[1].any())


def test_connected_parts_agree_with_image_labelling(settings: MotionSettings) -> None:
    cells = two_bodies()
    options = dataclasses.replace(settings.clustering, window_cells=1, link_std=10.0)
    graph = build_graph(cells, torch.arange(len(cells)), STD, CAMERA, options)
    hard = torch.rand(5, len(cells), generator=torch.Generator().manual_seed(2)) < 0.4
    parts = connected_parts(graph, torch.ones(hard.shape), hard, 0.01)
    for run in range(5):
        labels, count = ndimage.label(hard[run].view(12, 16).numpy(), torch.ones(3, 3).numpy())
        mine = parts[run].view(12, 16).numpy()
        assert (mine >= 0).tolist() == (labels > 0).tolist()
        pairs = {(int(a), int(b)) for a, b in zip(mine[labels > 0], labels[labels > 0], strict=True)}
        assert len(pairs) == count == len({a for a, _ in pairs})
        sizes = [int((mine == part).sum()) for part in range(count)]
        assert sizes == sorted(sizes, reverse=True)
