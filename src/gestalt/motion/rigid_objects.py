"""Moving rigid objects of one frame, from measurements to an instance map: the whole method in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor
from torch.nn import functional

from gestalt.config.motion import MotionSettings
from gestalt.errors import ConfigError, ShapeError
from gestalt.matching.measurement import Measurement
from gestalt.matching.warping import pixel_grid
from gestalt.motion.background import cell_weights, find_background
from gestalt.motion.boundary import PixelEvidence, draw_object
from gestalt.motion.cells import Cells, sample_cells
from gestalt.motion.clustering import Clustering, Models, is_static, merge_models, object_prior
from gestalt.motion.completion import complete_masks, recount
from gestalt.motion.consistency import assess
from gestalt.motion.draws import Draws
from gestalt.motion.ensemble import Candidates, combine_runs
from gestalt.motion.geometry import Camera, project
from gestalt.motion.ground import PROPOSALS, Ground, find_ground
from gestalt.motion.labelling import label_runs
from gestalt.motion.noise import Noise, estimate_noise
from gestalt.motion.object_filters import ObjectMask, Proposal, compose_objects
from gestalt.motion.photometry import Photometry
from gestalt.motion.rigid_motion import move
from gestalt.motion.smoothing import RESIDUAL_NOISE, keep_edges

NO_OBJECT = "no object"
TOO_FEW_RELIABLE = "too few reliable pixels"
NO_EGO_MOTION = "ego-motion not found"


@dataclass(frozen=True, eq=False)
class RigidObjects:
    """What was found in a frame.

    Attributes:
        instance_map: (H, W) uint16, 0 = none, 1..N.
        proposals: Of ids 1..N, in order.
        reason: Empty where there are proposals, otherwise why there are none.
        noise: Of the measurements, pixels.
        reliable: (H, W) bool, mask O.
        ego_motion: (4, 4) float, or None where it was not found.
        ego_residual: (H, W) float32, deviation from the ego-motion in standard deviations, NaN where
        unmeasured.
        candidates: Masks of the runs before full resolution, for pictures; None where the method ended
        earlier.
        ego_shares: (n,) float32, share of the reliable cells that each run's ego-motion explains, for pictures.
        fates: What became of each kept candidate at full resolution, by its index, for pictures: its mask, or
        why it has none.
    """

    instance_map: npt.NDArray[np.uint16]
    proposals: list[Proposal]
    reason: str
    noise: Noise
    reliable: npt.NDArray[np.bool_]
    ego_motion: npt.NDArray[np.float32] | None = None
    ego_residual: npt.NDArray[np.float32] | None = None
    candidates: Candidates | None = None
    ego_shares: npt.NDArray[np.float32] | None = None
    fates: Mapping[int, ObjectMask | str] = field(default_factory=dict)


def find_rigid_objects(
    measurement: Measurement,
    camera: Camera,
    settings: MotionSettings,
    *,
    seed: int,
    frame_id: str,
    time_step_s: float = 1.0,
    valid: npt.NDArray[np.bool_] | None = None,
    images: tuple[npt.NDArray[np.uint8], ...] | None = None,
    device: torch.device | None = None,
) -> RigidObjects:
    """Find what moves on its own in one frame.

    Args:
        measurement: Optical flow and disparities.
        camera: The camera at this size.
        settings: Section ``motion``.
        seed: The experiment's seed; with ``frame_id`` it decides every random choice.
        frame_id: The frame.
        time_step_s: Seconds between the frames, for speeds.
        valid: (H, W) bool, where motion may be trusted; None trusts all.
        images: (H, W, 3) uint8 RGB left images at t and t+1, and where there are any the right ones at t+1 and t;
            they sharpen and test masks. None does without.
        device: Where the tensors live.

    Returns:
        The objects, or none with the reason.

    Raises:
        ConfigError: Camera without focal length or stereo baseline.
        ShapeError: ``valid`` or an image has another size than the measurements.

    Source:
        SF2SE3 (Sommer et al., 2022) as CUPS (Hahn et al., CVPR 2025) uses it; docs/motion.md lists how ours
        differs.
    """
    if not (camera.focal_x > 0 and camera.focal_y > 0 and camera.stereo_baseline > 0):
        raise ConfigError(f"a camera needs positive focal lengths and stereo baseline. Got: {camera}")
    height, width = measurement.disparity.shape
    _check_sizes((height, width), valid, images)
    device = device or torch.device("cpu")

    def tensor(array: npt.NDArray[np.float32] | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

    def present(array: npt.NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

    forward, backward = present(measurement.optical_flow_forward), tensor(measurement.optical_flow_backward)
    disparity, disparity_right = present(measurement.disparity), tensor(measurement.disparity_right)
    trusted = torch.ones(height, width, dtype=torch.bool, device=device)
    if valid is not None:
        trusted = torch.from_numpy(np.ascontiguousarray(valid)).to(device)
    noise = estimate_noise(forward, backward, disparity, disparity_right, settings.noise)
    judged = assess(
        forward,
        backward,
        disparity,
        tensor(measurement.disparity_next),
        tensor(measurement.disparity_next_warped),
        disparity_right,
        tensor(measurement.disparity_right_next),
        trusted,
        noise,
        camera,
        settings.reliability,
    )
    reliable = judged.reliable.cpu().numpy()
    nothing = np.zeros((height, width), np.uint16)
    if int(reliable.sum()) < settings.reliability.min_reliable_px:
        return RigidObjects(nothing, [], TOO_FEW_RELIABLE, noise, reliable)
    forward = torch.where(judged.visible, forward, 0.0)
    std = torch.tensor([noise.x, noise.y, noise.disparity], device=device)
    first_std = std[2] * float(settings.noise.propagate)
    radius = round(settings.boundary.box_radius * height)
    # Matching has averaged over its window already; what comes without images may be noisy pixel by pixel.
    if radius > 0 and images is None:
        disparity = keep_edges(disparity, disparity > 0, noise.disparity, radius)
        first_std = first_std * RESIDUAL_NOISE
    cells = sample_cells(
        forward,
        disparity,
        judged.disparity_next,
        judged.measured,
        judged.reliable,
        camera,
        settings.clustering.grid_rows,
    )
    found = cluster_runs(cells, std, first_std, camera, settings, seed, frame_id)
    if found is None:
        return RigidObjects(nothing, [], NO_EGO_MOTION, noise, reliable)
    ego_motion, ground, candidates, ego_shares = found
    pixels = pixel_grid(height, width, device)
    standing = torch.zeros_like(judged.measured)
    # Matching smears the optical flow of objects onto the ground around them. Measurements that come without
    # images are taken at their word.
    if ground is not None and images is not None:
        above = ground.height(pixels.permute(1, 2, 0), disparity.clamp(min=1e-3))
        standing = (disparity > 0) & (above < settings.ground.margin_m)
    frame = PixelEvidence(
        pixels,
        disparity,
        torch.cat([pixels + forward, judged.disparity_next[None]]).permute(1, 2, 0),
        judged.measured.float(),
        standing,
        ego_motion,
        std,
        first_std,
        camera,
        None if images is None else Photometry.of(*(_unit_image(image, device) for image in images)),
    )
    fates = _draw(frame, candidates, cells.shape, settings)
    measured = judged.measured.cpu().numpy()
    instance_map, proposals = compose_objects(
        [fate for fate in fates.values() if isinstance(fate, ObjectMask)],
        measurement.disparity,
        measured,
        (camera.focal_x, camera.focal_y, camera.stereo_baseline),
        time_step_s,
        settings.filters,
    )
    if images is not None:
        instance_map = complete_masks(
            instance_map,
            measured,
            images[0],
            radius=round(settings.boundary.completion_radius * height),
            border=round(settings.filters.border_share * width),
        )
        proposals = recount(proposals, instance_map)
    reason = "" if proposals else NO_OBJECT
    return RigidObjects(
        instance_map,
        proposals,
        reason,
        noise,
        reliable,
        ego_motion.cpu().numpy(),
        _ego_residual(frame),
        candidates,
        ego_shares.cpu().numpy().astype(np.float32),
        fates,
    )


def cluster_runs(
    cells: Cells,
    std: Tensor,
    first_std: Tensor,
    camera: Camera,
    settings: MotionSettings,
    seed: int,
    frame_id: str,
) -> tuple[Tensor, Ground | None, Candidates, Tensor] | None:
    """All runs of a frame and what they agree on.

    Args:
        cells: Measurements.
        std: (3,) float, noise of x, y and disparity, pixels.
        first_std: 0-d float, noise of the first disparity that predictions inherit, pixels.
        camera: The camera.
        settings: Section ``motion``.
        seed: The experiment's seed.
        frame_id: The frame.

    Returns:
        The ego-motion (4, 4), the ground where there is one, the candidates, and (n,) the share of the cells
        that each run's ego-motion explains; None where too few runs found an ego-motion.
    """
    clustering = settings.clustering
    draws = Draws(seed, frame_id, settings.runs, cells.device)
    allowed = cells.reliable & (draws.uniform(len(cells)) < clustering.cell_share)
    inlier_limit = float(special.chdtri(3, clustering.inlier_tail))
    ground, on_ground = None, None
    if settings.ground.margin_m > 0:
        ground = find_ground(cells, draws.uniform(PROPOSALS, 3)[0], std[2], camera, settings.ground)
    if ground is not None:
        height = ground.height(project(cells.points, camera)[:, :2], cells.disparity)
        on_ground = height < settings.ground.margin_m
    weights = cell_weights(cells, on_ground)
    background = find_background(cells, allowed, weights, draws, std, first_std, camera, inlier_limit)
    trusted = background.shares >= clustering.min_background_share
    if int(trusted.sum()) < settings.ensemble.consistency_share * settings.runs:
        return None
    best = background.shares.argmax()
    if on_ground is not None:
        allowed = allowed & ~on_ground
    models = Clustering(cells, background, allowed, std, camera, clustering, inlier_limit).run(draws)
    still = is_static(
        models.motions, background.motions[models.run], models.support, cells, camera, settings.static
    )
    moving = ~still & trusted[models.run]
    models = Models(models.run[moving], models.motions[moving], models.support[moving], models.graph_cells)
    models = merge_models(models, cells, background.precision, camera, clustering)
    spacing = float(cells.rows[-1] - cells.rows[0]) / max(1, cells.shape[0] - 1)
    masks = label_runs(cells, background, models, camera, spacing**2, clustering)
    candidates = combine_runs(masks, settings.runs, settings.ensemble)
    return background.motions[best], ground, candidates, background.shares


def _draw(
    frame: PixelEvidence, candidates: Candidates, shape: tuple[int, int], settings: MotionSettings
) -> dict[int, ObjectMask | str]:
    """The kept candidates at full resolution, by their index, or why the evidence for one is too weak."""
    filters = settings.filters
    fates: dict[int, ObjectMask | str] = {}
    prior = object_prior(settings.clustering, frame.weight.device)
    for index in candidates.kept.nonzero()[:, 0].tolist():
        votes = functional.interpolate(
            candidates.votes[index][None, None], frame.weight.shape, mode="bilinear", align_corners=False
        )[0, 0]
        drawn = draw_object(
            frame, candidates.motions[index], votes, prior, settings.boundary, settings.clustering.cost_limit
        )
        if drawn is None:
            fates[index] = "nothing measured inside"
            continue
        if drawn.evidence < filters.min_evidence:
            fates[index] = f"evidence {drawn.evidence:.1f} < {filters.min_evidence:g}"
            continue
        if failure := drawn.photometric.failure(
            filters.min_photometric_gain, filters.min_photometric_significance
        ):
            fates[index] = failure
            continue
        points = frame.crop(drawn.rows, drawn.columns).points().flatten(0, 1)
        moved = move(drawn.motion, points) - move(frame.ego_motion, points)
        fates[index] = ObjectMask(
            drawn.rows,
            drawn.columns,
            drawn.cost.cpu().numpy(),
            float(candidates.consistency[index]),
            float(candidates.scores[index]),
            moved.norm(dim=-1).view(drawn.cost.shape).cpu().numpy(),
        )
    return fates


def _ego_residual(frame: PixelEvidence) -> npt.NDArray[np.float32]:
    points = frame.points()
    precision = frame.precision(points)
    predicted = project(move(frame.ego_motion, points.flatten(0, 1)), frame.camera).view(points.shape)
    deviation = precision.whiten(predicted - frame.measured).norm(dim=-1)
    residual = torch.where(frame.weight > 0, deviation, torch.nan)
    return np.asarray(residual.cpu().numpy(), np.float32)


def _unit_image(image: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device).float() / 255


def _check_sizes(
    size: tuple[int, int],
    valid: npt.NDArray[np.bool_] | None,
    images: tuple[npt.NDArray[np.uint8], ...] | None,
) -> None:
    if valid is not None and valid.shape != size:
        raise ShapeError(f"valid must be {size} like the disparity. Got: {valid.shape}")
    for image in images or ():
        if image.shape != (*size, 3):
            raise ShapeError(f"images must be {(*size, 3)} like the disparity. Got: {image.shape}")
