"""Rigid motions: SE(3), weighted Kabsch, noise-whitened residuals and robust Gauss-Newton, all batched.

A rigid motion is a 4x4 matrix that moves points of frame t into the camera of frame t+1. It is judged by the
measurement ``(x, y, disparity)`` that the camera of frame t+1 would make: in pixels the noise is simple, in
metres it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.motion.geometry import MIN_DEPTH_M, Camera

# Triangles thinner than this (second over first singular value) leave a rotation about their line free.
COLLINEAR_SHARE = 1e-3


def _cross_matrix(vectors: Tensor) -> Tensor:
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, -1).view(*vectors.shape[:-1], 3, 3)


def rotation_exp(angles: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors.

    Args:
        angles: (..., 3) float, axis times angle, radians.

    Returns:
        (..., 3, 3) rotations (Rodrigues' formula; its series near zero).
    """
    square = (angles * angles).sum(-1)[..., None, None]
    angle = square.clamp(min=1e-12).sqrt()
    small = square < 1e-6
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / square.clamp(min=1e-12))
    cross = _cross_matrix(angles)
    return torch.eye(3, dtype=angles.dtype, device=angles.device) + first * cross + second * (cross @ cross)


def rotation_angle(rotations: Tensor) -> Tensor:
    """Angle of (..., 3, 3) rotations, (...) radians in [0, pi].

    The sine and the cosine together stay exact near zero, where the arc cosine alone does not, and nothing
    leaves its
    domain: a NaN here would compare false and silently keep a motion.
    """
    cosine = (rotations.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    skew = rotations - rotations.transpose(-1, -2)
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).norm(dim=-1) / 2
    return torch.atan2(sine, cosine)


def motion_exp(twists: Tensor) -> Tensor:
    """Rigid motions of (..., 6) twists (translation, rotation), as (..., 4, 4); inverse of ``motion_log``."""
    rotation = rotation_exp(twists[..., 3:])
    translation = _left_jacobian(twists[..., 3:]) @ twists[..., :3, None]
    return compose_motion(rotation, translation[..., 0])


def motion_log(motions: Tensor) -> Tensor:
    """Twists (..., 6) (translation, rotation) of (..., 4, 4) rigid motions whose rotation is below pi."""
    rotation = motions[..., :3, :3]
    angle = rotation_angle(rotation)[..., None]
    skew = rotation - rotation.transpose(-1, -2)
    axis = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1) / 2
    angles = axis * torch.where(angle < 1e-4, 1 + angle**2 / 6, angle / angle.sin().clamp(min=1e-12))
    translation = torch.linalg.solve(_left_jacobian(angles), motions[..., :3, 3:])[..., 0]
    return torch.cat([translation, angles], -1)


def _left_jacobian(angles: Tensor) -> Tensor:
    square = (angles * angles).sum(-1)[..., None, None]
    safe = square.clamp(min=1e-12)
    angle = safe.sqrt()
    small = square < 1e-6
    first = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / safe)
    second = torch.where(small, 1 / 6 - square / 120, (angle - angle.sin()) / (safe * angle))
    cross = _cross_matrix(angles)
    return torch.eye(3, dtype=angles.dtype, device=angles.device) + first * cross + second * (cross @ cross)


def compose_motion(rotation: Tensor, translation: Tensor) -> Tensor:
    """(..., 4, 4) rigid motions of (..., 3, 3) rotations and (..., 3) translations."""
    motion = rotation.new_zeros(*rotation.shape[:-2], 4, 4)
    motion[..., :3, :3] = rotation
    motion[..., :3, 3] = translation
    motion[..., 3, 3] = 1
    return motion


def move(motions: Tensor, points: Tensor) -> Tensor:
    """Apply (..., 4, 4) motions to (..., N, 3) points; leading dimensions broadcast."""
    return points @ motions[..., :3, :3].transpose(-1, -2) + motions[..., None, :3, 3]


def fit_kabsch(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Rigid motions that best carry weighted points onto points (Kabsch, determinant corrected).

    Args:
        source: (..., N, 3) float, metres.
        target: (..., N, 3) float, metres.
        weights: (..., N) float, not negative; 0 leaves a point out.

    Returns:
        (..., 4, 4) motions, and (...) bool: whether the points determine one. Fewer than three points, or
        points on a line, leave a rotation free; their motion is a pure translation and marked False (the
        official code fits two-point clusters all the same).
    """
    total = weights.sum(-1, keepdim=True).clamp(min=1e-12)
    share = (weights / total)[..., None]
    source_mean, target_mean = (share * source).sum(-2), (share * target).sum(-2)
    centered = source - source_mean[..., None, :]
    covariance = (share * centered).transpose(-1, -2) @ (target - target_mean[..., None, :])
    left, _, right = torch.linalg.svd(covariance)
    right = right.transpose(-1, -2)
    flip = torch.ones_like(source_mean)
    flip[..., 2] = torch.linalg.det(right @ left.transpose(-1, -2)).sign()
    rotation = (right * flip[..., None, :]) @ left.transpose(-1, -2)
    spread = torch.linalg.eigvalsh((share * centered).transpose(-1, -2) @ centered).clamp(min=0).sqrt()
    determined = (spread[..., 1] > COLLINEAR_SHARE * spread[..., 2]) & ((weights > 0).sum(-1) >= 3)
    identity = torch.eye(3, dtype=source.dtype, device=source.device)
    rotation = torch.where(determined[..., None, None], rotation, identity)
    translation = target_mean - (rotation @ source_mean[..., None])[..., 0]
    return compose_motion(rotation, translation), determined


@dataclass(frozen=True)
class Precision:
    """How far measurements may lie from their prediction: the whitening of residuals.

    A residual ``r = predicted - measured`` has covariance ``diag(std^2) + b b'``: the noise of optical flow
    and of the second disparity, and that of the first disparity, which moves the prediction along ``b``.

    Attributes:
        std: (3,) float, pixels, of x, y and disparity.
        direction: (..., 3) float, unit vector along ``b / std``.
        shrink: (...) float in [0, 1): how much of the residual along ``direction`` the first disparity
        explains away.
    """

    std: Tensor
    direction: Tensor
    shrink: Tensor

    def select(self, index: Tensor) -> Precision:
        """The precision of a subset of points; ``index`` picks from the leading dimensions."""
        return Precision(self.std, self.direction[index], self.shrink[index])

    def whiten(self, vectors: Tensor) -> Tensor:
        """(..., 3) residuals or derivatives in standard deviations."""
        scaled = vectors / self.std
        along = (scaled * self.direction).sum(-1, keepdim=True) * self.shrink[..., None]
        return scaled - along * self.direction


def measurement_precision(
    motion: Tensor, points: Tensor, disparity: Tensor, std: Tensor, first_std: Tensor, camera: Camera
) -> Precision:
    """Precision of residuals of points that move roughly by ``motion``.

    Args:
        motion: (4, 4) or (..., 1, 4, 4)-broadcastable rigid motion of most points (the ego-motion).
        points: (..., 3) float, points of frame t.
        disparity: (...) float, their disparity, pixels.
        std: (3,) float, noise of the measurement (x, y, disparity), pixels.
        first_std: 0-d float, noise of ``disparity``; 0 ignores it.
        camera: The camera.

    Source:
        First-order propagation. Moving a point along its ray changes the projected x and y only through the
        translation, because a projection does not change along a ray.
    """
    moved = move(motion, points)
    translation = (moved - points @ motion[..., :3, :3].transpose(-1, -2)) / disparity[..., None]
    depth = moved[..., 2].clamp(min=MIN_DEPTH_M)
    inverse = 1 / depth
    scale = camera.disparity_scale * inverse * inverse
    change = torch.stack(
        [
            camera.focal_x * inverse * (translation[..., 0] - moved[..., 0] * inverse * translation[..., 2]),
            camera.focal_y * inverse * (translation[..., 1] - moved[..., 1] * inverse * translation[..., 2]),
            scale * (depth / disparity - translation[..., 2]),
        ],
        -1,
    )
    scaled = change * first_std / std
    square = (scaled * scaled).sum(-1)
    direction = scaled / square.clamp(min=1e-12).sqrt()[..., None]
    return Precision(std, direction, 1 - (1 + square).rsqrt())


def squared_deviation(
    motions: Tensor, points: Tensor, measured: Tensor, precision: Precision, camera: Camera
) -> Tensor:
    """Squared Mahalanobis distance between what motions predict and what was measured.

    Args:
        motions: (..., 4, 4).
        points: (..., N, 3) float, of frame t; leading dimensions broadcast against ``motions``.
        measured: (..., N, 3) float, pixels of frame t+1.
        precision: Of the N measurements.
        camera: The camera.

    Returns:
        (..., N) float, chi-square with three degrees of freedom where the noise is Gaussian.
    """
    # Coordinates as planes, not as triples: this is the inner loop of the method.
    x, y, z = (motions[..., :3, :3] @ points.transpose(-1, -2).contiguous() + motions[..., :3, 3:]).unbind(-2)
    inverse = 1 / z.clamp(min=MIN_DEPTH_M)
    target_x, target_y, target_disparity = measured.unbind(-1)
    std_x, std_y, std_disparity = precision.std.unbind()
    x = (x * inverse * camera.focal_x + (camera.center_x - target_x)) / std_x
    y = (y * inverse * camera.focal_y + (camera.center_y - target_y)) / std_y
    disparity = (inverse * camera.disparity_scale - target_disparity) / std_disparity
    along_x, along_y, along_disparity = precision.direction.unbind(-1)
    along = x * along_x + y * along_y + disparity * along_disparity
    # |r - s (r.g) g|^2 = |r|^2 - (2 s - s^2) (r.g)^2 for a unit vector g.
    shrink = precision.shrink * (2 - precision.shrink)
    return x.square() + y.square() + disparity.square() - shrink * along.square()


def refine_motion(
    motions: Tensor,
    points: Tensor,
    measured: Tensor,
    weights: Tensor,
    precision: Precision,
    camera: Camera,
    *,
    iterations: int,
    cutoff: float,
    prior: Tensor | None = None,
) -> Tensor:
    """Robust Gauss-Newton on the measurements, for a batch of motions at once.

    Args:
        motions: (B, 4, 4) start.
        points: (B, N, 3) float, of frame t.
        measured: (B, N, 3) float, pixels of frame t+1.
        weights: (B, N) float, not negative.
        precision: With shapes (B, N, ...).
        camera: The camera.
        iterations: Number of steps.
        cutoff: Squared deviation at which the weight of a measurement falls to a quarter (Geman-McClure).
        prior: (6,) float, precision (1/std^2; metres, then radians) of a Gaussian around the start; a few
        noisy points
            cannot tell a rotation from a translation, the prior settles it.

    Returns:
        (B, 4, 4); a motion without weights stays where it was (the official code falls back to the identity).
    """
    start, total = motions, motions.new_zeros(len(motions), 6)
    strength = motions.new_zeros(6) if prior is None else prior
    damping = torch.diag(strength + 1e-6)
    # Rotations turn about the middle of the points: about the camera they would be tied to the translation.
    share = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    pivot = (share[..., None] * points).sum(-2)[..., None]
    planes = points.transpose(-1, -2).contiguous()
    target = measured.transpose(-1, -2).contiguous()
    direction = precision.direction.transpose(-1, -2).contiguous()
    for _ in range(iterations):
        turned = motions[:, :3, :3] @ planes
        turned_pivot = motions[:, :3, :3] @ pivot
        moved = turned + motions[:, :3, 3:]
        residual, jacobian = _linearise(
            moved, turned - turned_pivot, target, precision.std, direction, precision.shrink, camera
        )
        robust = weights * (1 + residual.square().sum(1) / cutoff) ** -2
        flat = jacobian.flatten(2)
        weighted = (jacobian * robust[:, None, None]).flatten(2)
        normal = weighted @ flat.transpose(1, 2) + damping
        gradient = (weighted @ residual.flatten(1)[..., None])[..., 0] + strength * total
        # A few points on a line leave directions free: no error, but a step that the check below throws away.
        step = -torch.linalg.solve_ex(normal, gradient[..., None])[0][..., 0].clamp(-3, 3)
        total = total + step
        rotation = rotation_exp(step[:, 3:])
        center = turned_pivot[..., 0] + motions[:, :3, 3]
        translation = (rotation @ (motions[:, :3, 3] - center)[..., None])[..., 0] + center + step[:, :3]
        motions = compose_motion(rotation @ motions[:, :3, :3], translation)
    usable = motions.isfinite().all(-1).all(-1) & (weights.sum(-1) > 0)
    return torch.where(usable[:, None, None], motions, start)


def _linearise(
    moved: Tensor,
    arm: Tensor,
    target: Tensor,
    std: Tensor,
    direction: Tensor,
    shrink: Tensor,
    camera: Camera,
) -> tuple[Tensor, Tensor]:
    """Whitened residuals and their derivative by (translation, rotation about a pivot).

    Args:
        moved: (B, 3, N) float, points of frame t+1, metres.
        arm: (B, 3, N) float, from the pivot to the points.
        target: (B, 3, N) float, what was measured, pixels.
        std: (3,) float.
        direction: (B, 3, N) float, see ``Precision``.
        shrink: (B, N) float.
        camera: The camera.

    Returns:
        (B, 3, N) residuals; (B, 6, 3, N) derivatives.
    """
    x, y, z = moved.unbind(1)
    inverse = 1 / z.clamp(min=MIN_DEPTH_M)
    std_x, std_y, std_disparity = std.unbind()
    scale_x, scale_y = inverse * (camera.focal_x / std_x), inverse * (camera.focal_y / std_y)
    scale_disparity = inverse * (camera.disparity_scale / std_disparity)
    residual = torch.stack(
        [
            x * scale_x + (camera.center_x - target[:, 0]) / std_x,
            y * scale_y + (camera.center_y - target[:, 1]) / std_y,
            scale_disparity - target[:, 2] / std_disparity,
        ],
        1,
    )
    zero = torch.zeros_like(x)
    by_translation = torch.stack(
        [
            scale_x,
            zero,
            zero,
            zero,
            scale_y,
            zero,
            -x * inverse * scale_x,
            -y * inverse * scale_y,
            -inverse * scale_disparity,
        ],
        1,
    ).view(len(x), 3, 3, -1)
    residual = residual - (residual * direction).sum(1, keepdim=True) * shrink[:, None] * direction
    along = (by_translation * direction[:, None]).sum(2, keepdim=True) * shrink[:, None, None]
    by_translation = by_translation - along * direction[:, None]
    # The derivative by a rotation is the cross product of the arm with the derivative by the translation.
    first, second = [1, 2, 0], [2, 0, 1]
    by_rotation = (
        by_translation[:, second] * arm[:, first, None] - by_translation[:, first] * arm[:, second, None]
    )
    return residual, torch.cat([by_translation, by_rotation], 1)
