"""What dense features of all vision transformers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gestalt.errors import ConfigError
from gestalt.features.dense import DenseFeatures, FeatureGrid, encode_in_parts

# What a cell can be described by: its token after the final norm, or its key in the last block's attention.
FACETS = ("tokens", "keys")


class TransformerFeatures(DenseFeatures):
    """A frozen vision transformer over images of any size, with random weights until a state dict sets them.

    A window of an image may be encoded as an image: positions are learned for the window that the network is given,
    which is how CUPS slides it. Hence ``uses_position`` is False.

    Args:
        facet: What a cell is described by: ``tokens`` after the final norm (STEGO, DepthG, CUPS) or ``keys`` of the
            last block (MaskCut, LOST). ``extract`` returns keys and attention in any case.
        source: Where the weights come from, plain JSON values for the card.

    Raises:
        ConfigError: ``facet`` is unknown.
    """

    uses_position = False

    def __init__(self, facet: str, source: Mapping[str, Any] | None) -> None:
        super().__init__()
        check_facet(facet)
        self.facet, self.source = facet, dict(source or {})

    @abstractmethod
    def encode_part(self, images: Tensor, cells: Tensor | None = None) -> FeatureGrid:
        """Features of so many images as the device takes at once; ``cells`` as for ``encode_padded``, or None."""

    @property
    def smallest_px(self) -> int:
        """A patch: a smaller image would be mostly padding."""
        return self.stride

    @torch.no_grad()
    def encode(self, images: Tensor) -> FeatureGrid:
        """See ``DenseFeatures.encode``."""
        return encode_in_parts(self.encode_part, images)

    def choose(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Those of both that the facet names."""
        return keys if self.facet == "keys" else tokens


def check_facet(facet: str) -> None:
    """Refuse a name that is no facet.

    Raises:
        ConfigError: It is none.
    """
    if facet not in FACETS:
        raise ConfigError(f"facet must be one of {', '.join(FACETS)}. Got: {facet!r}")
