"""Settings of the section ``distillation``: how a small ViT learns features from frames alone.

Numbers in brackets are those that DINO (Caron et al., ICCV 2021) was published with, for ViT-S on ImageNet, where 100
epochs with 1024 images per step are 125100 steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting


@dataclass(frozen=True)
class VitSettings:
    """The network."""

    patch_px: int = setting("side of a patch, px (16 or 8)", low=2, high=32)
    width: int = setting("length of a token (384)", low=8)
    depth: int = setting("blocks (12)", low=1)
    heads: int = setting("heads of the attention, which divide the width (6)", low=1)
    mlp_ratio: float = setting("hidden width of a block's MLP, in widths (4)", low=0.5)
    position_grid: int = setting("side of the square grid of position embeddings, cells (14 or 28)", low=1)
    drop_path: float = setting("share of dropped paths in the student's last block (0.1)", low=0, high=0.9)


@dataclass(frozen=True)
class ViewSettings:
    """Which parts of a frame, at which size, a step sees: a square window of it, and crops of that window."""

    window_low: float = setting(
        "smallest side of the window, share of the frame's shorter side", low=0.02, high=1
    )
    window_high: float = setting("largest side of the window", low=0.02, high=1)
    global_px: int = setting("side of a global crop, px, a multiple of the patch (224)", low=8)
    global_low: float = setting("smallest area of a global crop, share of the window (0.4)", low=1e-3, high=1)
    global_high: float = setting("largest area of a global crop (1)", low=1e-3, high=1)
    local_count: int = setting("local crops per image (8)", low=0)
    local_px: int = setting("side of a local crop, px, a multiple of the patch (96)", low=8)
    local_low: float = setting("smallest area of a local crop, share of the window (0.05)", low=1e-3, high=1)
    local_high: float = setting("largest area of a local crop (0.4)", low=1e-3, high=1)
    stretch: float = setting(
        "largest ratio of a crop's sides; its inverse is the smallest (1.3333)", low=1, high=4
    )
    flip_prob: float = setting("probability of mirroring a crop left and right (0.5)", low=0, high=1)


@dataclass(frozen=True)
class ViewColourSettings:
    """What is done to the colours of crops."""

    jitter_prob: float = setting("probability of other colours (0.8)", low=0, high=1)
    brightness: float = setting("largest relative change of the brightness (0.4)", low=0, high=1)
    contrast: float = setting("largest relative change of the contrast (0.4)", low=0, high=1)
    saturation: float = setting("largest relative change of the saturation (0.2)", low=0, high=1)
    hue: float = setting("largest turn of the hue, share of the circle (0.1)", low=0, high=0.5)
    grey_prob: float = setting("probability of no colours (0.2)", low=0, high=1)
    first_blur_prob: float = setting("probability of blurring the first global crop (1)", low=0, high=1)
    second_blur_prob: float = setting("probability of blurring the second global crop (0.1)", low=0, high=1)
    local_blur_prob: float = setting("probability of blurring a local crop (0.5)", low=0, high=1)
    blur_low_px: float = setting("smallest sigma of the blur, px of the crop (0.1)", low=0)
    blur_high_px: float = setting("largest sigma of the blur, px of the crop (2)", low=0)
    solarise_prob: float = setting(
        "probability of inverting what is bright in the second global crop (0.2)", low=0, high=1
    )


@dataclass(frozen=True)
class ProjectionSettings:
    """The head that turns tokens into logits, thrown away after the training."""

    hidden: int = setting("width of its hidden layers (2048)", low=1)
    bottleneck: int = setting("length of the unit vector before the last layer (256)", low=1)
    outputs: int = setting("logits (65536)", low=2)


@dataclass(frozen=True)
class TemperatureSettings:
    """How sharp student and teacher are, and what keeps the teacher from always answering the same."""

    student: float = setting("temperature of the student (0.1)", low=1e-3)
    teacher_first: float = setting("temperature of the teacher at the start (0.04)", low=1e-3)
    teacher: float = setting(
        "temperature of the teacher after its warm-up (0.04; 0.07 in longer runs)", low=1e-3
    )
    warm_up_steps: int = setting(
        "steps from the first to the last temperature, in a straight line (0; 37530)", low=0
    )
    centre_momentum: float = setting(
        "share of the centre of the teacher's logits that a step keeps (0.9)", low=0, high=1
    )


@dataclass(frozen=True)
class DenseTermSettings:
    """Ours: tokens of the two global crops that show the same place learn from each other."""

    weight: float = setting("weight of the term (0); 0 turns it off and leaves its head out", low=0)
    points: int = setting("side of the square grid of places in the overlap", low=1)
    min_side_share: float = setting(
        "overlaps with a side below this share of a crop's do not count", low=0, high=1
    )


@dataclass(frozen=True)
class DistillationOptimiserSettings:
    """How weights change."""

    learning_rate: float = setting(
        "largest step size of AdamW for 256 images per step; scaled with them (0.0005)", low=1e-9
    )
    final_learning_rate: float = setting("step size at the end (0.000001)", low=0)
    warm_up_steps: int = setting("steps in which the step size rises from 0 (10 epochs: 12510)", low=0)
    weight_decay: float = setting("weight decay at the start; never of biases and norms (0.04)", low=0)
    final_weight_decay: float = setting("weight decay at the end (0.4)", low=0)
    clip_norm: float = setting("largest norm of the gradient of each tensor of weights (3)", low=1e-9)
    frozen_steps: int = setting("first steps in which the heads' last layers stay (1 epoch: 1251)", low=0)
    teacher_momentum: float = setting(
        "share of the teacher that a step keeps, at the start; rises to 1 (0.996)", low=0, high=1
    )


@dataclass(frozen=True)
class MonitorSettings:
    """When a training is given up: each limit must be broken in ``patience`` rows of the curve in a row."""

    start_step: int = setting("step from which limits count", low=0)
    patience: int = setting("rows of the curve", low=1)
    min_teacher_entropy: float = setting(
        "least entropy of the mean teacher distribution, share of log(outputs)", low=0, high=1
    )
    max_teacher_entropy: float = setting(
        "largest entropy of a teacher distribution, share of log(outputs)", low=0, high=1
    )
    min_spread: float = setting(
        "least standard deviation of the teacher's logits over images, mean over outputs", low=0
    )
    min_rank: float = setting("least effective rank of the features of a batch", low=0)
    min_token_spread: float = setting(
        "least spread of the unit tokens of an image: 1 minus the squared length of their mean", low=0, high=1
    )
    max_attention_entropy: float = setting(
        "largest entropy of the attention of CLS, share of log(cells)", low=0, high=1
    )
    max_loss: float = setting("largest loss between crops, share of log(outputs)", low=0)


@dataclass(frozen=True)
class DistillationSettings:
    """Training without labels, as DINO."""

    vit: VitSettings = section(VitSettings, "the network")
    steps: int = setting("optimiser steps (125100)", low=1)
    batch_size: int = setting("images per step, of all devices together (1024)", low=1)
    images_at_once: int = setting(
        "images per forward pass of a device; a step adds up as many as it needs; 0 is all", low=0
    )
    precision: str = setting(
        "auto (bf16 on a GPU, fp32 elsewhere), fp32 or bf16; losses are always fp32",
        choices=("auto", "fp32", "bf16"),
    )
    images_on_device: bool = setting("keep all frames on the device; false sends those of a step")
    log_every: int = setting("steps per row of the curve, which holds their mean", low=1)
    checkpoint_every: int = setting("steps between two resumable states", low=1)
    views: ViewSettings = section(ViewSettings, "which parts of a frame a step sees")
    colour: ViewColourSettings = section(ViewColourSettings, "the colours of crops")
    projection: ProjectionSettings = section(
        ProjectionSettings, "the head of the CLS token, and of the tokens"
    )
    temperature: TemperatureSettings = section(TemperatureSettings, "student, teacher and centre")
    dense: DenseTermSettings = section(DenseTermSettings, "the term between tokens")
    optimiser: DistillationOptimiserSettings = section(DistillationOptimiserSettings, "how weights change")
    monitors: MonitorSettings = section(MonitorSettings, "when a training is given up")
