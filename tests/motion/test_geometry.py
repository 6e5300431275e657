"""Projection and its inverse."""

from __future__ import annotations

import torch

from gestalt.matching.warping import pixel_grid
from gestalt.motion.geometry import Camera, back_project, project

CAMERA = Camera(420.0, 410.0, 191.5, 80.0, 0.5)


def test_projection_inverts_back_projection() -> None:
    pixels = pixel_grid(20, 30).permute(1, 2, 0)
    disparity = torch.rand(20, 30) * 40 + 1
    measured = project(back_project(pixels, disparity, CAMERA), CAMERA)
    assert torch.allclose(measured[..., :2], pixels, atol=1e-4)
    assert torch.allclose(measured[..., 2], disparity, rtol=1e-5)


def test_scaling_images_and_intrinsics_keeps_metric_points() -> None:
    scale = 2.5
    larger = Camera(*(value * scale for value in (420.0, 410.0, 191.5, 80.0)), stereo_baseline=0.5)
    pixels, disparity = torch.rand(50, 2) * 300, torch.rand(50) * 30 + 2
    here = back_project(pixels, disparity, CAMERA)
    there = back_project(pixels * scale, disparity * scale, larger)
    assert torch.allclose(here, there, rtol=1e-4)
