"""The features of the default: patch dictionary, colour, texture and position, fitted in seconds on a CPU."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gestalt.features.dense import DenseFeatures, FeatureGrid
from gestalt.features.dictionary import Encoding, PooledCodes, encode_patches
from gestalt.features.handmade import (
    COLOUR_CHANNELS,
    STRIDE,
    TEXTURE_CHANNELS,
    colour_channels,
    position_channel,
    rgb_to_lab,
    texture_channels,
)


@dataclass(frozen=True)
class EmbeddedLayout:
    """What ``card.json`` says of embedded features.

    Attributes:
        encoding: How patches are encoded.
        n_filters: Size of the dictionary.
        pool_sigmas: Widths of the pooling, cells.
        components: Principal components of each width.
        uses_position: The last channel is the row.
    """

    encoding: Encoding
    n_filters: int
    pool_sigmas: tuple[float, ...]
    components: int
    uses_position: bool


class EmbeddedFeatures(DenseFeatures):
    """Concatenation of four blocks, each standardised and scaled to a root mean square length of its own.

    Blocks in order: pooled patch codes, colour, texture, row of the image (where the layout has it).

    Args:
        layout: Sizes; tensors are zero until ``gestalt.features.fit`` or ``load_state_dict`` sets them.
    """

    kind: ClassVar[str] = "embedded"
    filters: Tensor
    offsets: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, layout: EmbeddedLayout) -> None:
        super().__init__()
        self.layout = layout
        self.stride = STRIDE
        self.uses_position = layout.uses_position
        side = layout.encoding.patch_size
        self.register_buffer("filters", torch.zeros(layout.n_filters, 3, side, side))
        self.register_buffer("offsets", torch.zeros(layout.n_filters))
        self.codes = PooledCodes(layout.n_filters, layout.pool_sigmas, layout.components)
        self.block_sizes = [self.codes.dimension, COLOUR_CHANNELS, TEXTURE_CHANNELS]
        if layout.uses_position:
            self.block_sizes.append(1)
        self.dimension = sum(self.block_sizes)
        self.register_buffer("mean", torch.zeros(self.dimension))
        self.register_buffer("scale", torch.ones(self.dimension))

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> EmbeddedFeatures:
        """Features without weights, of the sizes in ``card``."""
        layout = dict(card["layout"])
        encoding = Encoding(**layout.pop("encoding"))
        sigmas = tuple(layout.pop("pool_sigmas"))
        return cls(EmbeddedLayout(encoding=encoding, pool_sigmas=sigmas, **layout))

    def card(self) -> dict[str, Any]:
        """The layout."""
        return {"layout": dataclasses.asdict(self.layout)}

    def encode_cells(self, images: Tensor) -> Tensor:
        """Codes of the dictionary before pooling: (B, 3, H, W) -> (B, n_filters, h, w)."""
        return encode_patches(images, self.filters, self.offsets, self.layout.encoding, self.stride)

    def raw_channels(self, images: Tensor) -> Tensor:
        """All blocks before standardisation: (B, 3, H, W), a multiple of the stride -> (B, D, h, w)."""
        lab = rgb_to_lab(images)
        blocks = [self.codes(self.encode_cells(images)), colour_channels(lab), texture_channels(lab)]
        if self.uses_position:
            batch, _, height, width = blocks[0].shape
            blocks.append(position_channel(batch, height, width, images.device))
        return torch.cat(blocks, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> FeatureGrid:
        """See ``DenseFeatures.encode``."""
        tokens = (self.raw_channels(images) - self.mean[:, None, None]) * self.scale[:, None, None]
        return FeatureGrid(tokens, valid=tokens.new_ones(tokens[:, 0].shape, dtype=torch.bool))
