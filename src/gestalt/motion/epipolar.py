"""Two views of a standing scene without depth: essential matrices by eight points, refined on epipolar lines.

A point with direction ``x`` at t is seen at t+1 in the direction of ``R x + q t``: ``R`` and ``t`` are the
camera's motion (``t`` has length one: a single camera does not know metres), ``q`` its nearness, the inverse
of its depth in units of the translation. Everything is batched over hypotheses and runs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.motion.rigid_motion import rotation_exp

# Points of a minimal linear solution.
EIGHT = 8
# Lengths of an epipolar line's normal below this leave the line undetermined: the point lies on the epipole.
MIN_NORMAL = 1e-9
# Damping of the normal equations, in units of one perfect observation.
DAMPING = 1e-6


def homogeneous(directions: Tensor) -> Tensor:
    """(..., 3) float: directions (..., 2) with a one behind them."""
    return torch.cat([directions, torch.ones_like(directions[..., :1])], -1)


def eight_point(rays: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Camera motions from eight points each.

    Args:
        rays: (..., 8 or more, 2) float, directions at t.
        targets: (..., 8 or more, 2) float, directions at t+1 of the same points.

    Returns:
        Rotations (..., 3, 3) and unit translations (..., 3) in the precision of ``rays``. Of the two rotations
        that fit the smaller one is taken, since a camera does not turn round between frames; which way along
        ``t`` it went is open, see ``parallax.orient``. Where the points determine nothing (no parallax, one
        plane) the result is some motion that fits them.

    Source:
        Longuet-Higgins (Nature 1981) with the normalisation of Hartley (PAMI 1997): coordinates are shifted
        and scaled to mean zero and length sqrt(2). In double precision.
    """
    first, second = rays.double(), targets.double()
    scale_first, scale_second = _normalisation(first), _normalisation(second)
    first = homogeneous(first) @ scale_first.transpose(-1, -2)
    second = homogeneous(second) @ scale_second.transpose(-1, -2)
    rows = (second[..., :, None] * first[..., None, :]).flatten(-2)
    # The full right basis: with eight rows the solution is what they leave free.
    right = torch.linalg.svd(rows, full_matrices=True)[2]
    essential = right[..., -1, :].unflatten(-1, (3, 3))
    essential = scale_second.transpose(-1, -2) @ essential @ scale_first
    rotation, translation = decompose(essential)
    return rotation.to(rays.dtype), translation.to(rays.dtype)


def decompose(essential: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller rotation (..., 3, 3) and a unit translation (..., 3) of essential matrices (..., 3, 3)."""
    left, _, right = torch.linalg.svd(essential)
    left = left * torch.linalg.det(left)[..., None, None].sign()
    right = right * torch.linalg.det(right)[..., None, None].sign()
    quarter = essential.new_tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    one, other = left @ quarter @ right, left @ quarter.T @ right
    trace = one.diagonal(dim1=-2, dim2=-1).sum(-1), other.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.where((trace[0] >= trace[1])[..., None, None], one, other), left[..., 2]


def line_residual(
    rotation: Tensor, translation: Tensor, rays: Tensor, targets: Tensor, scale: Tensor
) -> Tensor:
    """Signed distances of targets from their epipolar lines, in standard deviations.

    Args:
        rotation: (..., 3, 3).
        translation: (..., 3), unit.
        rays: (..., N, 2) float; leading dimensions broadcast.
        targets: (..., N, 2) float.
        scale: (2,) float, see ``View.scale``.

    Returns:
        (..., N) float.

    Source:
        Sampson's distance (Sampson 1982; Hartley and Zisserman, 2004, 11.4.3) when only the second point is
        noisy: optical flow is measured from exact pixels, so the first point adds no variance and the
        distance to the line is exact, not an approximation.
    """
    residual, _, _ = _lines(rotation, translation, rays, targets, scale)
    return residual


def refine_epipolar(
    rotation: Tensor,
    translation: Tensor,
    rays: Tensor,
    targets: Tensor,
    weights: Tensor,
    scale: Tensor,
    *,
    iterations: int,
    cutoff: float,
) -> tuple[Tensor, Tensor]:
    """Robust Gauss-Newton on the distances to epipolar lines, five parameters.

    Args:
        rotation: (..., 3, 3) start.
        translation: (..., 3) start, unit.
        rays: (..., N, 2) float.
        targets: (..., N, 2) float.
        weights: (..., N) float, 0 leaves a point out.
        scale: (2,) float, see ``View.scale``.
        iterations: Steps.
        cutoff: Squared residual at which the robust weight (Geman-McClure) has fallen to a quarter.

    Returns:
        Rotation and translation; the start where a step would not be finite.
    """
    for _ in range(iterations):
        residual, turned, length = _lines(rotation, translation, rays, targets, scale)
        seen = homogeneous(targets)
        t = translation[..., None, :].expand_as(turned)
        by_rotation = torch.linalg.cross(turned, torch.linalg.cross(seen.expand_as(turned), t))
        tangent = tangent_basis(translation)
        by_translation = torch.linalg.cross(turned, seen.expand_as(turned)) @ tangent
        jacobian = torch.cat([by_rotation, by_translation], -1) / length[..., None]
        weight = weights * (cutoff / (cutoff + residual**2)) ** 2
        weighted = jacobian * weight[..., None]
        normal = weighted.transpose(-1, -2) @ jacobian
        damping = DAMPING * normal.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] + MIN_NORMAL
        normal = normal + damping * torch.eye(5, dtype=normal.dtype, device=normal.device)
        slope = weighted.transpose(-1, -2) @ residual[..., None]
        step = -torch.linalg.solve_ex(normal, slope)[0][..., 0]
        step = torch.where(step.isfinite().all(-1, keepdim=True), step, 0.0)
        rotation = rotation_exp(step[..., :3]) @ rotation
        translation = functional.normalize(translation + (tangent @ step[..., 3:, None])[..., 0], dim=-1)
    return rotation, translation


def tangent_basis(vectors: Tensor) -> Tensor:
    """(..., 3, 2): two unit vectors at right angles to each other and to unit vectors (..., 3)."""
    axis = functional.one_hot(vectors.abs().argmin(-1), 3).to(vectors.dtype)
    first = functional.normalize(torch.linalg.cross(vectors, axis), dim=-1)
    return torch.stack([first, torch.linalg.cross(vectors, first)], -1)


def _lines(
    rotation: Tensor, translation: Tensor, rays: Tensor, targets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals (..., N), turned rays (..., N, 3) and the noise (..., N) of what the residuals are divided by."""
    turned = homogeneous(rays) @ rotation.transpose(-1, -2)
    line = torch.linalg.cross(translation[..., None, :].expand_as(turned), turned)
    length = (line[..., :2] / scale).norm(dim=-1).clamp(min=MIN_NORMAL)
    return (homogeneous(targets) * line).sum(-1) / length, turned, length


def _normalisation(directions: Tensor) -> Tensor:
    """(..., 3, 3) affine maps that bring point sets (..., N, 2) to mean zero and mean length sqrt(2)."""
    middle = directions.mean(-2)
    spread = (directions - middle[..., None, :]).norm(dim=-1).mean(-1).clamp(min=MIN_NORMAL)
    factor = 2**0.5 / spread
    matrix = directions.new_zeros(*directions.shape[:-2], 3, 3)
    matrix[..., 0, 0] = matrix[..., 1, 1] = factor
    matrix[..., :2, 2] = -factor[..., None] * middle
    matrix[..., 2, 2] = 1
    return matrix
