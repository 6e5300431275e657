"""Fit the embedded features on images: dictionary, principal components, scales. No label is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gestalt.config.features import DictionarySettings
from gestalt.errors import ConfigError
from gestalt.features.dense import image_to_tensor
from gestalt.features.dictionary import Encoding, fit_dictionary
from gestalt.features.embedded import EmbeddedFeatures, EmbeddedLayout
from gestalt.features.handmade import STRIDE
from gestalt.features.patches import sample_patches
from gestalt.runtime import numpy_generator, progress, torch_generator

T = TypeVar("T")

# Cells of an image that principal components and scales are estimated from.
CELLS_PER_IMAGE = 600


def choose_evenly(items: Sequence[T], count: int) -> list[T]:
    """``count`` of the items, evenly spread over their order; all of them where there are fewer."""
    if len(items) <= count:
        return list(items)
    places = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[place] for place in places]


@torch.no_grad()
def fit_features(
    images: Sequence[NDArray[np.uint8]], settings: DictionarySettings, seed: int
) -> EmbeddedFeatures:
    """Learn the embedded features.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ.
        settings: Section ``features.dictionary``.
        seed: The seed of the experiment.

    Returns:
        Features on the CPU.

    Raises:
        ConfigError: ``features.dictionary.patch_step`` does not divide the stride, or exceeds the patch size.
        DataError: No image, or too few patches for the dictionary.
        ShapeError: An image is smaller than a patch.
    """
    _check_step(settings)
    encoding = Encoding(
        settings.patch_size, settings.patch_step, settings.code_threshold, settings.contrast_epsilon
    )
    layout = EmbeddedLayout(
        encoding=encoding,
        n_filters=settings.n_filters,
        pool_sigmas=tuple(width / STRIDE for width in settings.pool_sigmas_px),
        components=settings.components,
        uses_position=settings.position_weight > 0,
    )
    features = EmbeddedFeatures(layout)
    patches = sample_patches(
        images, settings.n_patches, settings.patch_size, numpy_generator(seed, "features", "patches")
    )
    features.filters, features.offsets = fit_dictionary(
        patches,
        settings.n_filters,
        encoding,
        settings.whitening_epsilon,
        torch_generator(seed, "features", "dictionary"),
    )
    chosen = [_choose_cells(image.shape, seed, place) for place, image in enumerate(images)]
    pooled = [
        [_take(grid, cells) for grid in features.codes.pool(features.encode_cells(_whole_cells(image)))]
        for image, cells in zip(progress(images, label="features: codes", unit="image"), chosen)
    ]
    features.codes.fit([torch.cat(samples) for samples in zip(*pooled)])
    raw = torch.cat(
        [
            _take(features.raw_channels(_whole_cells(image)), cells)
            for image, cells in zip(progress(images, label="features: scales", unit="image"), chosen)
        ]
    )
    weights = [settings.dictionary_weight, settings.colour_weight, settings.texture_weight]
    weights += [settings.position_weight] * layout.uses_position
    features.mean, features.scale = fit_block_scales(raw, features.block_sizes, weights)
    # Principal components already hold the right proportions: only the block as a whole is scaled.
    codes = features.block_sizes[0]
    length = raw[:, :codes].var(0).sum().sqrt().clamp(min=1e-6)
    features.scale[:codes] = settings.dictionary_weight / length
    return features.eval()


def fit_block_scales(
    raw: torch.Tensor, block_sizes: Sequence[int], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and factor of each channel such that a block's root mean square length is its weight.

    Args:
        raw: (n, D) float, sampled vectors.
        block_sizes: Channels of each block; they sum to D.
        weights: One per block.

    Returns:
        Two (D,) float tensors: ``(raw - mean) * factor`` has channels of equal variance in a block. A channel
        that never varies gets factor 0.
    """
    mean, deviation = raw.mean(0), raw.std(0)
    length = torch.cat(
        [torch.full((size,), weight / size**0.5) for size, weight in zip(block_sizes, weights)]
    )
    return mean, torch.where(deviation > 1e-6, length / deviation.clamp(min=1e-6), 0.0)


def _check_step(settings: DictionarySettings) -> None:
    if STRIDE % settings.patch_step or settings.patch_step > settings.patch_size:
        raise ConfigError(
            f"features.dictionary.patch_step must divide {STRIDE} and be at most features.dictionary.patch_size "
            f"({settings.patch_size}). Got: {settings.patch_step}"
        )


def _whole_cells(image: NDArray[np.uint8]) -> torch.Tensor:
    height, width = image.shape[:2]
    return image_to_tensor(image[: height // STRIDE * STRIDE, : width // STRIDE * STRIDE])


def _choose_cells(size: tuple[int, ...], seed: int, place: int) -> torch.Tensor:
    n_cells = (size[0] // STRIDE) * (size[1] // STRIDE)
    generator = torch_generator(seed, "features", "cells", place)
    return torch.randperm(n_cells, generator=generator)[:CELLS_PER_IMAGE]


def _take(grid: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    return grid[0].flatten(1).T[cells]
