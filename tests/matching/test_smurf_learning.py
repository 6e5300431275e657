"""The real network learns from images alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from gestalt.config.optical_flow import OpticalFlowSettings
from gestalt.config.presets import default_settings
from gestalt.matching.raft import Raft
from gestalt.matching.smurf_loop import train_optical_flow
from gestalt.matching.training_pairs import NONE_BEFORE, TrainingPairs

SIDE, CROP, UPDATES = 128, 64, 2
# From the first image to the second one, x and y, px.
DISPLACEMENT = (3, -2)


def moving_texture() -> np.ndarray:
    """(2, 128, 128, 3) uint8, a texture of two scales that moves as a whole."""
    noise, reach = np.random.default_rng(0), max(abs(shift) for shift in DISPLACEMENT)
    texture = np.zeros((SIDE + 2 * reach, SIDE + 2 * reach, 3))
    for blur in (3, 6):
        texture += blur * ndimage.gaussian_filter(noise.standard_normal(texture.shape), (blur, blur, 0))
    pixels = np.uint8(np.clip(128 + 45 * texture / texture.std(), 0, 255))

    def view(x: int, y: int) -> np.ndarray:
        return pixels[reach + y : reach + y + SIDE, reach + x : reach + x + SIDE]

    return np.stack([view(0, 0), view(-DISPLACEMENT[0], -DISPLACEMENT[1])])


def short_training() -> OpticalFlowSettings:
    """The embedded recipe on one small pair, without augmentation."""
    plain: OpticalFlowSettings = default_settings("optical_flow", "embedded")
    return dataclasses.replace(
        plain,
        updates=UPDATES,
        steps=60,
        batch_size=1,
        decay_start=60,
        log_every=20,
        checkpoint_every=60,
        loader_threads=1,
        crop=dataclasses.replace(
            plain.crop,
            height=CROP,
            width=CROP,
            context_rows_px=SIDE - CROP,
            context_columns_px=SIDE - CROP,
            flip_prob=0.0,
            vertical_flip_prob=0.0,
            scale_prob=0.0,
            stretch_prob=0.0,
        ),
        colour=dataclasses.replace(plain.colour, separate_prob=0.0, eraser_prob=0.0),
        coarse_start=dataclasses.replace(plain.coarse_start, levels=2, steps_per_level=20),
    )


@torch.no_grad()
def errors(network: nn.Module, images: np.ndarray) -> list[float]:
    """Mean end-point error from first to second and back, px."""
    pair = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.tensor(DISPLACEMENT, dtype=torch.float32).view(2, 1, 1)
    found: list[Tensor] = network(pair, pair.flip(0), UPDATES)
    return [float(value) for value in (found[-1] - torch.stack([truth, -truth])).norm(dim=1).mean((1, 2))]


def test_raft_finds_a_displacement_that_nobody_told_it(tmp_path: Path) -> None:
    """One of the two directions: the minimum that a single pair leads to first has one answer for both."""
    images = moving_texture()
    pairs = TrainingPairs(
        images.__getitem__, np.array([[0, 1]]), np.array([False]), np.array([NONE_BEFORE]), (SIDE, SIDE)
    )
    before: list[float] = []

    def make_network() -> nn.Module:
        network = Raft("small")
        before.extend(errors(network, images))
        return network

    result = train_optical_flow(
        pairs,
        short_training(),
        seed=0,
        device=torch.device("cpu"),
        cache_dir=tmp_path,
        make_network=make_network,
    )
    after = errors(result.network, images)
    assert min(after) < 1 < 2.5 < min(before), (before, after)
