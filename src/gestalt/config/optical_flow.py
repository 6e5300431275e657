"""Settings of the section ``optical_flow``: how a network learns displacements from video alone.

Numbers in brackets are those that SMURF (Stone et al., CVPR 2021) was published with, for KITTI.
"""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class CensusSettings:
    """The photometric loss: soft Hamming distance of normalised census transforms."""

    weight: float = setting("weight of the loss (1)", low=0)
    patch_px: int = setting("side of the neighbourhood, px, odd (7)", low=3, high=15)
    contrast: float = setting(
        "softness of the normalised differences, squared grey levels of 0..255 (0.81)", low=1e-6
    )
    distance: float = setting("softness of the Hamming distance (0.1)", low=1e-6)
    offset: float = setting("robust penalty: what is added to the distance (0.01)", low=1e-6)
    power: float = setting("robust penalty: exponent (0.4)", low=0.05, high=2)


@dataclass(frozen=True)
class SmoothnessSettings:
    """The edge-aware smoothness of displacements."""

    weight: float = setting(
        "weight of the loss (2 of second order; first order: 2.5 Sintel, 2 Chairs)", low=0
    )
    order: int = setting("derivative that is kept small; the second lets planes be (2)", low=1, high=2)
    edge_weight: float = setting("how fast colour edges, of images in 0..1, free the motion (150)", low=0)
    softness_px: float = setting("softness of the absolute value at 0, px (0.001)", low=1e-9)


@dataclass(frozen=True)
class OcclusionSettings:
    """Which pixels the photometric loss leaves out, because the other image does not show them."""

    method: str = setting(
        "range_map (pixels that no reverse displacement reaches) or forward_backward (KITTI)",
        choices=("range_map", "forward_backward"),
    )
    start_step: int = setting("step from which pixels are left out (range_map 0, KITTI 25000)", low=0)
    consistency_share: float = setting("forward-backward test: share of the squared lengths (0.01)", low=0)
    consistency_px2: float = setting("forward-backward test: constant, px^2 (0.5)", low=0)


@dataclass(frozen=True)
class SelfSupervisionSettings:
    """The network, seeing the whole crop, teaches itself, seeing less of it."""

    weight: float = setting("weight of the loss once it is fully on (0.3); 0 turns it off", low=0)
    start_step: int = setting("step at which it starts (31250)", low=0)
    ramp_steps: int = setting("steps over which its weight rises (6250)", low=0)
    margin_px: int = setting("what the student does not see at each side of the crop, px (64)", low=0)
    teacher_sigma: float = setting(
        "forward-backward error that the teacher is trusted with, share of the crop's diagonal (0.003)",
        low=1e-9,
    )
    student_sigma: float = setting("the same for the student, which then needs no teacher (0.03)", low=1e-9)
    softness_px: float = setting("softness of the absolute difference at 0, px (0.001)", low=1e-9)


@dataclass(frozen=True)
class CropSettings:
    """Which part of a pair, at which size, a step sees."""

    height: int = setting("rows of the crop, a multiple of 8 (296)", low=8)
    width: int = setting("columns of the crop, a multiple of 8 (696)", low=8)
    context_rows_px: int = setting(
        "rows beyond the crop that displacements may lead to, both sides together (200)", low=0
    )
    context_columns_px: int = setting("columns beyond the crop, both sides together (400)", low=0)
    flip_prob: float = setting("probability of mirroring left and right (0.5)", low=0, high=1)
    vertical_flip_prob: float = setting("probability of mirroring top and bottom (0.1)", low=0, high=1)
    scale_prob: float = setting("probability of another scale (0.8)", low=0, high=1)
    scale_low_log2: float = setting("smallest scale, as a power of two (-0.2)", low=-3, high=3)
    scale_high_log2: float = setting("largest scale, as a power of two (0.6)", low=-3, high=3)
    stretch_prob: float = setting("probability of another shape (0.8)", low=0, high=1)
    stretch_log2: float = setting(
        "largest ratio of the two scales' shares, as a power of two (0.2)", low=0, high=3
    )


@dataclass(frozen=True)
class ColourSettings:
    """What the network, but never the loss, sees changed."""

    separate_prob: float = setting("probability of a change of its own for either image (0.2)", low=0, high=1)
    joint_prob: float = setting(
        "probability of one change for both images, where they get none of their own (0: released)",
        low=0,
        high=1,
    )
    hue: float = setting("largest turn of the hue, share of the circle (0.159)", low=0, high=0.5)
    saturation: float = setting("largest relative change of the saturation (0.4)", low=0, high=1)
    contrast: float = setting("largest relative change of the contrast (0.4)", low=0, high=1)
    brightness: float = setting("largest change of images in 0..1 (0.4)", low=0, high=1)
    eraser_prob: float = setting("probability of erasing parts of the second image (0.5)", low=0, high=1)
    eraser_max: int = setting("most erased rectangles (3)", low=1)
    eraser_low_px: int = setting("shortest side of an erased rectangle, px (50)", low=1)
    eraser_high_px: int = setting("longest side of an erased rectangle, px (100)", low=1)


@dataclass(frozen=True)
class CoarseStartSettings:
    """Ours: the losses of the first steps look at smaller images, where long displacements are short."""

    levels: int = setting(
        "how often the images are halved for the losses of the first steps (0)", low=0, high=3
    )
    steps_per_level: int = setting("steps until the losses look at images twice as large", low=1)
    rest_weight: float = setting(
        "weight of the length of displacements while images are small, per px; keeps what nothing speaks for "
        "from wandering off (0)",
        low=0,
    )


@dataclass(frozen=True)
class MultiFrameSettings:
    """The optional second phase: what one pair hides, the frame before it shows."""

    enabled: bool = setting("run the second phase")
    updates: int = setting("updates of the network that makes the labels (32)", low=1, high=64)
    fit_steps: int = setting("Adam steps of a frame's small network (2000)", low=1)
    fit_learning_rate: float = setting("first step size of these fits (0.01)", low=1e-9)
    fit_decay: float = setting("factor of the step size (0.8)", low=0, high=1)
    fit_decay_steps: int = setting("steps between two such factors (100)", low=1)
    frames_at_once: int = setting("frames whose small networks are fitted together", low=1)
    from_scratch: bool = setting(
        "the second phase starts from new weights (true) or goes on with the first's"
    )
    steps: int = setting("steps of the second phase (30000)", low=1)
    decay_start: int = setting("step from which its step size falls (25000)", low=0)
    decay_steps: int = setting("steps in which it halves (1000)", low=1)
    max_length_px: float = setting("longer displacements are no label, px (400)", low=1)


@dataclass(frozen=True)
class OpticalFlowSettings:
    """Training without labels, as SMURF."""

    variant: str = setting("the network: large (as published) or small", choices=("large", "small"))
    updates: int = setting("updates of the network per pass (12)", low=1, high=64)
    updates_at_once: int = setting(
        "updates whose losses are computed together: more is faster on a GPU and takes memory; "
        "0 is all on a GPU and one on a CPU",
        low=0,
    )
    sequence_decay: float = setting(
        "weight of an update's losses against those of the next one (0.8)", low=0, high=1
    )
    steps: int = setting("optimiser steps (75000)", low=1)
    batch_size: int = setting("pairs per step (1)", low=1)
    stereo_share: float = setting(
        "share of drawn pairs that are the two views of one time, where displacements are larger",
        low=0,
        high=1,
    )
    learning_rate: float = setting("step size of Adam (0.0002)", low=1e-9)
    decay_start: int = setting("step from which the step size falls (62500)", low=0)
    decay_steps: int = setting("steps in which it halves (2500)", low=1)
    clip_norm: float = setting("largest norm of the gradient (1)", low=1e-9)
    precision: str = setting(
        "auto (bf16 on a GPU, fp32 elsewhere), fp32 or bf16; losses are always fp32",
        choices=("auto", "fp32", "bf16"),
    )
    keep_in_memory: bool = setting(
        "decode every image once and keep it; false reads images when they are drawn"
    )
    loader_threads: int = setting("threads that read ahead", low=1)
    log_every: int = setting("steps per row of the curve, which holds their mean", low=1)
    checkpoint_every: int = setting("steps between two resumable states", low=1)
    crop: CropSettings = section(CropSettings, "which part of a pair a step sees")
    colour: ColourSettings = section(ColourSettings, "what the network sees changed")
    census: CensusSettings = section(CensusSettings, "the photometric loss")
    smoothness: SmoothnessSettings = section(SmoothnessSettings, "the smoothness of displacements")
    coarse_start: CoarseStartSettings = section(CoarseStartSettings, "small images for the first losses")
    occlusion: OcclusionSettings = section(OcclusionSettings, "pixels without a counterpart")
    self_supervision: SelfSupervisionSettings = section(
        SelfSupervisionSettings, "the network as its own teacher"
    )
    multi_frame: MultiFrameSettings = section(MultiFrameSettings, "the second phase")
