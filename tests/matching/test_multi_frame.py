"""Displacements of occluded pixels from the frame before."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.config.optical_flow import MultiFrameSettings, OcclusionSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ShapeError
from gestalt.matching.multi_frame import (
    CHANNELS,
    _first_weights,
    fit_and_predict,
    fuse_frames,
    match_whole_images,
)
from gestalt.matching.warping import pixel_grid


@pytest.fixture(scope="module")
def quick() -> MultiFrameSettings:
    settings: MultiFrameSettings = default_settings("optical_flow", "paper").multi_frame
    return dataclasses.replace(settings, fit_steps=300, fit_decay_steps=60, updates=1)


@pytest.fixture(scope="module")
def occlusion() -> OcclusionSettings:
    settings: OcclusionSettings = default_settings("optical_flow", "paper").occlusion
    return settings


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_way_ahead_is_learnt_from_the_way_back(quick: MultiFrameSettings) -> None:
    """Ahead is back mirrored and half as fast again; a box of it is hidden, and filled in."""
    x, y = pixel_grid(24, 32)
    back = torch.stack([-2 - 0.05 * x, 0.03 * y])[None]
    ahead = -1.5 * back
    learnable = torch.ones(1, 24, 32, dtype=torch.bool)
    learnable[0, 8:14, 10:20] = False
    hidden = ahead.clone()
    hidden[:, :, 8:14, 10:20] = 99.0
    found = fit_and_predict(back, hidden, learnable, quick, generator())
    error = (found - ahead).square().sum(1).sqrt()
    assert float(error[0, 8:14, 10:20].mean()) < 0.25
    assert float(error.mean()) < 0.25


def test_frames_are_fitted_alone_however_many_at_once(quick: MultiFrameSettings) -> None:
    own = dataclasses.replace(quick, fit_steps=15)
    back = torch.randn(3, 2, 12, 16, generator=generator())
    ahead = torch.randn(3, 2, 12, 16, generator=generator()) * 2
    learnable = torch.rand(3, 12, 16, generator=generator()) > 0.3
    together = fit_and_predict(back, ahead, learnable, own, generator())
    # The same first weights, one plain network per frame, PyTorch's own loss.
    weights = _first_weights(3, generator())
    grid = 2 * pixel_grid(12, 16) / torch.tensor([15.0, 11.0]).view(2, 1, 1) - 1
    for frame in range(3):
        layers = []
        for layer, (inputs, outputs) in enumerate(pairwise(CHANNELS)):
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")
            kernel, bias = weights[2 * layer], weights[2 * layer + 1]
            convolution.weight.data = kernel[frame * outputs : (frame + 1) * outputs].clone()
            convolution.bias.data = bias[frame * outputs : (frame + 1) * outputs].clone()
            layers += [convolution, nn.ReLU()]
        network = nn.Sequential(*layers[:-1])
        optimiser = torch.optim.Adam(network.parameters(), own.fit_learning_rate)
        inputs = -torch.cat([back[frame], grid])[None]
        for _ in range(own.fit_steps):
            optimiser.zero_grad()
            error = torch.linalg.vector_norm(network(inputs)[0] - ahead[frame], dim=0)
            error[learnable[frame]].mean().backward()
            optimiser.step()
        assert torch.allclose(network(inputs)[0], together[frame], atol=2e-3)


def uniform_motion(hidden: Tensor) -> object:
    """A network for frames that say by their brightness when they are: all moves by 2 px a frame to the right.

    Where ``hidden`` (H, W), the next frame does not show the pixel, and the answer is nonsense.
    """

    def network(first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        steps = torch.sign(second.mean((1, 2, 3)) - first.mean((1, 2, 3)))
        height, width = first.shape[-2:]
        field = torch.zeros(len(first), 2, height, width)
        field[:, 0] = 2 * steps[:, None, None]
        now_to_next = (first.mean((1, 2, 3)) < 0.6) & (first.mean((1, 2, 3)) > 0.4) & (steps > 0)
        padded = functional.pad(hidden.float(), (0, width - hidden.shape[1], 0, height - hidden.shape[0]))
        field[now_to_next] += 7 * padded
        return [field]

    return network


def test_pixels_hidden_ahead_are_filled_and_those_hidden_both_ways_are_not(
    quick: MultiFrameSettings, occlusion: OcclusionSettings
) -> None:
    height, width = 20, 28  # no multiples of 8
    hidden = torch.zeros(height, width, dtype=torch.bool)
    hidden[6:12, 8:14] = True
    frames = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1, 1).expand(2, 3, 3, height, width)
    fused = fuse_frames(uniform_motion(hidden), frames, quick, occlusion, generator())
    assert bool(fused.filled[:, 6:12, 8:14].all())
    assert float((fused.optical_flow[:, 0][fused.filled] - 2).abs().mean()) < 0.2
    plain = fused.known & ~fused.filled
    assert torch.equal(fused.optical_flow[:, 0][plain], torch.full((int(plain.sum()),), 2.0))
    # The last two columns leave the next frame, but the frame before shows them.
    assert bool(fused.filled[:, :, -2:].all())
    # The first two columns are not in the frame before: seen ahead, they need no filling.
    assert bool(plain[:, :, :2].all())
    both = hidden.clone()
    both[:, :2] = True
    unseen = fuse_frames(uniform_motion(both), frames, quick, occlusion, generator())
    assert not bool(unseen.known[:, :, :2].any())
    assert float(unseen.optical_flow[:, :, :, :2].abs().max()) == 0


def test_a_frame_without_a_doubly_visible_pixel_is_not_filled(
    quick: MultiFrameSettings, occlusion: OcclusionSettings
) -> None:
    frames = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 16, 24)
    hidden = torch.ones(16, 24, dtype=torch.bool)
    fused = fuse_frames(
        uniform_motion(hidden), frames, dataclasses.replace(quick, fit_steps=1), occlusion, generator()
    )
    assert not bool(fused.filled.any())
    assert bool(torch.isfinite(fused.optical_flow).all())


def test_images_of_any_size_are_matched_at_their_own_size() -> None:
    sizes = []

    def network(first: Tensor, second: Tensor, updates: int) -> list[Tensor]:
        sizes.append(tuple(first.shape[-2:]))
        return [first[:, :2]]

    for size in ((70, 91), (20, 96)):
        image = torch.rand(1, 3, *size)
        assert torch.equal(match_whole_images(network, image, image, 1), image[:, :2])
    assert sizes == [(72, 96), (64, 96)]


def test_frames_of_another_form_are_refused(quick: MultiFrameSettings, occlusion: OcclusionSettings) -> None:
    with pytest.raises(ShapeError, match=r"\(G, 3, 3, H, W\)"):
        fuse_frames(
            uniform_motion(torch.zeros(8, 8)), torch.zeros(1, 2, 3, 8, 8), quick, occlusion, generator()
        )
