"""The network as its own teacher."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gestalt.config.optical_flow import SelfSupervisionSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError
from gestalt.matching.self_supervision import (
    self_supervision_loss,
    student_displacements,
    student_view,
    teaching_weight,
    trust,
)
from gestalt.matching.warping import pixel_grid


@pytest.fixture(scope="module")
def own() -> SelfSupervisionSettings:
    settings: SelfSupervisionSettings = default_settings("optical_flow", "paper").self_supervision
    return dataclasses.replace(settings, margin_px=4)


def test_the_student_sees_the_middle_at_the_size_of_the_whole() -> None:
    x = pixel_grid(24, 32)[None, :1]
    seen = student_view(x, 4)
    assert seen.shape == x.shape
    # 24 columns from 4 to 27 become 32: pixel centres are half a pixel off the edges.
    expected = 4 + (torch.arange(32) + 0.5) * 24 / 32 - 0.5
    assert torch.allclose(seen[0, 0, 5, 1:-1], expected[1:-1], atol=1e-5)
    assert torch.equal(student_view(x, 0), x)


def test_displacements_are_those_between_the_student_views() -> None:
    """An affine motion, seen by the student: what is at p in its first view is at p + d in its second."""
    x, y = pixel_grid(24, 32)
    optical_flow = torch.stack([1 + 0.1 * x, 0.5 - 0.05 * y])[None]
    seen = student_displacements(optical_flow, 4)[0]
    position = pixel_grid(24, 32)
    scale = torch.tensor([32 / 24, 24 / 16]).view(2, 1, 1)

    def to_view(points: torch.Tensor) -> torch.Tensor:
        return (points - 4 + 0.5) * scale - 0.5

    whole = (position + 0.5) / scale - 0.5 + 4
    moved = whole + torch.stack([1 + 0.1 * whole[0], 0.5 - 0.05 * whole[1]])
    expected = to_view(moved) - position
    assert torch.allclose(seen[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4)


def test_trust_falls_with_the_round_trip_and_outside() -> None:
    forward = torch.zeros(1, 2, 30, 40)
    backward = forward.clone()
    backward[:, 0] = 1.5  # a share of 0.03 of the diagonal of 50
    assert torch.allclose(trust(forward, backward, 0.03), torch.full((1, 30, 40), np.exp(-1.0)), atol=1e-6)
    forward[:, 0] = 10
    assert float(trust(forward, -forward, 0.03)[0, :, 30:].max()) == 0
    assert float(trust(forward, -forward, 0.03)[0, :, :30].min()) == 1


def test_the_weight_starts_late_and_rises_linearly(own: SelfSupervisionSettings) -> None:
    found = [teaching_weight(step, own) for step in (0, 31250, 34375, 37500, 75000)]
    assert np.allclose(found, [0, 0, 0.15, 0.3, 0.3])
    assert teaching_weight(7, dataclasses.replace(own, start_step=7, ramp_steps=0)) == 0


def test_a_trusted_teacher_corrects_an_unsure_student_only(own: SelfSupervisionSettings) -> None:
    taught, student = torch.full((1, 2, 30, 40), 2.0), torch.zeros(1, 2, 30, 40)
    sure, unsure = torch.zeros(1, 2, 30, 40), torch.full((1, 2, 30, 40), 50.0)
    believed = torch.ones(1, 30, 40)
    assert np.isclose(float(self_supervision_loss(taught, believed, student, unsure, own)), 2, atol=2e-3)
    assert float(self_supervision_loss(taught, believed, student, sure, own)) == 0
    assert float(self_supervision_loss(taught, 0 * believed, student, unsure, own)) == 0
    assert float(self_supervision_loss(student, believed, student, unsure, own)) == 0


def test_no_gradient_reaches_the_teacher(own: SelfSupervisionSettings) -> None:
    weights = [torch.ones(1, 2, 8, 8, requires_grad=True) for _ in range(3)]
    taught, student, reverse = weights
    believed = torch.ones(1, 8, 8, requires_grad=True)
    self_supervision_loss(2 * taught, believed, 3 * student, 9 * reverse, own).backward()
    assert taught.grad is None
    assert believed.grad is None
    assert reverse.grad is None  # it only enters the weight
    assert student.grad is not None
    assert float(student.grad.abs().sum()) > 0


def test_a_margin_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin_px"):
        student_view(torch.zeros(1, 1, 16, 32), 8)
