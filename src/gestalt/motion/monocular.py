"""Moving objects of one frame from the optical flow of a single camera: the whole method in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from gestalt.config.motion import MonocularSettings, MotionSettings
from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.matching.warping import pixel_grid, warp
from gestalt.motion.camera_motion import FoundMotion, find_camera_motion
from gestalt.motion.consistency import consistent
from gestalt.motion.draws import Draws
from gestalt.motion.ensemble import Candidates, combine_runs
from gestalt.motion.flow_boundary import DEPTH_FREEDOM, FlowEvidence, draw_flow_object
from gestalt.motion.flow_cells import FlowCells, View, sample_flow_cells
from gestalt.motion.flow_clustering import FlowClustering, FlowModels, piece_deviation
from gestalt.motion.geometry import Camera
from gestalt.motion.labelling import EXCLUDED, RunMasks, assign_runs
from gestalt.motion.noise import Noise, estimate_noise
from gestalt.motion.object_filters import ObjectMask, compose_flat_objects
from gestalt.motion.parallax import find_ceiling
from gestalt.motion.photometry import Photometry
from gestalt.motion.rigid_objects import NO_EGO_MOTION, NO_OBJECT, TOO_FEW_RELIABLE, RigidObjects
from gestalt.motion.smoothing import box_mean

FloatArray = npt.NDArray[np.float32]


def find_monocular_objects(
    optical_flow_forward: FloatArray,
    optical_flow_backward: FloatArray | None,
    camera: Camera,
    settings: MotionSettings,
    *,
    seed: int,
    frame_id: str,
    valid: npt.NDArray[np.bool_] | None = None,
    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None,
    device: torch.device | None = None,
) -> RigidObjects:
    """Find what moves on its own in one frame of monocular video.

    Args:
        optical_flow_forward: (2, H, W) float32, pixels, t -> t+1; NaN where unknown.
        optical_flow_backward: (2, H, W) float32, t+1 -> t; None where it was not measured, which takes the
            other at its word.
        camera: The camera at this size; its stereo baseline is not used.
        settings: Section ``motion``.
        seed: The experiment's seed; with ``frame_id`` it decides every random choice.
        frame_id: The frame.
        valid: (H, W) bool, where motion may be trusted; None trusts all.
        images: (H, W, 3) uint8 RGB images at t and t+1, which sharpen and test masks; None does without.
        device: Where the tensors live.

    Returns:
        The objects, or none with the reason. There are no metres: surface, depth and speed are NaN, and there
        is no ego-motion matrix. ``ego_residual`` is the deviation from what may stand.

    Raises:
        ConfigError: Camera without focal length.
        ShapeError: Sizes differ.
        DataError: Infinite optical flow, or an unknown reverse.

    Source:
        Ours; docs/monocular.md says what it is made of and what a single camera cannot see.
    """
    if not (camera.focal_x > 0 and camera.focal_y > 0):
        raise ConfigError(f"a camera needs positive focal lengths. Got: {camera}")
    _check(optical_flow_forward, optical_flow_backward, valid, images)
    device = device or torch.device("cpu")

    def tensor(array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    forward = tensor(optical_flow_forward.astype(np.float32))
    backward = None if optical_flow_backward is None else tensor(optical_flow_backward.astype(np.float32))
    seen = forward.isfinite().all(0)
    if valid is not None:
        seen = seen & tensor(valid)
    noise = _noise(forward, backward, settings)
    forward = torch.where(forward.isfinite().all(0), forward, 0.0)
    if backward is None:
        reliable = seen & warp(forward, forward)[1]
    else:
        variance = 2 * (noise.x**2 + noise.y**2)
        reliable = seen & consistent(forward, backward, settings.reliability, variance)
    height, width = reliable.shape
    nothing = RigidObjects(
        np.zeros((height, width), np.uint16), [], TOO_FEW_RELIABLE, noise, reliable.cpu().numpy()
    )
    if int(reliable.sum()) < settings.reliability.min_reliable_px:
        return nothing
    forward = torch.where(reliable, forward, 0.0)
    view = View.of(camera, noise.x, noise.y, device)
    cells = sample_flow_cells(forward, reliable, view, settings.monocular.grid_rows)
    found = cluster_flow(cells, view, height, settings, seed, frame_id)
    if found is None:
        return replace(nothing, reason=NO_EGO_MOTION)
    frame = _evidence(forward, reliable, view, found, cells.shape, images)
    fates = _draw(frame, found.candidates, settings)
    instance_map, proposals = compose_flat_objects(
        [fate for fate in fates.values() if isinstance(fate, ObjectMask)], nothing.reliable, settings.filters
    )
    residual = torch.where(reliable, frame.standing_deviation().sqrt(), torch.nan)
    return replace(
        nothing,
        instance_map=instance_map,
        proposals=proposals,
        reason="" if proposals else NO_OBJECT,
        ego_residual=residual.cpu().numpy().astype(np.float32),
        candidates=found.candidates,
        ego_shares=found.camera.shares.cpu().numpy().astype(np.float32),
        fates=fates,
    )


@dataclass(frozen=True, eq=False)
class FoundInCells:
    """What all runs of a frame agree on.

    Attributes:
        camera: The camera's motion in every run.
        ceiling: (N,) float, see ``parallax.find_ceiling``; None where there is none.
        candidates: Masks on the grid of cells.
    """

    camera: FoundMotion
    ceiling: Tensor | None
    candidates: Candidates


def cluster_flow(
    cells: FlowCells, view: View, rows: int, settings: MotionSettings, seed: int, frame_id: str
) -> FoundInCells | None:
    """All runs of a frame and what they agree on; None where too few runs found the camera's motion.

    Args:
        cells: Measurements.
        view: The camera.
        rows: Of the image.
        settings: Section ``motion``.
        seed: The experiment's seed.
        frame_id: The frame.
    """
    monocular = settings.monocular
    draws = Draws(seed, frame_id, settings.runs, cells.device)
    allowed = cells.reliable & (draws.uniform(len(cells)) < monocular.cell_share)
    limit = float(stats.chi2.isf(monocular.inlier_tail, df=2))
    camera = find_camera_motion(cells, allowed, draws, view, limit, monocular)
    trusted = camera.shares >= monocular.min_background_share
    if int(trusted.sum()) < settings.ensemble.consistency_share * settings.runs:
        return None
    ceiling = find_ceiling(camera.best, cells, monocular.overhang_share)
    standing = camera.motions.explain(cells.rays, cells.targets, ceiling)
    deviation = ((cells.targets - standing) * view.scale).square().sum(-1)
    models = FlowClustering(
        cells, allowed & trusted[:, None] & (deviation > limit), view.std, rows, monocular
    ).run(draws)
    gap = ((cells.targets - standing) * view.focal).norm(dim=-1)
    moving = _median_where(gap[models.run], models.support) >= monocular.min_flow_px
    models = FlowModels(models.run[moving], models.motions[moving], models.support[moving])
    masks = label_flow(cells, deviation, models, view, monocular)
    return FoundInCells(camera, ceiling, combine_runs(masks, settings.runs, settings.ensemble))


def label_flow(
    cells: FlowCells, deviation: Tensor, models: FlowModels, view: View, monocular: MonocularSettings
) -> RunMasks:
    """Assign every cell of every run and cut the result into connected masks.

    Args:
        cells: Measurements.
        deviation: (n, N) float, squared deviation from the standing scene of each run.
        models: Motions of all runs.
        view: The camera.
        monocular: Section ``motion.monocular``.
    """
    height, width = cells.shape
    known = cells.reliable.float().view(height, width)
    reach = monocular.smoothing_cells
    weight = box_mean(known, reach, reach)

    def smooth(squared: Tensor) -> Tensor:
        cost = squared.clamp(max=monocular.cost_limit).view(-1, height, width) * known
        return box_mean(cost, reach, reach) / weight.clamp(min=1e-6)

    own = smooth(piece_deviation(models.motions, cells.pixels, cells.flow, view.std))
    window = 2 * monocular.link_cells + 1
    support = models.support.view(-1, 1, height, width).float()
    near = functional.max_pool2d(support, window, 1, monocular.link_cells)[:, 0] > 0
    return assign_runs(
        torch.where(near, own, EXCLUDED),
        smooth(deviation) + DEPTH_FREEDOM,
        models.run,
        models.motions,
        weight > 0,
        monocular.cost_limit,
        monocular.min_component_px / cells.step_px**2,
    )


def _evidence(
    forward: Tensor,
    reliable: Tensor,
    view: View,
    found: FoundInCells,
    grid: tuple[int, int],
    images: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None,
) -> FlowEvidence:
    height, width = reliable.shape
    device = forward.device
    pixels, flow = pixel_grid(height, width, device).permute(1, 2, 0), forward.permute(1, 2, 0)
    ceiling = None
    if found.ceiling is not None:
        ceiling = functional.interpolate(found.ceiling.view(1, 1, *grid), (height, width))[0, 0].flatten()
    targets = pixels + flow
    standing = found.camera.best.explain(
        view.directions(pixels).flatten(0, 1), view.directions(targets).flatten(0, 1), ceiling
    )[0]
    photometry = None
    if images is not None:
        photometry = Photometry.of(
            *(
                torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device).float() / 255
                for image in images
            )
        )
    return FlowEvidence(
        pixels, flow, view.pixels(standing).view_as(pixels) - pixels, reliable.float(), view.std, photometry
    )


def _draw(
    frame: FlowEvidence, candidates: Candidates, settings: MotionSettings
) -> dict[int, ObjectMask | str]:
    """The kept candidates at full resolution, by their index, or why the evidence for one is too weak."""
    filters, monocular = settings.filters, settings.monocular
    stiffness = float(frame.std.square().mean()) / monocular.prior_stretch**2
    fates: dict[int, ObjectMask | str] = {}
    for index in candidates.kept.nonzero()[:, 0].tolist():
        votes = functional.interpolate(
            candidates.votes[index][None, None], frame.weight.shape, mode="bilinear", align_corners=False
        )[0, 0]
        drawn = draw_flow_object(
            frame, candidates.motions[index], votes, stiffness, settings.boundary, monocular.cost_limit
        )
        if drawn is None:
            fates[index] = "nothing measured inside"
        elif drawn.evidence < filters.min_evidence:
            fates[index] = f"evidence {drawn.evidence:.1f} < {filters.min_evidence:g}"
        elif failure := drawn.photometric.failure(
            monocular.min_photometric_gain, filters.min_photometric_significance
        ):
            fates[index] = failure
        else:
            cost = drawn.cost.cpu().numpy()
            fates[index] = ObjectMask(
                drawn.rows,
                drawn.columns,
                cost,
                float(candidates.consistency[index]),
                float(candidates.scores[index]),
                np.full(cost.shape, np.nan, np.float32),
            )
    return fates


def _noise(forward: Tensor, backward: Tensor | None, settings: MotionSettings) -> Noise:
    blind = torch.zeros_like(forward[0])
    noise = estimate_noise(forward, backward, blind, None, settings.noise)
    return replace(noise, disparity=float("nan"))


def _median_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, torch.nan).nanmedian(-1).values


def _check(
    forward: FloatArray,
    backward: FloatArray | None,
    valid: npt.NDArray[np.bool_] | None,
    images: tuple[npt.NDArray[np.uint8], ...] | None,
) -> None:
    if forward.ndim != 3 or forward.shape[0] != 2:
        raise ShapeError(f"optical_flow_forward must be (2, H, W). Got: {forward.shape}")
    size = forward.shape[1:]
    for name, array, expected in (
        ("optical_flow_backward", backward, (2, *size)),
        ("valid", valid, size),
        *(("images", image, (*size, 3)) for image in images or ()),
    ):
        if array is not None and array.shape != expected:
            raise ShapeError(f"{name} must be {expected} like the optical flow. Got: {array.shape}")
    if np.isinf(forward).any():
        raise DataError(
            f"optical_flow_forward must be finite, or NaN where unknown. Got: {int(np.isinf(forward).sum())} "
            "infinite values"
        )
    if backward is not None and not np.isfinite(backward).all():
        raise DataError(
            "optical_flow_backward must be finite. "
            f"Got: {int((~np.isfinite(backward)).sum())} of {backward.size} values that are not"
        )
