"""The camera's motion from optical flow alone: standing, turning, before one plane, or driving through depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.config.motion import MonocularSettings
from gestalt.motion.draws import Draws
from gestalt.motion.epipolar import EIGHT, eight_point, homogeneous, line_residual, refine_epipolar
from gestalt.motion.flow_cells import FlowCells, View
from gestalt.motion.parallax import (
    GROUND_PROPOSALS,
    PARALLAX,
    PLANE,
    ROTATION,
    STANDING,
    CameraMotions,
    find_ground,
    orient,
)

# Cells that refine and that judge; more change nothing visible and cost time.
REFINING_CELLS, JUDGING_CELLS = 1500, 400
# Hypotheses of each run, and the best of them that are refined.
PROPOSALS, FINALISTS = 96, 4
# Points behind a homography and a rotation.
FOUR, TWO = 4, 2
# A hypothesis from few noisy points is judged with this many times the noise.
JUDGING_SLACK = 3.0
# Squared deviations at which robust weights fall, from coarse to fine, and steps at each.
CUTOFFS, STEPS = (100.0, 25.0, 9.0), 4
# GRIC: dimension of the data (two directions), dimension of the model's variety and number of parameters.
DATA_DIMENSION = 4
VARIETY = {STANDING: 2, ROTATION: 2, PLANE: 2, PARALLAX: 3}
PARAMETERS = {STANDING: 0, ROTATION: 3, PLANE: 8, PARALLAX: 5}
OUTLIER_FACTOR = 2.0


@dataclass(frozen=True, eq=False)
class FoundMotion:
    """The camera motion that all runs go on from.

    Attributes:
        motions: One per run.
        deviation: (n, N) float, squared deviation of every cell.
        shares: (n,) float, share of the reliable cells that each explains.
    """

    motions: CameraMotions
    deviation: Tensor
    shares: Tensor

    @property
    def best(self) -> CameraMotions:
        """That of the run which explains most, as n = 1."""
        return self.motions.select(int(self.shares.argmax()))


def find_camera_motion(
    cells: FlowCells,
    allowed: Tensor,
    draws: Draws,
    view: View,
    inlier_limit: float,
    settings: MonocularSettings,
) -> FoundMotion:
    """Fit every kind of camera motion and keep the one that says most with least.

    Args:
        cells: Measurements.
        allowed: (n, N) bool, the reliable cells that each run may use.
        draws: Random numbers.
        view: The camera.
        inlier_limit: Squared deviation up to which a cell is explained.
        settings: Section ``motion.monocular``.

    Source:
        The choice is GRIC (Torr, IJCV 2002): deviations, each at most as bad as an outlier, plus a price for
        the freedom of every point (a depth each with parallax, none without) and for the parameters.
    """
    index, usable = draws.subset(allowed, REFINING_CELLS)
    fitter = _Fitter(cells, index, usable, draws, view.scale)
    fitted = [fitter.standing(), fitter.rotation(), fitter.plane(), fitter.parallax()]
    scores = torch.stack([_gric(motions, cells) for motions in fitted])
    motions = fitted[int(scores.argmin())]
    if motions.kind == PARALLAX and settings.ground_share > 0:
        ground = find_ground(
            motions.select(0), cells, view, draws.uniform(GROUND_PROPOSALS, 3)[0], settings.ground_share
        )
        motions = replace(motions, ground=ground, ground_slack=settings.ground_slack)
    deviation = motions.deviation(cells.rays, cells.targets)
    explained = (deviation < inlier_limit) & cells.reliable
    shares = explained.sum(1) / cells.reliable.sum().clamp(min=1)
    return FoundMotion(motions, deviation, shares)


def _gric(motions: CameraMotions, cells: FlowCells) -> Tensor:
    """0-d float: GRIC of the best run's motion over all reliable cells."""
    dimension, parameters = VARIETY[motions.kind], PARAMETERS[motions.kind]
    deviation = motions.deviation(cells.rays, cells.targets)
    capped = deviation.clamp(max=OUTLIER_FACTOR * (DATA_DIMENSION - dimension)) * cells.reliable
    n = max(1, int(cells.reliable.sum()))
    freedom = math.log(DATA_DIMENSION) * dimension * n + math.log(DATA_DIMENSION * n) * parameters
    return capped.sum(1).min() + freedom


class _Fitter:
    """Fits each kind of motion to the same sample of cells of each run."""

    def __init__(self, cells: FlowCells, index: Tensor, usable: Tensor, draws: Draws, scale: Tensor) -> None:
        self._cells, self._draws, self._scale = cells, draws, scale
        self._rays, self._targets = cells.rays[index], cells.targets[index]
        self._weights, self._sizes = usable.float(), usable.sum(1)
        self._run = torch.arange(len(index), device=index.device)[:, None]

    def standing(self) -> CameraMotions:
        """The camera that does not move."""
        identity = torch.eye(3, device=self._rays.device).expand(len(self._rays), 3, 3)
        return self._of(STANDING, identity)

    def rotation(self) -> CameraMotions:
        """The camera that only turns: rotations of two points each, then robust Procrustes."""
        first, second = self._draw(TWO)
        proposed = fit_rotation(first, second, torch.ones_like(first[..., 0]))
        return self._best(ROTATION, proposed, fit_rotation)

    def plane(self) -> CameraMotions:
        """One plane before a moving camera: homographies of four points each, then robust least squares."""
        first, second = self._draw(FOUR)
        proposed = fit_homography(first, second, torch.ones_like(first[..., 0]))
        return self._best(PLANE, proposed, fit_homography)

    def parallax(self) -> CameraMotions:
        """The camera that drives through depth: essential matrices of eight points each, then epipolar lines."""
        rotation, translation = eight_point(*self._draw(EIGHT))
        # Short parallax determines eight points' motion badly; most cameras look where they drive.
        ahead = torch.zeros_like(translation[:, :1])
        ahead[..., 2] = -1
        translation = torch.cat([translation, ahead], 1)
        rotation = torch.cat([rotation, torch.eye(3, device=ahead.device).expand(len(ahead), 1, 3, 3)], 1)
        judges = slice(0, JUDGING_CELLS)
        residual = line_residual(
            rotation,
            translation,
            self._rays[:, None, judges],
            self._targets[:, None, judges],
            self._scale / JUDGING_SLACK,
        )
        loss = (residual.square().clamp(max=CUTOFFS[-1]) * self._weights[:, None, judges]).sum(-1)
        chosen = loss.topk(min(FINALISTS, loss.shape[1]), dim=1, largest=False).indices
        rotation, translation = rotation[self._run, chosen], translation[self._run, chosen]
        rotation, translation = self._refine(rotation, translation, CUTOFFS)
        motions = self._of(PARALLAX, rotation.flatten(0, 1), translation.flatten(0, 1))
        weights = self._cells.reliable.float()
        motions = orient(motions, self._cells, weights, CUTOFFS[-1])
        loss = motions.deviation(self._cells.rays, self._cells.targets).clamp(max=CUTOFFS[-1]) @ weights
        best = loss.argmin()
        # An object and the street can share a false motion that some runs fall for: all go on from the best.
        runs = len(self._rays)
        rotation = motions.homographies[best].expand(runs, 1, 3, 3)
        translation = motions.translations[best].expand(runs, 1, 3)
        rotation, translation = self._refine(rotation, translation, CUTOFFS[-1:])
        return orient(
            self._of(PARALLAX, rotation[:, 0], translation[:, 0]), self._cells, weights, CUTOFFS[-1]
        )

    def _refine(
        self, rotation: Tensor, translation: Tensor, cutoffs: tuple[float, ...]
    ) -> tuple[Tensor, Tensor]:
        for cutoff in cutoffs:
            rotation, translation = refine_epipolar(
                rotation,
                translation,
                self._rays[:, None],
                self._targets[:, None],
                self._weights[:, None],
                self._scale,
                iterations=STEPS,
                cutoff=cutoff,
            )
        return rotation, translation

    def _draw(self, points: int) -> tuple[Tensor, Tensor]:
        picked = self._draws.members(self._sizes, PROPOSALS, points)
        return self._rays[self._run[..., None], picked], self._targets[self._run[..., None], picked]

    def _of(self, kind: str, homographies: Tensor, translations: Tensor | None = None) -> CameraMotions:
        none = homographies.new_zeros(len(homographies), 3)
        return CameraMotions(kind, homographies, none if translations is None else translations, self._scale)

    def _best(
        self, kind: str, proposed: Tensor, fit: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> CameraMotions:
        """The best proposal (n, P, 3, 3) of each run, refitted to what it explains."""
        judges = slice(0, JUDGING_CELLS)
        found = transfer(proposed, self._rays[:, None, judges])
        error = ((found - self._targets[:, None, judges]) * self._scale / JUDGING_SLACK).square().sum(-1)
        loss = (error.clamp(max=CUTOFFS[-1]) * self._weights[:, None, judges]).sum(-1)
        best = proposed[self._run[:, 0], loss.argmin(1)]
        for cutoff in CUTOFFS:
            for _ in range(STEPS):
                error = ((transfer(best, self._rays) - self._targets) * self._scale).square().sum(-1)
                best = fit(self._rays, self._targets, self._weights * (cutoff / (cutoff + error)) ** 2)
        return self._of(kind, best)


def transfer(homographies: Tensor, rays: Tensor) -> Tensor:
    """Directions (..., N, 2) that homographies (..., 3, 3) carry directions (..., N, 2) to."""
    moved = homogeneous(rays) @ homographies.transpose(-1, -2)
    depth = moved[..., 2:]
    return moved[..., :2] / torch.where(depth.abs() < 1e-6, 1e-6, depth)


def fit_rotation(rays: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Rotations (..., 3, 3) that best carry directions onto directions.

    Args:
        rays: (..., N, 2) float.
        targets: (..., N, 2) float.
        weights: (..., N) float.

    Source:
        Orthogonal Procrustes on the unit sphere, determinant corrected (Kabsch, 1976).
    """
    first = functional.normalize(homogeneous(rays).double(), dim=-1)
    second = functional.normalize(homogeneous(targets).double(), dim=-1)
    left, _, right = torch.linalg.svd((second * weights[..., None]).transpose(-1, -2) @ first)
    flip = torch.ones_like(left[..., 0, :])
    flip[..., 2] = torch.linalg.det(left @ right).sign()
    rotation: Tensor = left * flip[..., None, :] @ right
    return rotation.to(rays.dtype)


def fit_homography(rays: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Homographies (..., 3, 3) of directions by weighted linear least squares, with norm sqrt(3).

    Args:
        rays: (..., N, 2) float, N at least 4.
        targets: (..., N, 2) float.
        weights: (..., N) float.

    Source:
        Direct linear transform (Hartley and Zisserman, 2004, 4.1). Directions have mean near zero and length
        below one, so they need no normalisation; in double precision.
    """
    first, second = homogeneous(rays).double(), targets.double()
    zero = torch.zeros_like(first)
    across = torch.cat([first, zero, -first * second[..., :1]], -1)
    down = torch.cat([zero, first, -first * second[..., 1:]], -1)
    normal = sum((rows * weights[..., None]).transpose(-1, -2) @ rows for rows in (across, down))
    assert isinstance(normal, Tensor)
    vector = torch.linalg.eigh(normal)[1][..., 0]
    homography: Tensor = vector.unflatten(-1, (3, 3)) * 3**0.5
    sign = torch.linalg.det(homography).sign()
    homography = homography * torch.where(sign == 0, 1.0, sign)[..., None, None]
    return homography.to(rays.dtype)
