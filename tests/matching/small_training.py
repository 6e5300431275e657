"""A tiny network and a tiny set of pairs, for tests of the training."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from gestalt.config.optical_flow import OpticalFlowSettings
from gestalt.config.presets import default_settings
from gestalt.matching.training_pairs import NONE_BEFORE, TrainingPairs, find_previous

# Displacement of every frame to its next one, and of the left view to the right one, px.
SHIFT, DISPARITY = 3, 2
SIZE = (40, 64)


class TinyNetwork(nn.Module):
    """Soft winner over shifts of up to 5 px to either side, of features that two convolutions give."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1))
        self.sharpness = nn.Parameter(torch.tensor(2.0))

    def forward(self, first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        one, other = (functional.normalize(self.features(image), dim=1) for image in (first, second))
        shifts = torch.arange(-5, 6)
        padded = functional.pad(other, (5, 5, 0, 0))
        width = one.shape[-1]
        scores = torch.stack(
            [(one * padded[..., 5 + int(shift) : 5 + int(shift) + width]).sum(1) for shift in shifts], 1
        )
        smooth = functional.avg_pool2d(scores, 5, 1, 2)
        weights = torch.softmax(smooth * self.sharpness.exp(), 1)
        x = (weights * shifts.view(1, -1, 1, 1)).sum(1, keepdim=True)
        return [torch.cat([x, torch.zeros_like(x)], 1)] * updates


def tiny_network() -> nn.Module:
    return TinyNetwork()


def moving_pairs(n_sequences: int = 3, length: int = 3) -> TrainingPairs:
    """Textures that move by SHIFT px to the right per frame, in two views."""
    images: list[np.ndarray] = []
    pairs: dict[tuple[int, int], bool] = {}
    for sequence in range(n_sequences):
        noise = np.random.default_rng(sequence).standard_normal((SIZE[0], SIZE[1] + 40, 3))
        texture = np.uint8(np.clip(128 + 300 * ndimage.gaussian_filter(noise, (1.2, 1.2, 0)), 0, 255))
        for frame in range(length):
            start = 20 - SHIFT * frame
            for side in range(2):
                left = start + DISPARITY * side
                images.append(np.ascontiguousarray(texture[:, left : left + SIZE[1]]))
            number = len(images) - 2
            pairs[number, number + 1] = True
            if frame:
                pairs[number - 2, number] = False
    numbers, is_stereo = np.array(list(pairs), np.int64), np.array(list(pairs.values()))
    return TrainingPairs(images.__getitem__, numbers, is_stereo, find_previous(numbers, is_stereo), SIZE)


def unordered(pairs: TrainingPairs) -> TrainingPairs:
    """The same pairs without knowing which follow each other."""
    return dataclasses.replace(pairs, previous=np.full(len(pairs), NONE_BEFORE))


def quick_settings(**values: object) -> OpticalFlowSettings:
    """Every part of the training, in a few steps on small crops."""
    paper: OpticalFlowSettings = default_settings("optical_flow", "paper")
    quick = dataclasses.replace(
        paper,
        updates=2,
        steps=8,
        batch_size=2,
        decay_start=6,
        decay_steps=2,
        loader_threads=2,
        log_every=2,
        checkpoint_every=4,
        crop=dataclasses.replace(paper.crop, height=32, width=48, context_rows_px=8, context_columns_px=16),
        colour=dataclasses.replace(paper.colour, eraser_low_px=4, eraser_high_px=8),
        occlusion=dataclasses.replace(paper.occlusion, method="range_map", start_step=0),
        self_supervision=dataclasses.replace(paper.self_supervision, start_step=2, ramp_steps=2, margin_px=4),
        multi_frame=dataclasses.replace(
            paper.multi_frame,
            updates=1,
            fit_steps=10,
            frames_at_once=2,
            steps=6,
            decay_start=4,
            decay_steps=1,
        ),
    )
    return dataclasses.replace(quick, **values)
