"""Masks at full resolution: the evidence of every pixel, smoothed along the edges of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.config.motion import BoundarySettings
from gestalt.motion.geometry import Camera, back_project, project
from gestalt.motion.labelling import UNEXPLAINED_SHARE
from gestalt.motion.photometry import (
    NO_IMAGES,
    RADIUS_PX,
    PhotometricVerdict,
    Photometry,
    contest,
    photometric_step,
)
from gestalt.motion.rigid_motion import (
    Precision,
    measurement_precision,
    move,
    refine_motion,
    squared_deviation,
)
from gestalt.motion.smoothing import smooth_costs

# Pixels around an object that its filters may look at, at least.
MIN_MARGIN_PX = 6
# Pixels that most runs agree on refit the motion: at least so many, and about at most so many.
CORE_VOTES, MIN_CORE_PX, REFINING_PX = 0.5, 8, 2000
REFINING_STEPS, REFINING_CUTOFF = 3, 16.0
# Share of the sure pixels at either end of the depth that may be mistakes.
CORE_TAIL = 0.05
# Hidden pixels vote for the object with this share of the largest cost.
HIDDEN_SHARE = 0.5
# Rounds of refitting a motion to what it explains.
GROWTH_STEPS = 1


@dataclass(frozen=True, eq=False)
class PixelEvidence:
    """Measurements of every pixel of a frame and what ego-motion says about them.

    Attributes:
        pixels: (2, H, W) float, coordinates.
        disparity: (H, W) float, pixels, at t; 0 where unknown.
        measured: (H, W, 3) float, x, y and disparity at t+1.
        weight: (H, W) float, 1 where a pixel has a whole, consistent measurement.
        standing: (H, W) bool, pixels that cannot move: the ground.
        ego_motion: (4, 4).
        std: (3,) float, noise, pixels.
        first_std: 0-d float, noise of the first disparity that predictions inherit.
        camera: The camera.
        photometry: The images, or None where there are none.
    """

    pixels: Tensor
    disparity: Tensor
    measured: Tensor
    weight: Tensor
    standing: Tensor
    ego_motion: Tensor
    std: Tensor
    first_std: Tensor
    camera: Camera
    photometry: Photometry | None

    def crop(self, rows: slice, columns: slice) -> PixelEvidence:
        """The same for a rectangle of the image."""
        return PixelEvidence(
            self.pixels[:, rows, columns],
            self.disparity[rows, columns],
            self.measured[rows, columns],
            self.weight[rows, columns],
            self.standing[rows, columns],
            self.ego_motion,
            self.std,
            self.first_std,
            self.camera,
            None if self.photometry is None else self.photometry.crop(rows, columns),
        )

    def points(self) -> Tensor:
        """(H, W, 3) float, metres; unknown pixels lie one pixel of disparity away."""
        known = torch.where(self.disparity > 0, self.disparity, 1.0)
        return back_project(self.pixels.permute(1, 2, 0), known, self.camera)

    def precision(self, points: Tensor) -> Precision:
        """Precision of residuals given the ego-motion."""
        disparity = self.camera.disparity_scale / points[..., 2]
        return measurement_precision(
            self.ego_motion, points, disparity, self.std, self.first_std, self.camera
        )


@dataclass(frozen=True, eq=False)
class DrawnObject:
    """One object at full resolution.

    Attributes:
        rows: Rows of the image that the arrays cover.
        columns: Columns.
        cost: (h, w) float, negative where the object explains a pixel better than the ego-motion.
        motion: (4, 4), refitted to the pixels.
        evidence: Mean drop of the squared deviation over the measured pixels of the mask.
        photometric: What the images say of the motion.
    """

    rows: slice
    columns: slice
    cost: Tensor
    motion: Tensor
    evidence: float
    photometric: PhotometricVerdict


def draw_object(
    frame: PixelEvidence,
    motion: Tensor,
    votes: Tensor,
    prior: Tensor | None,
    settings: BoundarySettings,
    cost_limit: float,
) -> DrawnObject | None:
    """Decide pixel by pixel what belongs to one object.

    Args:
        frame: Evidence of the whole frame.
        motion: (4, 4), of the object.
        votes: (H, W) float in [0, 1], share of the runs that put a pixel into the object.
        prior: See ``refine_motion``.
        settings: Filters.
        cost_limit: Squared deviations count at most this much.

    Returns:
        None where no pixel of the object is measured.
    """
    guided, box = filter_radii(len(votes), settings)
    rows, columns = surroundings(votes, max(2 * guided, 2 * box, MIN_MARGIN_PX))
    near, votes = frame.crop(rows, columns), votes[rows, columns]
    points = near.points()
    precision = near.precision(points)
    image = None if near.photometry is None else near.photometry.guide
    core = votes > CORE_VOTES
    smoothing = [(None, max(1, box))] * (GROWTH_STEPS - 1) + [(image, box)]
    for guide, radius in smoothing:
        chosen = (core & (near.weight > 0) & ~near.standing).flatten().nonzero()[:, 0]
        if len(chosen) < MIN_CORE_PX:
            return None
        motion = _refit(near, points, precision, motion, chosen, prior)
        costs = _pixel_costs(near, points, precision, motion, chosen, settings, cost_limit)
        smooth, own = smooth_costs(
            torch.stack([costs.gain, costs.own]),
            costs.weight,
            guide,
            guided_radius=guided,
            eps=settings.guided_eps,
            box_radius=radius,
        )
        smooth = smooth + settings.vote_weight * (1 - 2 * votes)
        smooth = torch.where((own > UNEXPLAINED_SHARE * cost_limit) & (smooth < 0), 0.0, smooth)
        # What the motion explains beside the cells that proposed it determines it better than they do.
        core = smooth < 0
    measured = core & (near.weight > 0)
    evidence = -float(costs.measured_gain[measured].mean()) if bool(measured.any()) else 0.0
    return DrawnObject(
        rows,
        columns,
        smooth,
        motion,
        evidence,
        _ask_images(near, motion, core, settings.disparity_slack_px),
    )


def _ask_images(near: PixelEvidence, motion: Tensor, mask: Tensor, slack_px: float) -> PhotometricVerdict:
    if near.photometry is None or not bool(mask.any()):
        return NO_IMAGES
    # No pixel further away than the window is asked.
    rows, columns = surroundings(mask, RADIUS_PX)
    return contest(
        near.photometry.crop(rows, columns),
        near.pixels[:, rows, columns],
        near.disparity[rows, columns],
        torch.stack([near.ego_motion, motion]),
        near.camera,
        mask[rows, columns],
        slack_px,
    )


def filter_radii(height: int, settings: BoundarySettings) -> tuple[int, int]:
    """Radii of the guided and of the plain filter for images of ``height`` rows, pixels."""
    return round(settings.guided_radius * height), round(settings.box_radius * height)


def surroundings(votes: Tensor, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the image that lie within ``margin`` pixels of a vote; (H, W) ``votes``."""
    height, width = votes.shape
    where = (votes > 0).nonzero()
    (top, left), (bottom, right) = (where.amin(0) - margin).tolist(), (where.amax(0) + margin + 1).tolist()
    return slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))


@dataclass(frozen=True, eq=False)
class _PixelCosts:
    """Evidence of the pixels of a crop against an object.

    Attributes:
        gain: (h, w) float, negative where the object explains a pixel better than the ego-motion.
        own: (h, w) float, squared deviation from the object's motion.
        weight: (h, w) float, how much each pixel counts.
        measured_gain: (h, w) float, the part of ``gain`` that was measured.
    """

    gain: Tensor
    own: Tensor
    weight: Tensor
    measured_gain: Tensor


def _refit(
    near: PixelEvidence,
    points: Tensor,
    precision: Precision,
    motion: Tensor,
    chosen: Tensor,
    prior: Tensor | None,
) -> Tensor:
    """The motion (4, 4) refitted to some of the chosen pixels."""
    chosen = chosen[:: max(1, len(chosen) // REFINING_PX)]
    flat = Precision(precision.std, precision.direction.flatten(0, 1), precision.shrink.flatten())
    return refine_motion(
        motion[None],
        points.flatten(0, 1)[chosen][None],
        near.measured.flatten(0, 1)[chosen][None],
        torch.ones(1, len(chosen), device=chosen.device),
        flat.select(chosen[None]),
        near.camera,
        iterations=REFINING_STEPS,
        cutoff=REFINING_CUTOFF,
        prior=prior,
    )[0]


def _pixel_costs(
    near: PixelEvidence,
    points: Tensor,
    precision: Precision,
    motion: Tensor,
    chosen: Tensor,
    settings: BoundarySettings,
    cost_limit: float,
) -> _PixelCosts:
    both = torch.stack([near.ego_motion, motion])
    flat = Precision(precision.std, precision.direction.flatten(0, 1), precision.shrink.flatten())
    deviation = squared_deviation(both, points.flatten(0, 1), near.measured.flatten(0, 1), flat, near.camera)
    ego, own = deviation.clamp(max=cost_limit).view(2, *near.weight.shape) * near.weight
    gain, weight = own - ego, near.weight
    measured_gain = gain
    photometric = _photometric_errors(near, points, both)
    if photometric is not None:
        known = (near.disparity > 0) & photometric.isfinite().all(0)
        gain = gain + settings.photometric_weight * photometric_step(photometric, known)
        # A pixel without consistent optical flow still says which motion its colour agrees with.
        weight = torch.maximum(weight, known * settings.photometric_share)
    outside, inside = _depth_verdict(near.disparity, near.disparity.flatten()[chosen], settings)
    outside = outside | near.standing
    # Hidden at t+1, but as deep as the object and not on the ground: rather part of it than of what it hides.
    hidden = inside & ~outside & (near.weight == 0)
    gain = torch.where(hidden, gain - HIDDEN_SHARE * cost_limit, gain)
    weight = torch.where(hidden, weight.clamp(min=settings.hidden_weight), weight)
    gain, own = (torch.where(outside, cost_limit, plane) for plane in (gain, own))
    weight = torch.where(outside, 1.0, weight)
    return _PixelCosts(gain, own, weight, measured_gain)


def _depth_verdict(disparity: Tensor, core: Tensor, settings: BoundarySettings) -> tuple[Tensor, Tensor]:
    """(h, w) bool twice: pixels outside and inside of the depths that the sure pixels of the object span."""
    nearest, farthest = torch.quantile(core, 1 - CORE_TAIL), torch.quantile(core, CORE_TAIL)
    slack = settings.depth_share * (nearest + farthest) / 2 + settings.depth_slack_px
    known = disparity > 0
    outside = known & ((disparity > nearest + slack) | (disparity < farthest - slack))
    return outside, known & (disparity <= nearest) & (disparity >= farthest)


def _photometric_errors(near: PixelEvidence, points: Tensor, motions: Tensor) -> Tensor | None:
    """(2, h, w) photometric error of two motions, NaN outside the image; None without images."""
    if near.photometry is None:
        return None
    errors = [near.photometry.error(project(move(motion, points), near.camera)) for motion in motions]
    return torch.stack(errors)
