"""The head that turns frozen features into codes, and prototypes that cluster codes by their direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.errors import ShapeError

# A code is the sum of two branches.
N_BRANCHES = 2


class CodeHead(nn.Module):
    """Codes of cells: a linear map of the features plus a small network of them.

    ``linear(F) + last(ReLU(first(F)))``, each a 1 x 1 convolution, the hidden one as wide as the features.

    Args:
        inputs: Length D of a feature vector, geometry channels included where there are any.
        dimension: Length of a code.

    Source:
        STEGO (Hamilton et al., ICLR 2022). Channel dropout comes as an argument of ``forward`` instead of a mode,
        so that a training step depends on its own seed alone.
    """

    def __init__(self, inputs: int, dimension: int) -> None:
        super().__init__()
        self.inputs, self.dimension = inputs, dimension
        self.linear = nn.Conv2d(inputs, dimension, 1)
        self.first = nn.Conv2d(inputs, inputs, 1)
        self.last = nn.Conv2d(inputs, dimension, 1)

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """Codes of every cell.

        Args:
            features: (B, D, h, w) float.
            kept: (2, B, D) float, factors of the channels for the linear and the nonlinear branch, as from
                ``draw_kept``; None keeps all.

        Returns:
            (B, dimension, h, w) float, of any length; only their directions matter.

        Raises:
            ShapeError: ``features`` has another number of channels.
        """
        if features.ndim != 4 or features.shape[1] != self.inputs:
            raise ShapeError(
                f"the code head takes (B, {self.inputs}, h, w) features. Got: {tuple(features.shape)}; "
                "it was trained on other features, train it again"
            )
        straight, bent = features, features
        if kept is not None:
            straight, bent = (features * factors[:, :, None, None] for factors in kept)
        codes: Tensor = self.linear(straight) + self.last(functional.relu(self.first(bent)))
        return codes


def draw_kept(batch: int, inputs: int, dropout: float, generator: torch.Generator) -> Tensor:
    """Factors of channel dropout, drawn for each branch by itself.

    Args:
        batch: B.
        inputs: D.
        dropout: Probability that a channel of an image is 0; the others are scaled up to keep the mean.
        generator: CPU generator.

    Returns:
        (2, B, D) float.
    """
    kept = torch.rand(N_BRANCHES, batch, inputs, generator=generator) >= dropout
    return kept.float() / (1 - dropout)


def cosine_to_prototypes(codes: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of each code to each prototype.

    Args:
        codes: (B, dimension, h, w) float.
        prototypes: (K, dimension) float, of any length.

    Returns:
        (B, K, h, w) float in [-1, 1]; 0 for a code of length 0.
    """
    directions = functional.normalize(prototypes, dim=1)
    return functional.conv2d(functional.normalize(codes, dim=1), directions[:, :, None, None])


def clustering_loss(codes: Tensor, prototypes: Tensor) -> Tensor:
    """Minus the mean cosine of a code to its nearest prototype: k-means of directions by gradient descent.

    Args:
        codes: (B, dimension, h, w) float; gradients stop here, so that clusters do not shape codes.
        prototypes: (K, dimension) float.
    """
    return -cosine_to_prototypes(codes.detach(), prototypes).amax(1).mean()
