"""What one pair of frames hides, the frame before it shows: displacements of occluded pixels from the way back.

Where things move evenly, the displacement to the next frame follows from that to the frame before. How, a tiny
network learns per frame from the pixels that both neighbours show; it then fills those that only one shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from gestalt.errors import ShapeError
from gestalt.matching.occlusion import is_consistent
from gestalt.matching.warping import pixel_grid

if TYPE_CHECKING:
    from gestalt.config.optical_flow import MultiFrameSettings, OcclusionSettings
    from gestalt.matching.smurf import Network

# Images that the network takes have multiples of this many rows and columns, and so many at least.
STRIDE, MIN_SIDE = 8, 64
# Channels of the tiny network: displacement back and place in the image in, displacement ahead out.
CHANNELS = (4, 16, 16, 2)
KERNEL = 3
# Of Adam, as its authors give them.
BETAS, EPSILON = (0.9, 0.999), 1e-8
# Keeps the length of an error of 0 differentiable.
NO_ERROR_PX2 = 1e-12


@dataclass(frozen=True, eq=False)
class FusedDisplacements:
    """Labels of the second phase.

    Attributes:
        optical_flow: (G, 2, H, W) float32, pixels, t -> t+1; 0 where unknown.
        known: (G, H, W) bool, seen at t+1 or filled in.
        filled: (G, H, W) bool, filled in from the frame before.
    """

    optical_flow: Tensor
    known: Tensor
    filled: Tensor


def fuse_frames(
    network: Network,
    frames: Tensor,
    settings: MultiFrameSettings,
    occlusion: OcclusionSettings,
    generator: torch.Generator,
) -> FusedDisplacements:
    """Displacements t -> t+1 of G frames, those of occluded pixels from t -> t-1.

    Args:
        network: Trained.
        frames: (G, 3, 3, H, W) float32 RGB in [0, 1], the frames t-1, t, t+1.
        settings: Updates of the network, the fits.
        occlusion: Constants of the forward-backward test.
        generator: On the CPU; first weights of the fits.

    Raises:
        ShapeError: ``frames`` has another form.

    Source:
        SMURF (Stone et al., CVPR 2021), after Maurer and Bruhn (ProFlow, BMVC 2018). The fits of all frames run as
        one grouped network: they share no weight and no gradient, only the launches.
    """
    if frames.ndim != 5 or frames.shape[1:3] != (3, 3):
        raise ShapeError(f"fuse_frames needs (G, 3, 3, H, W). Got: {tuple(frames.shape)}")
    before, now, after = frames.unbind(1)
    with torch.no_grad():
        first, second = torch.cat([now, now, after, before]), torch.cat([after, before, now, now])
        found = match_whole_images(network, first, second, settings.updates)
    ahead, back, ahead_reverse, back_reverse = found.chunk(4)
    share, constant = occlusion.consistency_share, occlusion.consistency_px2
    seen_ahead = is_consistent(ahead, ahead_reverse, share=share, constant_px2=constant)
    seen_back = is_consistent(back, back_reverse, share=share, constant_px2=constant)
    predicted = fit_and_predict(back, ahead, seen_ahead & seen_back, settings, generator)
    # Without a pixel that both neighbours show there is nothing to learn from.
    is_fitted = (seen_ahead & seen_back).flatten(1).any(1)[:, None, None]
    filled = ~seen_ahead & seen_back & is_fitted
    known = seen_ahead | filled
    fused = torch.where(filled[:, None], predicted, ahead) * known[:, None]
    return FusedDisplacements(fused, known, filled)


def match_whole_images(network: Network, first: Tensor, second: Tensor, updates: int) -> Tensor:
    """Displacements of images of any size: what the network needs more of, their last rows and columns give.

    Args:
        network: Takes multiples of 8, from 64 on.
        first: (B, 3, H, W) float32 RGB in [0, 1].
        second: (B, 3, H, W) float32.
        updates: Of the network.

    Returns:
        (B, 2, H, W) float32, pixels, after the last update.
    """
    height, width = first.shape[-2:]
    below, right = (max(MIN_SIDE, -(-side // STRIDE) * STRIDE) - side for side in (height, width))
    first, second = (
        functional.pad(images, (0, right, 0, below), mode="replicate") for images in (first, second)
    )
    return network(first, second, updates)[-1].float()[..., :height, :width]


def fit_and_predict(
    back: Tensor, ahead: Tensor, learnable: Tensor, settings: MultiFrameSettings, generator: torch.Generator
) -> Tensor:
    """Fit a tiny network per frame that maps displacements back to displacements ahead, and apply it everywhere.

    Args:
        back: (G, 2, H, W) float32, pixels, t -> t-1.
        ahead: (G, 2, H, W) float32, pixels, t -> t+1.
        learnable: (G, H, W) bool, pixels that both frames show.
        settings: Steps and step sizes.
        generator: On the CPU; first weights.

    Returns:
        (G, 2, H, W) float32, pixels, t -> t+1.
    """
    n_frames, _, height, width = back.shape
    grid = pixel_grid(height, width, back.device)
    place = 2 * grid / grid.new_tensor([max(1, width - 1), max(1, height - 1)]).view(2, 1, 1) - 1
    inputs = -torch.cat([back.detach(), place.expand(n_frames, -1, -1, -1)], 1).reshape(1, -1, height, width)
    weights = [weight.to(back.device).requires_grad_() for weight in _first_weights(n_frames, generator)]
    share = learnable / learnable.sum((1, 2), keepdim=True).clamp(min=1)
    optimiser = torch.optim.Adam(weights, settings.fit_learning_rate, BETAS, EPSILON)
    with torch.enable_grad():
        for step in range(settings.fit_steps):
            for group in optimiser.param_groups:
                group["lr"] = settings.fit_learning_rate * settings.fit_decay ** (
                    step // settings.fit_decay_steps
                )
            error = (_predict(inputs, weights, n_frames) - ahead.detach()).square().sum(1)
            loss = ((error + NO_ERROR_PX2).sqrt() * share).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.no_grad():
        return _predict(inputs, weights, n_frames)


def _predict(inputs: Tensor, weights: list[Tensor], n_frames: int) -> Tensor:
    """(1, G * 4, H, W) -> (G, 2, H, W): three convolutions, of each frame its own."""
    values = inputs
    for layer in range(len(CHANNELS) - 1):
        if layer:
            values = torch.relu(values)
        kernel, bias = weights[2 * layer], weights[2 * layer + 1]
        # Most pixels that leave are at the border: zeros from beyond it would spoil just those.
        values = functional.pad(values, (KERNEL // 2,) * 4, mode="replicate")
        values = functional.conv2d(values, kernel, bias, groups=n_frames)
    return values.reshape(n_frames, CHANNELS[-1], *inputs.shape[-2:])


def _first_weights(n_frames: int, generator: torch.Generator) -> list[Tensor]:
    """Kernels and biases of three layers, uniform within 1 / sqrt(inputs of an output), on the CPU."""
    weights = []
    for inputs, outputs in pairwise(CHANNELS):
        limit = 1 / math.sqrt(inputs * KERNEL**2)
        for shape in ((n_frames * outputs, inputs, KERNEL, KERNEL), (n_frames * outputs,)):
            weights.append((2 * torch.rand(shape, generator=generator) - 1) * limit)
    return weights
