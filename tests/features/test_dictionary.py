"""The patch dictionary."""

import torch

from gestalt.features.dictionary import Encoding, PooledCodes, encode_patches, fit_dictionary
from gestalt.features.patches import fit_whitening, normalize_contrast
from gestalt.runtime import torch_generator

ENCODING = Encoding(patch_size=4, step=2, threshold=0.25, contrast_epsilon=0.002)


def random_patches(count: int = 2000) -> torch.Tensor:
    return torch.rand(count, 48, generator=torch_generator(0))


def test_a_convolution_gives_the_code_of_a_patch() -> None:
    filters, offsets = fit_dictionary(random_patches(), 8, ENCODING, 0.05, torch_generator(0))
    image = torch.rand(1, 3, 12, 12, generator=torch_generator(1))
    encoding = Encoding(4, 4, 0.25, 0.002)
    codes = encode_patches(image, filters, offsets, encoding, 4)[0]
    patch = image[0, :, 4:8, 4:8].reshape(1, -1)
    response = normalize_contrast(patch, 0.002) @ filters.reshape(8, -1).T + offsets
    expected = torch.relu(response - response.mean() - 0.25)[0]
    torch.testing.assert_close(codes[:, 1, 1], expected, atol=1e-4, rtol=1e-3)
    assert float(expected.max()) > 0


def test_filters_hold_the_whitening() -> None:
    patches = random_patches()
    filters, offsets = fit_dictionary(patches, 8, ENCODING, 0.05, torch_generator(0))
    normalized = normalize_contrast(patches, ENCODING.contrast_epsilon)
    mean, whitening = fit_whitening(normalized, 0.05)
    responses = normalized @ filters.reshape(8, -1).T + offsets
    # Atoms have unit length, so a response is the cosine times the length of the whitened patch.
    lengths = ((normalized - mean) @ whitening).norm(dim=1)
    assert float((responses.abs().max(1).values / lengths).max()) <= 1 + 1e-3


def test_codes_do_not_see_brightness() -> None:
    filters, offsets = fit_dictionary(random_patches(), 8, ENCODING, 0.05, torch_generator(0))
    image = torch.rand(1, 3, 16, 16, generator=torch_generator(1)) * 0.5
    codes = encode_patches(image, filters, offsets, ENCODING, 4)
    torch.testing.assert_close(
        codes, encode_patches(image + 0.3, filters, offsets, ENCODING, 4), atol=1e-3, rtol=1e-3
    )
    assert float(codes.min()) >= 0


def test_components_are_orthogonal_and_hold_the_largest_variances() -> None:
    sample = torch.randn(4000, 6, generator=torch_generator(0)) * torch.tensor([5.0, 0.1, 3.0, 0.1, 0.1, 1.0])
    pooled = PooledCodes(6, [1.0], 3)
    pooled.fit([sample])
    projected = (sample - pooled.mean[0]) @ pooled.projection[0]
    covariance = torch.cov(projected.T)
    assert float((covariance - covariance.diag().diag()).abs().max()) < 1e-4
    assert float(covariance.trace()) > 0.99
    assert (covariance.diag().diff() < 0).all()
