"""Settings of the section ``motion``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.matching import DenseInverseSearchSettings, RaftSettings, SemiGlobalMatchingSettings
from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class NoiseSettings:
    """Standard deviation of optical flow and disparity."""

    estimator: str = setting(
        "truncated (CUPS: variance below the limit) or median (robust)", choices=("truncated", "median")
    )
    min_std_px: float = setting("lower bound, px (CUPS: 2)", low=0.005)
    max_std_px: float = setting(
        "upper bound, px (CUPS: 10); residuals beyond sqrt(2) times it are ignored", low=0.1
    )
    unknown_std_px: float = setting(
        "taken for measurements that came without a reverse direction, which alone betrays noise, px",
        low=0.005,
    )
    propagate: bool = setting("let the noise of the first disparity widen what its prediction may miss")


@dataclass(frozen=True)
class ReliabilitySettings:
    """Which pixels may vote for a motion."""

    min_depth_m: float = setting("nearer points are left out, m (CUPS: 5.5)", low=0)
    max_depth_m: float = setting("farther points are left out, m (CUPS: 70)", low=0)
    min_disparity_px: float = setting("smaller disparities are left out, px", low=0)
    consistency_share: float = setting(
        "forward-backward test: share of the squared lengths (CUPS: 0.01)", low=0
    )
    consistency_px2: float = setting("forward-backward test: constant, px^2 (CUPS: 0.5)", low=0)
    noise_factor: float = setting(
        "how many times its expected size noise may add to a test; 0 is the published test", low=0
    )
    edge_threshold: float = setting(
        "depth edges: Sobel magnitude of log(disparity) (CUPS: 0.2 at 640 rows)", low=0
    )
    edge_margin_px: int = setting("depth edges are widened by this much, px (CUPS: 2)", low=0)
    min_reliable_px: int = setting("a frame with fewer reliable pixels gets no proposal (CUPS: 512)", low=1)


@dataclass(frozen=True)
class ClusteringSettings:
    """One randomised run of rigid-motion clustering (SF2SE3)."""

    grid_rows: int = setting("rows of the grid of cells that measurements are sampled at (CUPS: 38)", low=8)
    cell_share: float = setting("share of cells a run draws; 1 takes all (CUPS)", low=0.05, high=1)
    outer_iterations: int = setting("rounds of proposing, selecting and splitting (CUPS: 6)", low=1)
    proposals: int = setting("proposed motions per round (CUPS: 100)", low=1)
    proposal_points: int = setting("most cells behind a proposed motion (CUPS: 5)", low=3)
    growth: str = setting(
        "intended: near one member, rigid with all; released: the reverse", choices=("intended", "released")
    )
    rigidity_m: float = setting(
        "two cells of a body keep their distance to within this, m (CUPS: 0.03)", low=0
    )
    link_distance_m: float = setting("cells of a proposal lie this near each other, m (CUPS: 5)", low=0)
    reach_m: float = setting("a motion explains cells this near the middle of its proposal, m", low=0)
    noise_factor: float = setting("standard deviations of depth noise that distances may differ by", low=0)
    max_graph_cells: int = setting("most unexplained cells in the rigidity graph", low=16)
    inlier_tail: float = setting(
        "cells whose deviation noise exceeds with a smaller probability are outliers (CUPS: 0.0455)",
        low=1e-6,
        high=0.5,
    )
    prior_translation_m: float = setting(
        "spread of object motion around the ego-motion, m; 0 uses no prior", low=0
    )
    prior_rotation_rad: float = setting(
        "spread of object rotation around the ego-motion, rad; 0 uses no prior", low=0
    )
    min_gain: float = setting("share of the cells that a motion must newly explain (CUPS: 0.0015)", low=0)
    max_overlap: float = setting(
        "soft IoU with an accepted motion above which one is a copy (CUPS: 0.15)", low=0
    )
    selections: int = setting("motions accepted per round (CUPS: 1)", low=1)
    splits: int = setting("connected parts kept of an accepted motion (CUPS: 3)", low=1)
    merge_cost: float = setting(
        "a larger motion takes over a smaller one whose cells it fits this little worse (squared deviation)",
        low=0,
    )
    max_models: int = setting("most motions of a run (CUPS: 10)", low=1)
    link_std: float = setting("spatial spread in normalised image coordinates (CUPS: 0.05)", low=0)
    window_cells: int = setting("reach of the spatial model, cells to each side (CUPS: 4)", low=1)
    smoothing_cells: int = setting("half width of the window that evidence is averaged over, cells", low=0)
    cost_limit: float = setting("squared deviations count at most this much", low=1)
    min_component_px: int = setting("smaller components of a run are dropped, px (CUPS: 128)", low=1)
    min_background_share: float = setting(
        "share of reliable cells the ego-motion must explain; fewer: ego-motion not found", low=0, high=1
    )


@dataclass(frozen=True)
class GroundSettings:
    """The ground plane, which does not move."""

    margin_m: float = setting("lower pixels belong to the ground, m; 0 looks for none", low=0)
    tolerance_stds: float = setting(
        "standard deviations of disparity within which a cell lies on it", low=0.1
    )
    min_share: float = setting("least share of the reliable cells on it", low=0, high=1)


@dataclass(frozen=True)
class StaticSettings:
    """When a rigid cluster is standing, or cannot be an object."""

    max_rotation_rad: float = setting(
        "standing bodies turn less than this against the ego-motion, rad", low=0
    )
    max_displacement_m: float = setting("and their points move less than this (median), m", low=0)
    max_flow_px: float = setting("or appear to, px", low=0)
    implausible_rotation_rad: float = setting("nothing turns more than this between two frames, rad", low=0)


@dataclass(frozen=True)
class EnsembleSettings:
    """From the masks of n runs to proposals."""

    consistency: str = setting(
        "coverage: mean number of masks over a mask (CUPS); detections: number of runs that found it",
        choices=("coverage", "detections"),
    )
    consistency_share: float = setting("least consistency, share of the runs (CUPS: 0.8)", low=0, high=1)
    detection_iou: float = setting(
        "masks of two runs that overlap this much are one object (detections)", low=0, high=1
    )
    nms_sigma: float = setting("width of Matrix NMS' Gaussian (CUPS: 2)", low=0)
    nms_score: float = setting("least score after Matrix NMS (CUPS: 0.6)", low=0, high=1)


@dataclass(frozen=True)
class BoundarySettings:
    """Masks at full resolution."""

    guided_radius: float = setting(
        "radius of the image-guided filter, share of the rows; 0 turns it off", low=0
    )
    guided_eps: float = setting("smoothness of the guided filter, intensity^2 of images in [0, 1]", low=0)
    box_radius: float = setting("radius of the plain filter where no image guides, share of the rows", low=0)
    vote_weight: float = setting("weight of the runs' votes against the evidence of a pixel", low=0)
    depth_share: float = setting("disparities of an object may exceed its sure pixels' by this share", low=0)
    depth_slack_px: float = setting("and by this much, px", low=0)
    hidden_weight: float = setting(
        "weight of a pixel that is hidden at t+1 and as deep as the object", low=0, high=1
    )
    photometric_weight: float = setting(
        "weight of the difference of photometric errors (each in [0, 1]); 0 ignores colour", low=0
    )
    photometric_share: float = setting(
        "weight of a pixel that has a colour and a depth but no consistent optical flow", low=0, high=1
    )
    disparity_slack_px: float = setting(
        "how far the disparity may be off, px, when the images are asked whether a motion explains them better "
        "than the standing scene",
        low=0,
    )
    completion_radius: float = setting(
        "masks at the sides, where nothing can be measured, grow to the edges of the image smoothed by this, "
        "share of the rows; 0 leaves them cut off",
        low=0,
        high=0.1,
    )


@dataclass(frozen=True)
class FilterSettings:
    """Which proposals are kept."""

    min_surface_m2: float = setting("least physical surface, m^2 (CUPS: 0.65)", low=0)
    min_area_px: int = setting("least area, px (CUPS: 64)", low=1)
    border_share: float = setting(
        "columns cleared at each side, share of the width (CUPS: 0.025)", low=0, high=0.5
    )
    min_measured_share: float = setting("least share of a mask with its own measurements", low=0, high=1)
    min_evidence: float = setting("least mean gain in squared deviation over the ego-motion", low=0)
    min_photometric_gain: float = setting(
        "least share of the ego-motion's photometric error that the object's motion removes", low=-1, high=1
    )
    min_photometric_significance: float = setting(
        "least standard errors by which the object's motion explains the colours better than the ego-motion; "
        "-1000 does not ask",
        low=-1000,
    )


@dataclass(frozen=True)
class MonocularSettings:
    """Moving objects from the optical flow of one camera (``motion.source: monocular``)."""

    grid_rows: int = setting("rows of the grid of cells that optical flow is sampled at", low=8)
    cell_share: float = setting("share of cells a run draws; 1 takes all", low=0.05, high=1)
    inlier_tail: float = setting(
        "cells whose deviation noise exceeds with a smaller probability are outliers", low=1e-6, high=0.5
    )
    min_background_share: float = setting(
        "share of reliable cells the camera's motion must explain; fewer: ego-motion not found",
        low=0,
        high=1,
    )
    ground_share: float = setting(
        "least share of the reliable cells below the horizon on the ground; 0 looks for none", low=0, high=1
    )
    ground_slack: float = setting(
        "share of its nearness by which something may lie under the ground", low=0, high=1
    )
    overhang_share: float = setting(
        "share by which what stands may be nearer than what is seen below it: bumpers, knees", low=0
    )
    rounds: int = setting("rounds of proposing and selecting", low=1)
    proposals: int = setting("proposed motions per round", low=1)
    proposal_cells: int = setting("most cells behind a proposed motion", low=3)
    link_share: float = setting("cells of a proposal lie this near its seed, share of the rows", low=0)
    reach_share: float = setting(
        "a motion explains cells this near the middle of its proposal, share of the rows", low=0
    )
    prior_stretch: float = setting(
        "spread of how optical flow changes inside an object, px per px (size, rotation, slant)", low=1e-4
    )
    min_gain: float = setting("share of the cells that a motion must newly explain", low=0)
    max_overlap: float = setting("soft IoU with an accepted motion above which one is a copy", low=0)
    selections: int = setting("motions accepted per round", low=1)
    splits: int = setting("connected parts kept of an accepted motion", low=1)
    max_models: int = setting("most motions of a run", low=1)
    max_cells: int = setting("most unexplained cells that are clustered", low=16)
    link_cells: int = setting("cells this far apart can touch", low=1)
    smoothing_cells: int = setting("half width of the window that evidence is averaged over, cells", low=0)
    cost_limit: float = setting("squared deviations count at most this much", low=1)
    min_component_px: int = setting("smaller components of a run are dropped, px", low=1)
    min_flow_px: float = setting(
        "optical flow of an object differs from what may stand by this much (median), px", low=0
    )
    min_photometric_gain: float = setting(
        "least share of the standing scene's photometric error that the object's motion removes",
        low=-1,
        high=1,
    )


@dataclass(frozen=True)
class MotionSettings:
    """Moving objects from stereo pairs."""

    runs: int = setting("randomised runs of the ensemble (CUPS: 8)", low=1)
    source: str = setting(
        "stereo (scene flow, CUPS), monocular (optical flow of one camera) or none (no proposals of motion)",
        choices=("stereo", "monocular", "none"),
    )
    matcher: str = setting(
        "classic (dense inverse search and semi-global matching, no weights) or raft (SMURF)",
        choices=("classic", "raft"),
    )
    dense_inverse_search: DenseInverseSearchSettings = section(
        DenseInverseSearchSettings, "optical flow of the classic matcher"
    )
    semi_global_matching: SemiGlobalMatchingSettings = section(
        SemiGlobalMatchingSettings, "disparity of the classic matcher"
    )
    raft: RaftSettings = section(RaftSettings, "optical flow and disparity of the learnt matcher")
    noise: NoiseSettings = section(NoiseSettings, "noise of the measurements")
    reliability: ReliabilitySettings = section(ReliabilitySettings, "which pixels may vote")
    clustering: ClusteringSettings = section(ClusteringSettings, "one run of rigid-motion clustering")
    ground: GroundSettings = section(GroundSettings, "the ground plane")
    static: StaticSettings = section(StaticSettings, "standing and impossible bodies")
    ensemble: EnsembleSettings = section(EnsembleSettings, "agreement of the runs")
    boundary: BoundarySettings = section(BoundarySettings, "masks at full resolution")
    filters: FilterSettings = section(FilterSettings, "which proposals are kept")
    monocular: MonocularSettings = section(MonocularSettings, "moving objects from one camera")
