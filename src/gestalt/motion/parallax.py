"""What a moving camera makes of a standing scene whose depth nobody knows: where a pixel can have gone at most.

A standing point may lie at any depth, so only three things betray motion: leaving the epipolar line, lying
behind the camera, and lying under the ground. What moves along its epipolar line, nearer than it is, looks
like a nearer standing point and stays invisible here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.motion.epipolar import homogeneous
from gestalt.motion.flow_cells import FlowCells, View

# What the optical flow of a standing scene is like.
STANDING, ROTATION, PLANE, PARALLAX = "standing", "rotation", "plane", "parallax"
# Shortest denominators of projections: what lies in the plane of the camera.
MIN_DEPTH = 1e-3
# Triples of cells that propose a ground, in one batch, and fewest cells that can show one.
GROUND_PROPOSALS, MIN_GROUND_CELLS = 512, 48
# Rounds of least squares on the ground's inliers, and standard deviations within which a cell lies on it.
GROUND_REFITS, GROUND_STDS = 8, 2.5
# Share of its nearness by which the road may leave its plane.
ROUGHNESS = 0.08
# The normal of the ground is this near to the image's vertical (cosine; about 8 degrees).
UPRIGHT = 0.99
# A cell under the ground speaks against a plane this many times as loud as one on it speaks for it: things
# hide the ground and stand on it, but nothing is under it except what moves.
UNDER_PENALTY = 2.0
# Nearness is compared where parallax moves a point by this many standard deviations.
MIN_PARALLAX_STDS = 3.0
# A ceiling lies this many standard deviations above what is seen, needs so many cells of a 3x3 window, and
# speaks about cells this many rows higher.
CEILING_STDS, MIN_WINDOW_CELLS, CEILING_GAP = 3.0, 4, 1


@dataclass(frozen=True, eq=False)
class CameraMotions:
    """How the standing scene moves in n images, or in one image as n runs see it.

    Attributes:
        kind: ``standing``, ``rotation``, ``plane`` (one homography) or ``parallax``.
        homographies: (n, 3, 3) float, of directions: where points at infinity go (all points, without
            parallax).
        translations: (n, 3) float, unit; zero without parallax.
        scale: (2,) float, see ``View.scale``.
        ground: (3,) float: nearness of the ground is ``(x, y, 1) . ground`` in a ray's direction; None where
            none was found. Nothing stands under it.
        ground_slack: Share of its nearness by which something may lie under the ground: roads are no planes.
    """

    kind: str
    homographies: Tensor
    translations: Tensor
    scale: Tensor
    ground: Tensor | None = None
    ground_slack: float = 0.0

    def select(self, run: int) -> CameraMotions:
        """The motion of one run, as n = 1."""
        return replace(
            self, homographies=self.homographies[run, None], translations=self.translations[run, None]
        )

    def explain(self, rays: Tensor, targets: Tensor, ceiling: Tensor | None = None) -> Tensor:
        """Where the nearest standing point that a pixel can show would have gone.

        Args:
            rays: (N, 2) or (n, N, 2) float, directions at t.
            targets: The same at t+1.
            ceiling: (N,) float, largest nearness of a standing point, see ``find_ceiling``; None allows all.

        Returns:
            (n, N, 2) float, directions at t+1: ``targets`` moved to what is possible, by as few standard
            deviations as possible.
        """
        far, line = self._lines(rays)
        if self.kind != PARALLAX:
            return far
        along = ((targets - far) * self.scale * line.unit).sum(-1)
        along = along.clamp(min=0)
        if self.ground is not None:
            floor = homogeneous(rays) @ self.ground * (1 - self.ground_slack)
            along = torch.maximum(along, line.shift(floor.clamp(min=0)))
        highest = line.limit() if ceiling is None else torch.minimum(line.limit(), line.shift(ceiling))
        along = torch.minimum(along, highest)
        return far + line.unit * along[..., None] / self.scale

    def deviation(self, rays: Tensor, targets: Tensor, ceiling: Tensor | None = None) -> Tensor:
        """(n, N) float: squared deviation of targets from what is possible, in variances of the noise."""
        return ((targets - self.explain(rays, targets, ceiling)) * self.scale).square().sum(-1)

    def nearness(self, rays: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse depth of rays if they show standing points.

        Returns:
            Nearness (n, N) float in units of one over the translation, negative behind the camera; and its
            standard deviation (n, N).
        """
        far, line = self._lines(rays)
        along = ((targets - far) * self.scale * line.unit).sum(-1)
        return line.nearness(along), line.nearness_std(along)

    def parallax(self, rays: Tensor, targets: Tensor) -> Tensor:
        """(n, N) float: signed displacement along the epipolar line, in standard deviations; away from infinity."""
        far, line = self._lines(rays)
        return ((targets - far) * self.scale * line.unit).sum(-1)

    def _lines(self, rays: Tensor) -> tuple[Tensor, EpipolarLines]:
        turned = homogeneous(rays) @ self.homographies.transpose(-1, -2)
        depth = turned[..., 2].clamp(min=MIN_DEPTH)
        far = turned[..., :2] / depth[..., None]
        translations = self.translations[:, None]
        slope = (translations[..., :2] - far * translations[..., 2:]) * self.scale
        length = slope.norm(dim=-1).clamp(min=MIN_DEPTH)
        return far, EpipolarLines(slope / length[..., None], length, depth, translations[..., 2])


@dataclass(frozen=True, eq=False)
class EpipolarLines:
    """Images of rays at t+1: from the point at infinity on, in standard deviations of the noise.

    A point of nearness q lies ``length q / (depth + q forward)`` along the line.

    Attributes:
        unit: (n, N, 2) float, direction that grows with nearness.
        length: (n, N) float.
        depth: (n, N) float, positive: third coordinate of the turned ray.
        forward: (n, 1) float, third coordinate of the translation; negative when the camera drives forward.
    """

    unit: Tensor
    length: Tensor
    depth: Tensor
    forward: Tensor

    def shift(self, nearness: Tensor) -> Tensor:
        """(n, N) float: how far along the line points of a nearness (N,) or (n, N) lie; infinite behind the camera."""
        depth = self.depth + nearness * self.forward
        shift = self.length * nearness / depth.clamp(min=MIN_DEPTH)
        return torch.where(depth > MIN_DEPTH, shift, torch.where(nearness > 0, torch.inf, 0.0))

    def nearness(self, along: Tensor) -> Tensor:
        """(n, N) float: inverse of ``shift``, negative for points behind the camera."""
        room = self.length - along * self.forward
        return along * self.depth / room.clamp(min=MIN_DEPTH)

    def nearness_std(self, along: Tensor) -> Tensor:
        """(n, N) float: change of nearness per standard deviation along the line."""
        room = (self.length - along * self.forward).clamp(min=MIN_DEPTH)
        return self.depth * self.length / room.square()

    def limit(self) -> Tensor:
        """(n, N) float: where the line ends: at the epipole when the camera drives back, nowhere otherwise."""
        end = self.length / self.forward.clamp(min=MIN_DEPTH)
        return torch.where(self.forward > MIN_DEPTH, end, torch.inf)


def orient(motions: CameraMotions, cells: FlowCells, weights: Tensor, cutoff: float) -> CameraMotions:
    """Choose between both ways along each translation: that which leaves fewer points behind the camera.

    Args:
        motions: With parallax.
        cells: Measurements.
        weights: (N,) or (n, N) float.
        cutoff: Squared deviations count at most this much.
    """
    other = replace(motions, translations=-motions.translations)
    loss, other_loss = (
        (way.deviation(cells.rays, cells.targets).clamp(max=cutoff) * weights).sum(-1)
        for way in (motions, other)
    )
    flip = (other_loss < loss)[:, None]
    return replace(motions, translations=torch.where(flip, other.translations, motions.translations))


def find_ground(
    motion: CameraMotions, cells: FlowCells, view: View, triples: Tensor, min_share: float
) -> Tensor | None:
    """Fit the plane that everything stands on to the parallax of the lower image.

    Args:
        motion: Of one run, with parallax.
        cells: Measurements.
        view: The camera.
        triples: (GROUND_PROPOSALS, 3) float in [0, 1), random numbers.
        min_share: Least share of the reliable cells below the horizon on the plane.

    Returns:
        (3,) float, see ``CameraMotions.ground``; None where no upright plane below the camera holds enough.

    Source:
        Plane and parallax (Irani and Anandan, PAMI 1998), with the plane as linear nearness over the image.
    """
    along = motion.parallax(cells.rays, cells.targets)[0]
    nearness, std = (value[0] for value in motion.nearness(cells.rays, cells.targets))
    rays = homogeneous(cells.rays)
    fitting = motion.deviation(cells.rays, cells.targets)[0] < GROUND_STDS**2
    below = cells.reliable & (cells.rays[:, 1] > 0)
    index = (below & fitting & (along > MIN_PARALLAX_STDS)).nonzero()[:, 0]
    if len(index) < max(MIN_GROUND_CELLS, min_share * int(below.sum())):
        return None
    chosen = index[(triples * len(index)).long().clamp(max=len(index) - 1)]
    planes = torch.linalg.solve_ex(
        rays[chosen] + 1e-4 * torch.eye(3, device=rays.device), nearness[chosen][..., None]
    )[0][..., 0]
    judged = (cells.reliable & fitting).nonzero()[:, 0]
    predicted = planes @ rays[judged].T
    # Near the camera parallax is exact, and the road is not that flat.
    error = (nearness[judged] - predicted) / (std[judged] + ROUGHNESS / GROUND_STDS * predicted.abs())
    # Far planes are hidden; only what lies on the far side of the ground contradicts it.
    meets = predicted > 0
    on_plane = (error.abs() < GROUND_STDS) & meets & (cells.rays[judged, 1] > 0)
    under = (error < -GROUND_STDS) & meets
    gain = (on_plane * (1 - (error / GROUND_STDS) ** 2)).sum(1) - UNDER_PENALTY * under.sum(1)
    gain = torch.where(_upright(planes), gain, -torch.inf)
    plane = planes[gain.argmax()]
    for _ in range(GROUND_REFITS):
        predicted = rays[index] @ plane
        spread = std[index] + ROUGHNESS / GROUND_STDS * predicted.abs()
        # Tukey's biweight: what stands at the far end of the road is no outlier, and pulls.
        error = (nearness[index] - predicted) / (GROUND_STDS * spread)
        weight = (1 - error.square()).clamp(min=0).square() / spread.square()
        design = rays[index] * weight[:, None]
        plane = torch.linalg.solve_ex(
            design.T @ rays[index] + 1e-6 * weight.sum() * torch.eye(3, device=rays.device),
            design.T @ nearness[index],
        )[0]
    predicted = rays[index] @ plane
    spread = std[index] + ROUGHNESS / GROUND_STDS * predicted.abs()
    on_plane = (nearness[index] - predicted).abs() < GROUND_STDS * spread
    enough = int(on_plane.sum()) >= max(MIN_GROUND_CELLS, min_share * int(below.sum()))
    return plane if enough and bool(_upright(plane[None])[0]) else None


def find_ceiling(motion: CameraMotions, cells: FlowCells, overhang: float) -> Tensor | None:
    """How near a standing point can be at most, from what is seen below it.

    What stands reaches down to the ground, or something nearer hides its foot. So going up a column of the
    image nothing comes nearer again, unless it hangs in the air. What comes towards the camera looks nearer
    than it is, and so seems to float before the ground on which it drives. Below the height of the camera
    few things hang; above it (crowns, signs, wires) nothing is said.

    Args:
        motion: Of one run, with parallax and a ground, of a camera that is about level.
        cells: Measurements.
        overhang: Share by which something may be nearer than what is seen below it: bumpers and knees.

    Returns:
        (N,) float, nearness, infinite where nothing is known; None without a ground.
    """
    if motion.ground is None:
        return None
    nearness, std = (value[0] for value in motion.nearness(cells.rays, cells.targets))
    floor = homogeneous(cells.rays) @ motion.ground
    known = cells.reliable & (motion.deviation(cells.rays, cells.targets)[0] < CEILING_STDS**2)
    # As near as noise allows; what is under the ground moves itself and hides the ground.
    seen = torch.where(known, torch.maximum(nearness + CEILING_STDS * std, floor), torch.inf)
    seen = seen.view(1, 1, *cells.shape)
    # One wrong cell must not accuse the whole column above it: of a window the middle value counts.
    window = functional.unfold(functional.pad(seen, (1, 1, 1, 1), value=torch.inf), 3)[0]
    count = window.isfinite().sum(0)
    middle = window.sort(0).values.gather(0, ((count - 1).clamp(min=0) // 2)[None])[0]
    middle = torch.where(count >= MIN_WINDOW_CELLS, middle, torch.inf).view(cells.shape)
    lowest = middle.flip(0).cummin(0).values.flip(0)
    # What is seen below a row, not in it.
    gap = CEILING_GAP
    below = functional.pad(lowest[gap:], (0, 0, 0, gap), value=torch.inf).flatten()
    return torch.where(floor > 0, below * (1 + overhang), torch.inf)


def _upright(planes: Tensor) -> Tensor:
    """(P,) bool: whether planes (P, 3) lie below the camera with a normal near the vertical."""
    length: Tensor = planes.norm(dim=1)
    return planes[:, 1] > UPRIGHT * length
