"""Dense features of a vision transformer in plain torch: published DINO weights, or those trained here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from gestalt.features.dense import FeatureGrid, encode_in_parts, normalise
from gestalt.features.transformer import TransformerFeatures
from gestalt.features.vit import VisionTransformer, VitLayout, VitOutput, cells_within

# Letters that the literature gives to (width, depth).
LETTERS = {(192, 12): "Ti", (384, 12): "S", (768, 12): "B", (1024, 24): "L"}


class VitFeatures(TransformerFeatures):
    """A network with the tensor names of DINO, frozen; images of different size in a batch take one pass.

    Args:
        layout: Sizes of the network.
        facet: See ``TransformerFeatures``.
        source: See ``TransformerFeatures``.
    """

    kind: ClassVar[str] = "vit"

    def __init__(
        self, layout: VitLayout, facet: str = "tokens", source: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(facet, source)
        self.layout = layout
        self.stride, self.dimension = layout.patch_size, layout.width
        self.network = VisionTransformer(layout)
        self.requires_grad_(False)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> VitFeatures:
        """Features without weights, of the sizes in ``card``."""
        return cls(VitLayout(**card["layout"]), card["facet"], card["source"])

    def card(self) -> dict[str, Any]:
        """Layout, facet, origin."""
        return {
            "architecture": describe_vit(self.layout),
            "layout": dataclasses.asdict(self.layout),
            "facet": self.facet,
            "source": self.source,
        }

    @torch.no_grad()
    def encode_padded(self, images: Tensor, cells: Tensor) -> FeatureGrid:
        """See ``DenseFeatures.encode_padded``; cells without image are masked in every block."""
        return encode_in_parts(self.encode_part, images, cells)

    def encode_part(self, images: Tensor, cells: Tensor | None = None) -> FeatureGrid:
        """See ``TransformerFeatures.encode_part``."""
        output: VitOutput = self.network(normalise(images), cells, attention=True)
        assert output.keys is not None
        height, width = output.tokens.shape[2:]
        if cells is None:
            valid = torch.ones(len(images), height, width, dtype=torch.bool, device=images.device)
        else:
            valid = cells_within(cells, height, width)
        chosen = self.choose(output.tokens, output.keys)
        return FeatureGrid(chosen, valid, output.keys, output.cls, output.cls_attention)


def describe_vit(layout: VitLayout) -> str:
    """Name of an architecture as papers write it, such as ViT-S/8."""
    letter = LETTERS.get((layout.width, layout.depth))
    if letter is None:
        return f"ViT {layout.width} wide, {layout.depth} deep, patch {layout.patch_size}"
    return f"ViT-{letter}/{layout.patch_size}"
