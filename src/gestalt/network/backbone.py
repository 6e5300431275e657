"""A residual network with a feature pyramid: image in, features at strides 4, 8, 16 and 32 out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FeaturePyramidNetwork

BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResidualTrunk(nn.Module):
    """Stem and four residual stages, named as torchvision names them, so that its weight files fit.

    With bottleneck blocks, a pooled 7x7 stem and 3, 4, 6, 3 blocks it is ResNet-50 with the stride in the 3x3
    convolution.

    Source:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    def __init__(
        self,
        *,
        block: str,
        stem_kernel: int,
        stem_pool: bool,
        stem_channels: int,
        stage_channels: Sequence[int],
        stage_blocks: Sequence[int],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem_channels, stem_kernel, 2, stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else nn.Identity()
        # A pooled stem is at stride 4 already; without pooling the first stage gets there.
        strides = (1 if stem_pool else 2, 2, 2, 2)
        channels_in = stem_channels
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(BLOCKS[block], before, after, n_blocks, stride)
            for before, after, n_blocks, stride in zip(
                (channels_in, *stage_channels[:-1]), stage_channels, stage_blocks, strides, strict=True
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) normalised images -> features ``layer1`` to ``layer4`` at strides 4 to 32."""
        features = self.maxpool(functional.relu(self.bn1(self.conv1(images)), inplace=True))
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for name in ("layer1", "layer2", "layer3", "layer4"):
            features = getattr(self, name)(features)
            levels[name] = features
        return levels


class PyramidBackbone(nn.Module):
    """A residual trunk and a feature pyramid over its four stages.

    Source:
        Lin et al., Feature Pyramid Networks, CVPR 2017; CUPS normalises every convolution of the pyramid.
    """

    def __init__(
        self, trunk: ResidualTrunk, *, stage_channels: Sequence[int], channels: int, norm: bool
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.pyramid = FeaturePyramidNetwork(
            list(stage_channels), channels, norm_layer=nn.BatchNorm2d if norm else None
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of normalised images.

        Args:
            images: (B, 3, H, W) float, normalised; H and W multiples of 32.

        Returns:
            Four (B, C, H / s, W / s) float tensors, strides s = 4, 8, 16, 32.
        """
        return list(self.pyramid(self.trunk(images)).values())


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels_in: int, channels: int, n_blocks: int, stride: int
) -> nn.Sequential:
    width = channels // block.expansion
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )
    first = block(channels_in, width, stride, shortcut)
    return nn.Sequential(first, *(block(channels, width) for _ in range(n_blocks - 1)))
