"""Which of two motions explains the images: the standing scene's, which may lie at another depth, or an object's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.matching.warping import sample
from gestalt.motion.geometry import Camera, back_project, project
from gestalt.motion.rigid_motion import move
from gestalt.motion.smoothing import box_mean

# Window and floor of photometric errors that are compared: below the floor there is only sensor noise.
RADIUS_PX, NOISE = 2, 0.02
# Differences of grey value and its gradients that count in full.
FEATURE_LIMITS = torch.tensor([0.15, 0.08, 0.08])
# Least pixels with a standard error, and what keeps that from vanishing where errors are equal.
MIN_COUNTED_PX, DROP_NOISE = 2, 1e-3
# Disparities that are tried, as shares of how far it may be off; nothing is nearer to zero than the least.
DISPARITY_STEPS = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
MIN_DISPARITY_PX = 0.2


@dataclass(frozen=True, eq=False)
class Photometry:
    """The images of a frame, for asking them which motion explains them.

    Attributes:
        guide: (3, H, W) float in [0, 1], left image at t (a crop of it, where this is one).
        features: (F, H, W) float, the same crop of the left image's features at t.
        next_features: (F, H', W') float, the whole left image's features at t+1.
        right_next_features: The right image's at t+1, or None where there is none.
        right_features: The right image's at t, or None where there is none.
    """

    guide: Tensor
    features: Tensor
    next_features: Tensor
    right_next_features: Tensor | None
    right_features: Tensor | None

    @classmethod
    def of(
        cls, left: Tensor, left_next: Tensor, right_next: Tensor | None = None, right: Tensor | None = None
    ) -> Photometry:
        """From (3, H, W) float images in [0, 1]."""
        return cls(
            left,
            _features(left),
            _features(left_next),
            None if right_next is None else _features(right_next),
            None if right is None else _features(right),
        )

    def crop(self, rows: slice, columns: slice) -> Photometry:
        """The same for a rectangle of the image at t."""
        return Photometry(
            self.guide[:, rows, columns],
            self.features[:, rows, columns],
            self.next_features,
            self.right_next_features,
            self.right_features,
        )

    def error(self, targets: Tensor) -> Tensor:
        """Truncated difference between every pixel and where it is said to go.

        Args:
            targets: (h, w, 3) float, x, y and disparity at t+1, pixels; (h, w, 2) where one camera looks.

        Returns:
            (h, w) float in [0, 1], over both views where both see the target; NaN where the left one does not.
        """
        x, y = targets[..., 0], targets[..., 1]
        error, inside = self._error(self.next_features, torch.stack([x, y]))
        if self.right_next_features is not None:
            # Optical flow can agree with the left view by chance; the right one was not asked by it.
            other, seen = self._error(self.right_next_features, torch.stack([x - targets[..., 2], y]))
            error = torch.where(seen, (error + other) / 2, error)
        return torch.where(inside, error, torch.nan)

    def depth_error(self, pixels: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor]:
        """Truncated difference between every pixel at t and where a disparity says the right image shows it.

        Args:
            pixels: (2, h, w) float, coordinates in the whole image.
            disparity: (h, w) float, pixels.

        Returns:
            (h, w) float in [0, 1]; (h, w) bool, whether the right image sees it, nowhere where there is none.
        """
        if self.right_features is None:
            return torch.zeros_like(disparity), torch.zeros_like(disparity, dtype=torch.bool)
        return self._error(self.right_features, torch.stack([pixels[0] - disparity, pixels[1]]))

    def _error(self, features: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        found, inside = sample(features, positions)
        error = ((found - self.features).abs() / FEATURE_LIMITS.to(found.device)[:, None, None]).clamp(max=1)
        return error.mean(0), inside


def _features(image: Tensor) -> Tensor:
    """Grey value and its two gradients, (3, H, W): brightness may drift, edges do not."""
    grey = image.mean(0, keepdim=True)
    padded = functional.pad(grey[None], (1, 1, 1, 1), mode="replicate")[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return torch.cat([grey, across, down])


@dataclass(frozen=True)
class PhotometricVerdict:
    """What the images say of an object's motion against the standing scene; NaN where there are no images.

    Attributes:
        gain: Share of the standing scene's photometric error that the motion removes.
        significance: Standard errors between the two photometric errors, positive where the motion is the better
            one. It finds what the share cannot: a far car moves by parts of a pixel, so most of the error is the
            camera's noise under either motion, yet hundreds of pixels agree on the rest. Neighbouring pixels share
            noise, so it overstates: limits are found by trying, not from tables.
    """

    gain: float
    significance: float

    def failure(self, min_gain: float, min_significance: float) -> str:
        """Which limit is not reached, in words; empty where both are or where there are no images."""
        # Comparisons with NaN are false.
        if self.gain < min_gain:
            return f"photometric gain {self.gain:.2f} < {min_gain:g}"
        if self.significance < min_significance:
            return f"photometric significance {self.significance:.1f} < {min_significance:g}"
        return ""


NO_IMAGES = PhotometricVerdict(math.nan, math.nan)


def compare_errors(errors: Tensor | None, mask: Tensor) -> PhotometricVerdict:
    """The verdict on an object; pixels that either motion moves out of the image do not count.

    Args:
        errors: (2, h, w) float in [0, 1], of the standing scene and of the object; NaN outside. None without
            images.
        mask: (h, w) bool, the object.
    """
    if errors is None:
        return NO_IMAGES
    counted = mask & errors.isfinite().all(0)
    n_counted = int(counted.sum())
    if n_counted < MIN_COUNTED_PX:
        return PhotometricVerdict(0.0, 0.0)
    standing, own = errors[:, counted]
    drop = standing - own
    # Where there is no texture either motion explains the colours, and a share of nothing says nothing.
    gain = 1 - (own.mean() + NOISE) / (standing.mean() + NOISE)
    return PhotometricVerdict(float(gain), float(drop.mean() / (drop.std() + DROP_NOISE) * n_counted**0.5))


def contest(
    photometry: Photometry,
    pixels: Tensor,
    disparity: Tensor,
    motions: Tensor,
    camera: Camera,
    mask: Tensor,
    slack_px: float,
) -> PhotometricVerdict:
    """The verdict on an object when either motion may choose its depths.

    A wall whose disparity is half a pixel off seems to move, and optical flow, which saw it go elsewhere than its depth
    says, explains its colours better: not because it moves, but because its depth is wrong. So every pixel takes
    the disparity, near the measured one, that suits each motion best. The right image at t keeps what really moves from
    passing for something that stands at another depth.

    Args:
        photometry: The images; those of the object's surroundings at t.
        pixels: (2, h, w) float, coordinates in the whole image.
        disparity: (h, w) float, pixels, at t; 0 where unknown.
        motions: (2, 4, 4), of the standing scene and of the object.
        camera: The camera.
        mask: (h, w) bool, the object.
        slack_px: How far the disparity may be off, pixels.
    """
    errors = []
    for step in DISPARITY_STEPS if slack_px > 0 else (0.0,):
        tried = (disparity + step * slack_px).clamp(min=MIN_DISPARITY_PX)
        points = back_project(pixels.permute(1, 2, 0), tried, camera)
        now, seen = photometry.depth_error(pixels, tried)
        later = torch.stack([photometry.error(project(move(motion, points), camera)) for motion in motions])
        errors.append(torch.where(seen, (2 * later + now) / 3, later))
    every = torch.stack(errors)
    counted = mask & (disparity > 0) & every.isfinite().all(0).all(0)
    share = box_mean(counted.float(), RADIUS_PX, RADIUS_PX).clamp(min=1e-3)
    local = box_mean(torch.where(counted, every, 0.0), RADIUS_PX, RADIUS_PX) / share
    chosen = every.gather(0, local.argmin(0, keepdim=True))[0]
    return compare_errors(chosen, counted)


def photometric_step(errors: Tensor, known: Tensor) -> Tensor:
    """How much worse the object's motion explains the colours around each pixel than the standing scene does.

    Args:
        errors: (2, h, w) float in [0, 1], of the standing scene and of the object.
        known: (h, w) bool, where both are.

    Returns:
        (h, w) float in (-1, 1), negative where the object's motion is the better one; 0 where unknown.
    """
    local = box_mean(torch.where(known, errors, 0.0), RADIUS_PX, RADIUS_PX)
    local = local / box_mean(known.float(), RADIUS_PX, RADIUS_PX).clamp(min=1e-3) + NOISE
    return torch.where(known, (local[1] - local[0]) / local.sum(0), 0.0)
