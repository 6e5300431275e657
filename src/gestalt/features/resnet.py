"""Dense features of a ResNet-50, in the three forms in which its self-supervised weights are published."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gestalt.errors import ConfigError
from gestalt.features.dense import DenseFeatures, FeatureGrid, encode_in_parts, normalise

# Pixels between cells: the network's own, or with its last stage dilated instead of strided.
STRIDES = (16, 32)
DIMENSION = 2048
ARCHITECTURE = "ResNet-50"

# detectron2's names and torchvision's for the same tensors, applied in order.
FROM_DETECTRON2 = (
    (r"^stem\.", ""),
    (r"^res(\d)\.", lambda found: f"layer{int(found[1]) - 1}."),
    (r"conv(\d)\.norm\.", r"bn\1."),
    (r"shortcut\.norm\.", "downsample.1."),
    (r"shortcut\.", "downsample.0."),
)


class ResNetFeatures(DenseFeatures):
    """A frozen ResNet-50 over images of any size; a cell is described by the last stage.

    Args:
        stride: 16 (last stage dilated, as dense methods use it) or 32 (as it was trained).
        source: Where the weights come from, plain JSON values for the card.

    Raises:
        ConfigError: ``stride`` is another number.

    Source:
        He et al., "Deep Residual Learning" (CVPR 2016) as built by torchvision: the stride of a block lies in its 3x3
        convolution. Weights with it in the 1x1 convolution, as in the first detectron2 models, have the same names
        and shapes and would give other features; those of DINO are of torchvision's kind.
    """

    kind: ClassVar[str] = "resnet"
    uses_position = False
    dimension = DIMENSION

    def __init__(self, stride: int = 16, source: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if stride not in STRIDES:
            raise ConfigError(f"the stride of {ARCHITECTURE} must be 16 or 32. Got: {stride}")
        self.stride, self.source = stride, dict(source or {})
        self.network = build_resnet(dilated=stride == STRIDES[0])
        self.eval().requires_grad_(False)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> ResNetFeatures:
        """Features without weights, of the stride in ``card``."""
        return cls(card["stride"], card["source"])

    def card(self) -> dict[str, Any]:
        """Architecture and origin."""
        return {"architecture": ARCHITECTURE, "source": self.source}

    @property
    def smallest_px(self) -> int:
        """A cell."""
        return self.stride

    def train(self, mode: bool = True) -> ResNetFeatures:
        """Stay in evaluation mode: batch statistics are those of the training."""
        super().train(False)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> FeatureGrid:
        """See ``DenseFeatures.encode``."""
        return encode_in_parts(self._encode_part, images)

    def _encode_part(self, images: Tensor) -> FeatureGrid:
        tokens = self.network(normalise(images))
        return FeatureGrid(tokens, valid=tokens.new_ones(tokens[:, 0].shape, dtype=torch.bool))


def build_resnet(*, dilated: bool) -> nn.Sequential:
    """ResNet-50 of torchvision up to the last stage, with its tensor names and random weights."""
    from torchvision.models import resnet50

    network = resnet50(weights=None, replace_stride_with_dilation=[False, False, dilated])
    trunk = ((name, part) for name, part in network.named_children() if name not in ("avgpool", "fc"))
    return nn.Sequential(OrderedDict(trunk))


def to_torchvision_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensor names of detectron2 as torchvision's; names that already are stay."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in FROM_DETECTRON2:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
