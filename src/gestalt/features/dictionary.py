"""A dictionary of small image patches: one layer of feature learning by k-means, without labels or gradients.

Source: Coates & Ng, "The Importance of Encoding Versus Training with Sparse Coding and Vector Quantization"
(ICML 2011). We pool with Gaussians around each cell instead of over quadrants, since the features are dense,
and take square roots (Hellinger) and principal components of the pooled codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.features.gaussian import blur
from gestalt.features.kmeans import fit_kmeans
from gestalt.features.patches import fit_whitening, normalize_contrast

# The dictionary is insensitive to the start: one is enough, and more cost as much as the rest of the fit.
RESTARTS, STEPS = 1, 15


@dataclass(frozen=True)
class Encoding:
    """How patches become codes; the patch normalisation must be the one the dictionary was fitted with.

    Attributes:
        patch_size: Side of a patch, pixels.
        step: Pixels between encoded patches.
        threshold: A code is kept by how far it exceeds the mean code of its patch plus this.
        contrast_epsilon: Added to the variance of a patch, for intensities in [0, 1].
    """

    patch_size: int
    step: int
    threshold: float
    contrast_epsilon: float


def fit_dictionary(
    patches: Tensor, n_filters: int, encoding: Encoding, whitening_epsilon: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Learn filters by spherical k-means of whitened patches.

    Args:
        patches: (n, 3 * patch_size**2) float in [0, 1], channel-major.
        n_filters: Size of the dictionary.
        encoding: Patch size and normalisation.
        whitening_epsilon: Damping of the whitening.
        generator: CPU generator.

    Returns:
        Filters (n_filters, 3, patch_size, patch_size), zero-sum, and offsets (n_filters,). They hold the
        whitening: a code is ``filter . patch / standard deviation of the patch + offset``.
    """
    normalized = normalize_contrast(patches, encoding.contrast_epsilon)
    mean, whitening = fit_whitening(normalized, whitening_epsilon)
    whitened = functional.normalize((normalized - mean) @ whitening, dim=1)
    atoms = fit_kmeans(
        whitened, n_filters, restarts=RESTARTS, max_steps=STEPS, generator=generator, spherical=True
    ).centres
    filters = atoms @ whitening
    offsets = -(filters @ mean)
    # A patch is centred before it meets a filter; a zero-sum filter does that on the raw image.
    filters = filters - filters.mean(1, keepdim=True)
    return filters.reshape(n_filters, 3, encoding.patch_size, encoding.patch_size).contiguous(), offsets


def encode_patches(
    images: Tensor, filters: Tensor, offsets: Tensor, encoding: Encoding, stride: int
) -> Tensor:
    """Soft-threshold codes of the patches, averaged over cells.

    Args:
        images: (B, 3, H, W) float in [0, 1]; H and W multiples of ``stride``.
        filters: (F, 3, p, p) float.
        offsets: (F,) float.
        encoding: As in the fit.
        stride: Side of a cell, a multiple of ``encoding.step``.

    Returns:
        (B, F, H / stride, W / stride) float, non-negative.
    """
    before = (encoding.patch_size - encoding.step) // 2
    after = encoding.patch_size - encoding.step - before
    padded = functional.pad(images, (before, after, before, after), mode="replicate")
    moments = torch.stack([padded.mean(1), padded.square().mean(1)], 1)
    mean, square = functional.avg_pool2d(moments, encoding.patch_size, encoding.step).chunk(2, 1)
    deviation = ((square - mean.square()).clamp(min=0) + encoding.contrast_epsilon).sqrt()
    codes = functional.conv2d(padded, filters, stride=encoding.step) / deviation + offsets[:, None, None]
    codes = functional.relu(codes - (codes.mean(1, keepdim=True) + encoding.threshold))
    return functional.avg_pool2d(codes, stride // encoding.step)


class PooledCodes(nn.Module):
    """Codes around a cell at several scales, each reduced to its principal components of unit scale.

    Args:
        n_filters: Size F of the dictionary.
        sigmas: Pooling widths, cells.
        components: Principal components kept of each width.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, n_filters: int, sigmas: Sequence[float], components: int) -> None:
        super().__init__()
        self.sigmas = tuple(sigmas)
        self.dimension = len(self.sigmas) * components
        self.register_buffer("mean", torch.zeros(len(self.sigmas), n_filters))
        self.register_buffer("projection", torch.zeros(len(self.sigmas), n_filters, components))

    def pool(self, codes: Tensor) -> list[Tensor]:
        """(B, F, h, w) codes -> for each width the square roots of the pooled codes, same shape."""
        # Pooled codes are sums of many small counts: the root makes their noise even.
        return [blur(codes, sigma).clamp(min=0).sqrt() for sigma in self.sigmas]

    def forward(self, codes: Tensor) -> Tensor:
        """(B, F, h, w) codes -> (B, widths * components, h, w)."""
        channels = [
            torch.einsum("bfhw,fd->bdhw", pooled - mean[:, None, None], projection)
            for pooled, mean, projection in zip(self.pool(codes), self.mean, self.projection)
        ]
        return torch.cat(channels, 1)

    def fit(self, samples: Sequence[Tensor]) -> None:
        """Set means and projections.

        Args:
            samples: For each width (n, F) float, pooled codes of sampled cells.
        """
        components = self.projection.shape[2]
        for width, sample in enumerate(samples):
            mean = sample.mean(0)
            values, vectors = torch.linalg.eigh(torch.cov((sample - mean).T.double()))
            vectors = vectors.flip(1)[:, :components]
            # The sign of an eigenvector is arbitrary; the largest entry becomes positive.
            largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
            vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
            # One scale per width keeps the relative strength of its components.
            scale = values.clamp(min=0).sum().sqrt().clamp(min=1e-6)
            self.mean[width] = mean
            self.projection[width] = (vectors / scale).float()
