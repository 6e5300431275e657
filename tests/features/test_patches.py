"""Patches."""

import numpy as np
import pytest
import torch

from gestalt.errors import DataError, ShapeError
from gestalt.features.patches import fit_whitening, normalize_contrast, sample_patches
from gestalt.runtime import numpy_generator, torch_generator


def test_patches_are_pieces_of_the_image() -> None:
    image = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    patches = sample_patches([image], 50, 3, numpy_generator(0))
    pieces = {
        tuple(image[y : y + 3, x : x + 3].transpose(2, 0, 1).ravel()) for y in range(6) for x in range(7)
    }
    found = {tuple(row) for row in (patches * 255).round().byte().numpy()}
    assert found <= pieces
    assert len(found) > 20


def test_whitened_patches_have_identity_covariance() -> None:
    generator = torch_generator(0)
    mixed = torch.randn(5000, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    mean, whitening = fit_whitening(mixed, 0.0)
    torch.testing.assert_close(torch.cov(((mixed - mean) @ whitening).T), torch.eye(6), atol=1e-3, rtol=1e-3)


def test_whitening_is_symmetric_and_damped() -> None:
    patches = torch.randn(500, 4, generator=torch_generator(1)) * torch.tensor([1.0, 1.0, 1.0, 1e-3])
    _, whitening = fit_whitening(patches, 0.1)
    torch.testing.assert_close(whitening, whitening.T)
    assert float(whitening[3, 3]) < 1 / 0.1**0.5 + 0.1


def test_normalised_patches_ignore_brightness_and_contrast() -> None:
    patches = torch.rand(10, 27, generator=torch_generator(2))
    brighter = 0.5 * patches + 0.3
    torch.testing.assert_close(normalize_contrast(patches, 0.0), normalize_contrast(brighter, 0.0))


def test_flat_patches_stay_finite() -> None:
    assert float(normalize_contrast(torch.full((2, 12), 0.4), 0.002).abs().max()) < 1e-5


def test_small_images_and_no_images_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least 6 x 6"):
        sample_patches([np.zeros((5, 40, 3), np.uint8)], 10, 6, numpy_generator(0))
    with pytest.raises(DataError, match="fit_batches"):
        sample_patches([], 10, 6, numpy_generator(0))
