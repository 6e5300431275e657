"""Two views without depth: exact motions are recovered, and what a standing scene may do is what geometry says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from gestalt.motion.camera_motion import fit_homography, fit_rotation, transfer
from gestalt.motion.epipolar import (
    decompose,
    eight_point,
    homogeneous,
    line_residual,
    refine_epipolar,
    tangent_basis,
)
from gestalt.motion.flow_cells import FlowCells
from gestalt.motion.parallax import PARALLAX, ROTATION, CameraMotions, find_ceiling, orient

SCALE = torch.tensor([400.0, 400.0], dtype=torch.float64)


def scene(seed: int = 0, n: int = 60, angle: float = 0.03) -> tuple[torch.Tensor, ...]:
    """Rotation, unit translation, directions at t and t+1 and nearness of random standing points."""
    random = np.random.default_rng(seed)
    rotation = torch.from_numpy(Rotation.from_rotvec(angle * random.standard_normal(3)).as_matrix())
    translation = random.standard_normal(3) * [0.3, 0.1, 0.3] + [0, 0, -1]
    translation = torch.from_numpy(translation / np.linalg.norm(translation))
    rays = torch.from_numpy(random.uniform([-0.45, -0.2], [0.45, 0.2], (n, 2)))
    nearness = torch.from_numpy(random.uniform(0.02, 0.3, n))
    moved = homogeneous(rays) @ rotation.T + nearness[:, None] * translation
    return rotation, translation, rays, moved[:, :2] / moved[:, 2:], nearness


def angle_between(first: torch.Tensor, second: torch.Tensor) -> float:
    return math.acos(min(1.0, abs(float(first @ second))))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_eight_exact_points_give_the_motion(seed: int) -> None:
    _, _, rays, targets, _ = scene(seed, n=8)
    found, along = eight_point(rays, targets)
    essential = _skew(along) @ found
    residual = ((homogeneous(targets) @ essential) * homogeneous(rays)).sum(1).abs()
    # Eight points can leave a second motion that fits them, and always fit the one that is found.
    assert float(residual.max()) < 1e-6


def _skew(t: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[0.0, -t[2], t[1]], [t[2], 0.0, -t[0]], [-t[1], t[0], 0.0]], dtype=torch.float64)


def test_many_exact_points_give_rotation_and_direction() -> None:
    rotation, translation, rays, targets, _ = scene()
    found, along = eight_point(rays, targets)
    assert torch.allclose(found, rotation, atol=1e-8)
    assert angle_between(along, translation) < 1e-6


def test_hypotheses_are_independent_of_their_batch() -> None:
    batch = [scene(seed, n=12)[2:4] for seed in range(4)]
    rays, targets = (torch.stack(parts) for parts in zip(*batch, strict=True))
    rotations, translations = eight_point(rays, targets)
    for index, (one_rays, one_targets) in enumerate(batch):
        rotation, translation = eight_point(one_rays, one_targets)
        assert torch.allclose(rotations[index], rotation, atol=1e-9)
        assert angle_between(translations[index], translation) < 1e-6


def test_of_the_two_rotations_the_smaller_is_taken() -> None:
    rotation, translation, *_ = scene()
    for sign in (1, -1):
        found, _ = decompose(sign * _skew(translation) @ rotation)
        assert torch.allclose(found, rotation, atol=1e-9)
        assert float(torch.linalg.det(found)) == pytest.approx(1)


def test_distance_of_a_sideways_camera_is_the_difference_of_rows() -> None:
    # A camera that moves along x sees every standing point on its own row.
    rays = torch.tensor([[0.1, 0.2], [-0.3, 0.0]], dtype=torch.float64)
    targets = torch.tensor([[0.0, 0.21], [-0.5, -0.02]], dtype=torch.float64)
    scale = torch.tensor([100.0, 300.0], dtype=torch.float64)
    translation = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    residual = line_residual(torch.eye(3, dtype=torch.float64), translation, rays, targets, scale)
    assert residual.abs().tolist() == pytest.approx([3.0, 6.0])


def test_refinement_finds_the_optimum_of_an_independent_solver() -> None:
    rotation, translation, rays, targets, _ = scene(3)
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(targets.shape)) / SCALE
    noisy = targets + noise
    basis = tangent_basis(translation)

    def residuals(x: np.ndarray) -> np.ndarray:
        turned = torch.from_numpy(Rotation.from_rotvec(x[:3]).as_matrix()) @ rotation
        along = torch.nn.functional.normalize(translation + basis @ torch.from_numpy(x[3:]), dim=0)
        return line_residual(turned, along, rays, noisy, SCALE).numpy()

    reference = least_squares(residuals, np.zeros(5), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    start = torch.from_numpy(Rotation.from_rotvec([0.004, -0.005, 0.003]).as_matrix()) @ rotation
    found, along = refine_epipolar(
        start, translation, rays, noisy, torch.ones(len(rays)).double(), SCALE, iterations=40, cutoff=1e9
    )
    cost = float(line_residual(found, along, rays, noisy, SCALE).square().sum())
    # Gauss-Newton takes the length of a line as fixed within a step, which moves its optimum by very little.
    assert cost == pytest.approx(2 * reference.cost, rel=2e-3)


def test_refinement_ignores_what_moves() -> None:
    rotation, translation, rays, targets, _ = scene(5, n=200)
    targets[:60] += torch.tensor([0.03, 0.05], dtype=torch.float64)
    start = torch.from_numpy(Rotation.from_rotvec([0.001, 0.001, -0.001]).as_matrix()) @ rotation
    errors = {}
    for cutoffs in ((100.0, 25.0, 9.0, 4.0), (1e9,)):
        found, along = start, translation
        for cutoff in cutoffs:
            found, along = refine_epipolar(
                found, along, rays, targets, torch.ones(200).double(), SCALE, iterations=10, cutoff=cutoff
            )
        errors[cutoffs] = float((found - rotation).abs().max())
    robust, plain = errors.values()
    assert robust < 5e-4
    assert plain > 10 * robust


def test_a_step_that_is_not_finite_keeps_the_start() -> None:
    rotation, translation, rays, targets, _ = scene()
    weights = torch.zeros(len(rays)).double()
    found, along = refine_epipolar(
        rotation,
        translation,
        rays,
        torch.full_like(targets, torch.nan),
        weights,
        SCALE,
        iterations=2,
        cutoff=9,
    )
    assert torch.equal(found, rotation)
    assert torch.allclose(along, translation)


def test_rotation_of_directions_is_that_of_scipy() -> None:
    random = np.random.default_rng(2)
    rays = random.uniform(-0.4, 0.4, (30, 2))
    exact = Rotation.from_rotvec([0.02, -0.05, 0.01])
    turned = exact.apply(np.c_[rays, np.ones(30)])
    targets = turned[:, :2] / turned[:, 2:] + 1e-3 * random.standard_normal((30, 2))
    weights = random.uniform(0.1, 1, 30)
    found = fit_rotation(*(torch.from_numpy(array) for array in (rays, targets, weights)))

    def unit(x: np.ndarray) -> np.ndarray:
        ray = np.c_[x, np.ones(len(x))]
        return ray / np.linalg.norm(ray, axis=1, keepdims=True)

    reference, _ = Rotation.align_vectors(unit(targets), unit(rays), weights=weights)
    assert np.allclose(found.numpy(), reference.as_matrix(), atol=1e-9)


def test_homography_of_four_points_carries_others() -> None:
    exact = torch.tensor([[1.02, 0.03, 0.01], [-0.02, 0.97, -0.03], [0.05, 0.02, 1.0]], dtype=torch.float64)
    rays = torch.from_numpy(np.random.default_rng(0).uniform(-0.4, 0.4, (20, 2)))
    targets = transfer(exact, rays)
    found = fit_homography(rays[:4], targets[:4], torch.ones(4).double())
    assert torch.allclose(transfer(found, rays), targets, atol=1e-8)


def motions_of(rotation: torch.Tensor, translation: torch.Tensor) -> CameraMotions:
    return CameraMotions(PARALLAX, rotation[None].float(), translation[None].float(), SCALE.float())


def test_every_standing_point_is_possible_and_its_nearness_known() -> None:
    rotation, translation, rays, targets, nearness = scene(7)
    motions = CameraMotions(PARALLAX, rotation[None], translation[None], SCALE)
    assert float(motions.deviation(rays, targets).max()) < 1e-9
    found, std = motions.nearness(rays, targets)
    assert torch.allclose(found[0], nearness, atol=1e-9)
    # One standard deviation further along the line is one standard deviation nearer, to first order.
    far = transfer(rotation, rays)
    along = ((targets - far) * SCALE).norm(dim=1, keepdim=True)
    shifted, _ = motions.nearness(rays, far + (targets - far) * (1 + 0.01 / along))
    assert torch.allclose((shifted - found)[0] / 0.01, std[0], rtol=1e-3)
    assert bool((std > 0).all())


def test_points_behind_the_camera_are_impossible() -> None:
    rotation, translation, rays, _, nearness = (part.float() for part in scene(7))
    motions = motions_of(rotation, translation)
    behind = homogeneous(rays) @ rotation.T - nearness[:, None] * translation
    targets = behind[:, :2] / behind[:, 2:]
    far = transfer(rotation, rays)
    expected = ((targets - far) * SCALE.float()).square().sum(1)
    assert torch.allclose(motions.deviation(rays, targets)[0], expected, rtol=1e-3, atol=1e-2)


def cells_of(rays: torch.Tensor, targets: torch.Tensor, shape: tuple[int, int]) -> FlowCells:
    return FlowCells(
        shape, 1.0, rays * 100, rays, targets, (targets - rays) * 100, torch.ones(len(rays), dtype=torch.bool)
    )


def test_the_way_along_the_translation_is_found() -> None:
    rotation, translation, rays, targets, _ = (part.float() for part in scene(7))
    cells = cells_of(rays, targets, (1, len(rays)))
    backwards = motions_of(rotation, -translation)
    found = orient(backwards, cells, torch.ones(len(rays)), cutoff=9.0)
    assert torch.allclose(found.translations[0], translation, atol=1e-6)


def test_without_parallax_everything_goes_to_one_place() -> None:
    rotation = torch.from_numpy(Rotation.from_rotvec([0.0, 0.05, 0.0]).as_matrix()).float()
    motions = CameraMotions(ROTATION, rotation[None], torch.zeros(1, 3), SCALE.float())
    rays = torch.tensor([[0.0, 0.0], [0.2, 0.1]])
    predicted = motions.explain(rays, torch.rand(2, 2))[0]
    assert predicted[0].tolist() == pytest.approx([math.tan(0.05), 0.0], abs=1e-6)


def column(nearness: list[float]) -> tuple[CameraMotions, FlowCells, torch.Tensor]:
    """Three columns of a camera that drives ahead over ground of nearness y / 0.5: cells from horizon to bonnet."""
    rows = torch.linspace(0.05, 0.5, len(nearness))
    rays = torch.stack(torch.meshgrid(torch.tensor([-0.1, 0.0, 0.1]), rows, indexing="xy"), -1).flatten(0, 1)
    translation = torch.tensor([0.0, 0.0, -0.2])
    ahead = translation / translation.norm()
    seen = torch.tensor(nearness).repeat_interleave(3)
    moved = homogeneous(rays) + seen[:, None] * ahead
    scale = torch.full((2,), 1e4)
    ground = torch.tensor([0.0, 1.0, 0.0])
    motions = CameraMotions(PARALLAX, torch.eye(3)[None], ahead[None], scale, ground, 0.1)
    return motions, cells_of(rays, moved[:, :2] / moved[:, 2:], (len(nearness), 3)), seen


def test_what_lies_under_the_ground_is_impossible() -> None:
    rows = torch.linspace(0.05, 0.5, 10).tolist()
    sunk = [0.6 * row for row in rows]
    motions, cells, _ = column(sunk)
    assert bool((motions.deviation(cells.rays, cells.targets) > 9).all())
    assert float(replace(motions, ground=None).deviation(cells.rays, cells.targets).max()) < 1e-2


def test_what_floats_before_the_ground_is_impossible_and_what_stands_on_it_is_not() -> None:
    rows = torch.linspace(0.05, 0.5, 10).tolist()
    standing = [rows[6]] * 7 + rows[7:]
    floating = [2 * rows[6]] * 7 + rows[7:]
    for nearness, is_possible in ((standing, True), (floating, False)):
        motions, cells, _ = column(nearness)
        ceiling = find_ceiling(motions, cells, overhang=0.25)
        assert ceiling is not None
        deviation = motions.deviation(cells.rays, cells.targets, ceiling)[0].view(10, 3)
        # Rows within the window of the foot have no verdict yet.
        assert bool((deviation[:5] < 9).all()) is is_possible
        assert bool((deviation[8:] < 9).all())


def test_without_a_ground_there_is_no_ceiling() -> None:
    motions, cells, _ = column([0.1] * 10)
    assert find_ceiling(replace(motions, ground=None), cells, 0.25) is None
