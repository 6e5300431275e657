"""Settings of the section ``finetune``: from few images that people labelled to a network in their classes."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting
from gestalt.config.training import OptimiserSettings, PhotometricSettings

# Where the weights come from, see `gestalt.training.starting_point`.
STARTS = ("network", "backbone", "scratch")
# How a class finds the pseudo-class whose output it starts from, see `gestalt.training.class_outputs`.
CLASS_STARTS = ("largest", "one_to_one", "fresh")
TRAINED = ("heads", "all")


@dataclass(frozen=True)
class FinetuneSettings:
    """Fine-tuning on few labelled images."""

    label_space: str = setting("classes of the network, such as cityscapes19; a file of data/label_spaces")
    share: float = setting("share of the labelled images that is drawn, at least one image", low=0, high=1)
    draw_seed: int = setting("which images are drawn; a smaller share is a part of a larger one", low=0)
    start: str = setting(
        "network: all weights of the starting network but outputs per class; backbone: its trunk and pyramid; "
        "scratch: none",
        choices=STARTS,
    )
    class_start: str = setting(
        "outputs of a class start as those of the pseudo-class that lies most on it (largest), of one of its own "
        "(one_to_one), or from random numbers (fresh)",
        choices=CLASS_STARTS,
    )
    trained: str = setting(
        "heads: trunk, pyramid and every normalisation stay as they start, where they do not start from random; "
        "all: only normalisation stays",
        choices=TRAINED,
    )
    initial_backbone: str = setting(
        "with start scratch: file or folder of a self-supervised trunk; empty starts from random"
    )
    budgets: list[float] = setting("shares of labelled images that have a number of steps, ascending", low=0)
    budget_steps: list[int] = setting(
        "optimiser steps of each; a share in between takes those of the next larger one", low=1
    )
    batch_size: int = setting("images per step", low=1)
    height_px: int = setting(
        "rows of a training window; 0 takes those that the starting network was trained at", low=0
    )
    flip_prob: float = setting("chance of mirroring; CUPS and U2Seg: 0.5", low=0, high=1)
    scale_low: float = setting("smallest scale before the window is cut; CUPS and U2Seg: 0.5", low=0.05)
    scale_high: float = setting("largest scale; CUPS and U2Seg: 2", low=0.05)
    min_object_px: int = setting("objects with fewer pixels are left out", low=1)
    keep_in_memory: bool = setting("keep decoded images and labels as uint8 in memory")
    checkpoint_every: int = setting("steps between resumable checkpoints", low=1)
    photometric: PhotometricSettings = section(PhotometricSettings, "colour and sharpness")
    optimiser: OptimiserSettings = section(OptimiserSettings, "AdamW and its schedule")
