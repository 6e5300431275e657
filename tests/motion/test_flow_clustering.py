"""Affine pieces of one body: what touches and moves alike is joined, what does not stays apart."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gestalt.config.motion import MonocularSettings, MotionSettings
from gestalt.motion.draws import Draws
from gestalt.motion.flow_cells import FlowCells
from gestalt.motion.flow_clustering import (
    PIECES,
    FlowClustering,
    FlowModels,
    affine_flow,
    fit_affine,
    flow_deviation,
    piece_deviation,
)

SHAPE, STEP, RUNS = (20, 40), 4.0, 3
STD = torch.tensor([0.3, 0.3])


@pytest.fixture(scope="module")
def monocular(settings: MotionSettings) -> MonocularSettings:
    return dataclasses.replace(settings.monocular, min_gain=0.01)


def cells_of(flow: torch.Tensor) -> FlowCells:
    """Cells of an (h, w, 2) optical flow."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in SHAPE), indexing="ij")
    pixels = torch.stack([columns, rows], -1).flatten(0, 1) * STEP
    values = flow.flatten(0, 1)
    reliable = torch.ones(len(pixels), dtype=torch.bool)
    return FlowCells(SHAPE, STEP, pixels, pixels / 100, (pixels + values) / 100, values, reliable)


def cluster(flow: torch.Tensor, moving: torch.Tensor, settings: MonocularSettings) -> FlowModels:
    cells = cells_of(flow)
    outliers = moving.flatten().expand(RUNS, -1)
    clustering = FlowClustering(cells, outliers, STD, int(SHAPE[0] * STEP), settings)
    return clustering.run(Draws(0, "cells", RUNS, cells.device))


def two_faces(jump: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A front that translates and a side whose flow falls off from the common edge, after a jump."""
    flow, moving = torch.zeros(*SHAPE, 2), torch.zeros(SHAPE, dtype=torch.bool)
    moving[5:15, 8:28] = True
    flow[5:15, 8:18, 0] = 20.0
    flow[5:15, 18:28, 0] = 20.0 - jump - 0.8 * torch.arange(10.0)
    return flow, moving


def test_faces_that_meet_in_an_edge_are_one_object(monocular: MonocularSettings) -> None:
    flow, moving = two_faces(jump=0.4)
    found = cluster(flow, moving, monocular)
    assert found.run.tolist() == list(range(RUNS))
    for support in found.support:
        assert (support & moving.flatten()).sum() > 0.9 * moving.sum()
    cells = cells_of(flow)
    deviation = piece_deviation(found.motions, cells.pixels, cells.flow, STD)
    assert float(deviation[:, moving.flatten()].median(1).values.max()) < 9


def test_neighbours_that_move_differently_stay_two(monocular: MonocularSettings) -> None:
    flow, moving = two_faces(jump=12.0)
    found = cluster(flow, moving, monocular)
    assert sorted(found.run.tolist()) == sorted([*range(RUNS), *range(RUNS)])
    assert not (found.support[0] & found.support[1:][found.run[1:] == found.run[0]]).any()


def test_nothing_unexplained_gives_no_motion(monocular: MonocularSettings) -> None:
    flow, moving = two_faces(jump=0.0)
    found = cluster(flow, torch.zeros_like(moving), monocular)
    assert found.motions.shape == (0, PIECES, 2, 3)
    assert found.support.shape == (0, SHAPE[0] * SHAPE[1])


def test_scattered_cells_are_no_object(monocular: MonocularSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    flow = torch.rand(*SHAPE, 2, generator=generator) * 60
    moving = torch.rand(SHAPE, generator=generator) < 0.1
    assert len(cluster(flow, moving, monocular).run) == 0


def test_no_more_motions_are_kept_than_allowed(monocular: MonocularSettings) -> None:
    flow, moving = two_faces(jump=12.0)
    found = cluster(flow, moving, dataclasses.replace(monocular, max_models=1))
    assert sorted(found.run.tolist()) == list(range(RUNS))


def test_affine_flow_is_fitted_exactly_and_a_prior_keeps_few_cells_translating() -> None:
    exact = torch.tensor([[0.02, -0.01, 3.0], [0.005, 0.03, -1.0]])
    pixels = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 100
    flow = affine_flow(exact, pixels)
    assert torch.allclose(fit_affine(pixels, flow, torch.ones(40), 1e-6), exact, atol=1e-3)
    # Cells on one spot say nothing about stretch.
    spot = pixels[:1].expand(5, 2)
    found = fit_affine(spot, flow[:1].expand(5, 2), torch.ones(5), 1.0)
    assert torch.allclose(found[:, :2], torch.zeros(2, 2), atol=1e-6)
    assert torch.allclose(affine_flow(found, spot), flow[:1].expand(5, 2), atol=1e-5)


def test_deviation_is_in_variances_and_of_the_best_piece() -> None:
    still = torch.zeros(2, 3)
    moving = still.clone()
    moving[0, 2] = 3.0
    pixels, flow = torch.zeros(1, 2), torch.tensor([[3.0, 0.6]])
    assert flow_deviation(still, pixels, flow, STD).tolist() == pytest.approx([100 + 4])
    both = torch.stack([still, moving])
    assert piece_deviation(both, pixels, flow, STD).tolist() == pytest.approx([4])
