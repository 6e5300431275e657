"""SE(3), Kabsch and robust Gauss-Newton."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import expm

from gestalt.motion.cells import exact_precision
from gestalt.motion.geometry import Camera, project
from gestalt.motion.rigid_motion import (
    fit_kabsch,
    measurement_precision,
    motion_exp,
    motion_log,
    move,
    refine_motion,
    rotation_angle,
    rotation_exp,
    squared_deviation,
)

CAMERA = Camera(420.0, 420.0, 191.5, 80.0, 0.5)
STD = torch.tensor([0.5, 0.5, 0.5])


def scattered_points(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, size = torch.tensor([-4.0, -2.0, 6.0]), torch.tensor([8.0, 3.0, 20.0])
    return low + size * torch.rand(count, 3, generator=generator)


def test_the_exponential_agrees_with_the_matrix_exponential() -> None:
    twist = torch.tensor([0.3, -0.2, 0.9, 0.4, -0.7, 0.2], dtype=torch.float64)
    generator = torch.zeros(4, 4, dtype=torch.float64)
    x, y, z = twist[3:].tolist()
    generator[:3, :3] = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    generator[:3, 3] = twist[:3]
    assert torch.allclose(motion_exp(twist), torch.from_numpy(expm(generator.numpy())), atol=1e-12)


@pytest.mark.parametrize("size", [1e-7, 1e-3, 0.5, 2.5])
def test_the_logarithm_inverts_the_exponential(size: float) -> None:
    twists = size * torch.nn.functional.normalize(torch.randn(20, 6, dtype=torch.float64), dim=1)
    assert torch.allclose(motion_log(motion_exp(twists)), twists, atol=1e-8)


def test_rotation_angles_are_exact_near_zero_and_never_nan() -> None:
    for angle in (0.0, 1e-6, 1e-3, 1.0, 3.14159):
        rotation = rotation_exp(torch.tensor([0.0, angle, 0.0], dtype=torch.float64))
        assert float(rotation_angle(rotation)) == pytest.approx(angle, abs=1e-9)
    noisy = torch.eye(3) * 1.0000002
    assert bool(rotation_angle(noisy).isfinite())


def test_kabsch_recovers_known_motions_with_proper_rotations() -> None:
    motions = motion_exp(torch.randn(40, 6, dtype=torch.float64))
    points = torch.randn(40, 3, 3, dtype=torch.float64)
    found, determined = fit_kabsch(
        points, move(motions, points), torch.rand(40, 3, dtype=torch.float64) + 0.1
    )
    assert bool(determined.all())
    assert torch.allclose(found, motions, atol=1e-5)
    assert torch.allclose(torch.linalg.det(found[:, :3, :3]), torch.ones(40, dtype=torch.float64))


def test_two_points_and_points_on_a_line_determine_no_rotation() -> None:
    line = torch.linspace(0, 1, 5)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    shift = torch.tensor([0.5, 0.0, -1.0])
    for weights in (torch.ones(5), torch.tensor([1.0, 1, 0, 0, 0])):
        motion, determined = fit_kabsch(line, line + shift, weights)
        assert not bool(determined)
        assert torch.allclose(motion[:3, :3], torch.eye(3))
        assert torch.allclose(motion[:3, 3], shift, atol=1e-5)


def test_points_without_weight_do_not_count() -> None:
    points = scattered_points(6)
    motion = motion_exp(torch.tensor([0.4, 0.1, 0.3, 0.02, 0.1, 0.0]))
    target = move(motion, points)
    target[5] += 10
    found, _ = fit_kabsch(points, target, torch.tensor([1.0, 1, 1, 1, 1, 0]))
    assert torch.allclose(found, motion, atol=1e-4)


def test_gauss_newton_finds_the_motion_among_a_third_of_outliers() -> None:
    points = scattered_points(200).expand(4, -1, -1)
    motions = motion_exp(0.2 * torch.randn(4, 6, generator=torch.Generator().manual_seed(1)))
    measured = project(move(motions, points), CAMERA)
    measured[:, ::3] += 60
    start = motion_exp(motion_log(motions) + 0.02)
    precision = exact_precision(STD, (4, 200))
    for cutoff in (1000.0, 16.0):
        start = refine_motion(
            start, points, measured, torch.ones(4, 200), precision, CAMERA, iterations=8, cutoff=cutoff
        )
    assert torch.allclose(start, motions, atol=2e-3)


def test_a_motion_without_points_stays_where_it_was() -> None:
    start = motion_exp(torch.tensor([[0.1, 0, 0.5, 0, 0.1, 0]]))
    points = scattered_points(10)[None]
    found = refine_motion(
        start,
        points,
        project(points, CAMERA),
        torch.zeros(1, 10),
        exact_precision(STD, (1, 10)),
        CAMERA,
        iterations=3,
        cutoff=9.0,
        prior=torch.ones(6),
    )
    assert torch.equal(found, start)


def test_a_strong_prior_holds_the_rotation() -> None:
    points = scattered_points(3)[None]
    measured = project(points + torch.tensor([0.5, 0.0, 0.0]), CAMERA) + torch.randn(1, 3, 3)
    prior = torch.tensor([1e-2, 1e-2, 1e-2, 1e8, 1e8, 1e8])
    found = refine_motion(
        torch.eye(4)[None],
        points,
        measured,
        torch.ones(1, 3),
        exact_precision(STD, (1, 3)),
        CAMERA,
        iterations=6,
        cutoff=100.0,
        prior=prior,
    )
    assert float(rotation_angle(found[0, :3, :3])) < 1e-3
    assert float(found[0, 0, 3]) > 0.3


def test_one_motion_of_a_batch_does_not_change_another() -> None:
    points = torch.stack([scattered_points(50, seed) for seed in range(3)])
    motions = motion_exp(0.1 * torch.ones(3, 6))
    measured = project(move(motions, points), CAMERA)
    eye, weights = torch.eye(4).expand(3, 4, 4), torch.ones(3, 50)
    together = refine_motion(
        eye, points, measured, weights, exact_precision(STD, (3, 50)), CAMERA, iterations=4, cutoff=50.0
    )
    alone = refine_motion(
        eye[:1],
        points[1:2],
        measured[1:2],
        weights[:1],
        exact_precision(STD, (1, 50)),
        CAMERA,
        iterations=4,
        cutoff=50.0,
    )
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_deviations_of_gaussian_noise_follow_chi_square_with_three_degrees_of_freedom() -> None:
    generator = torch.Generator().manual_seed(0)
    count, first_std = 20000, torch.tensor(0.7)
    points = scattered_points(count)
    motion = motion_exp(torch.tensor([0.6, 0.0, -0.8, 0.0, 0.03, 0.0]))
    disparity = CAMERA.disparity_scale / points[:, 2]
    measured = project(move(motion, points), CAMERA) + torch.randn(count, 3, generator=generator) * STD
    noisy = disparity + first_std * torch.randn(count, generator=generator)
    shifted = points * (disparity / noisy)[:, None]
    precision = measurement_precision(motion, shifted, noisy, STD, first_std, CAMERA)
    deviation = squared_deviation(motion, shifted, measured, precision, CAMERA)
    assert float(deviation.mean()) == pytest.approx(3.0, rel=0.05)
    assert float((deviation > 7.815).float().mean()) == pytest.approx(0.05, abs=0.01)
    plain = squared_deviation(motion, shifted, measured, exact_precision(STD, (count,)), CAMERA)
    assert float(plain.mean()) > 4.5
    whitened = precision.whiten(project(move(motion, shifted), CAMERA) - measured).square().sum(-1)
    assert torch.allclose(whitened, deviation, rtol=1e-3, atol=1e-3)
