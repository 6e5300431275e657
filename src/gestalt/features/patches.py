"""Image patches: sampling, contrast normalisation and whitening, as in Coates & Ng (2011)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gestalt.errors import DataError, ShapeError


def sample_patches(
    images: Sequence[NDArray[np.uint8]], n_patches: int, patch_size: int, generator: np.random.Generator
) -> Tensor:
    """Square patches at random places, equally many from each image.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ.
        n_patches: How many in all, rounded down to a multiple of the number of images.
        patch_size: Side, pixels.
        generator: Chooses the places.

    Returns:
        (n, 3 * patch_size**2) float in [0, 1], channel-major.

    Raises:
        DataError: There is no image.
        ShapeError: An image is smaller than a patch.
    """
    if not images:
        raise DataError("patches need at least one image; are the fit_batches empty?")
    patches = []
    for image in images:
        height, width = image.shape[:2]
        if min(height, width) < patch_size:
            raise ShapeError(
                f"images must be at least {patch_size} x {patch_size} (features.dictionary.patch_size). "
                f"Got: {height} x {width}"
            )
        count = max(1, n_patches // len(images))
        top = generator.integers(0, height - patch_size + 1, count)
        left = generator.integers(0, width - patch_size + 1, count)
        windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size), axis=(0, 1))
        patches.append(windows[top, left].reshape(count, -1))
    return torch.from_numpy(np.concatenate(patches)).float() / 255


def normalize_contrast(patches: Tensor, epsilon: float) -> Tensor:
    """Zero mean and unit variance of each row of (n, d); ``epsilon`` is added to the variance."""
    centred = patches - patches.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + epsilon).sqrt()


def fit_whitening(patches: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Zero-phase (ZCA) whitening of the rows of (n, d).

    Returns:
        Mean (d,) and symmetric matrix W (d, d): ``(patches - mean) @ W`` has identity covariance, damped in
        directions whose variance is not large against ``epsilon``.
    """
    mean = patches.mean(0)
    # Double precision: eigenvalues span six orders of magnitude.
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T.double()))
    whitening = (vectors / (values.clamp(min=0) + epsilon).sqrt()) @ vectors.T
    return mean, whitening.float()
