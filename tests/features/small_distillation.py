"""Tiny settings and a tiny set of frames, for tests of the self-distillation."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from gestalt.config.distillation import DistillationSettings
from gestalt.features.distillation_training import SETTINGS, read_settings
from gestalt.features.training_images import TrainingImages, make_images

SIZE = (40, 64)
QUICK = (
    "vit.width=24", "vit.depth=2", "vit.heads=2", "vit.position_grid=4", "vit.mlp_ratio=2", "steps=6", "batch_size=4",
    "log_every=2", "checkpoint_every=4", "views.global_px=24", "views.local_px=16", "views.local_count=2",
    "projection.hidden=16", "projection.bottleneck=8", "projection.outputs=32", "temperature.warm_up_steps=3",
    "temperature.teacher_first=0.03", "dense.points=3", "optimiser.warm_up_steps=2", "optimiser.frozen_steps=1",
    "optimiser.learning_rate=0.004", "optimiser.teacher_momentum=0.99",
)  # fmt: skip


def quick_settings(*overrides: str) -> DistillationSettings:
    """Every part of the training, in a few steps of a tiny network."""
    return read_settings(SETTINGS, [*QUICK, *overrides])


def noisy_frames(n: int = 10, size: tuple[int, int] = SIZE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(n, H, W, 3) smooth random colours, two frames of each texture."""
    frames = []
    for number in range(n):
        noise = np.random.default_rng(number // 2).standard_normal((*size, 3))
        smooth = 128 + 400 * ndimage.gaussian_filter(noise, (2, 2, 0))
        frames.append(np.clip(smooth + number % 2, 0, 255).astype(np.uint8))
    return np.stack(frames)


def noisy_images(n: int = 10) -> TrainingImages:
    """Those frames as a training set, with their sequences."""
    return make_images(noisy_frames(n), [f"s{number // 2}" for number in range(n)], origin="test")
