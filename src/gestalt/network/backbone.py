"""A small residual network with a feature pyramid: image in, features at strides 4, 8, 16 and 32 out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork

# Strides of the pyramid levels; images are padded to a multiple of the last one.
STRIDES = (4, 8, 16, 32)


def convolution_block(
    channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = convolution_block(channels_in, channels_out, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False), nn.BatchNorm2d(channels_out)
        )
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        return functional.relu(self.second(self.first(features)) + self.shortcut(features))


class PyramidBackbone(nn.Module):
    """Residual stages at strides 4 to 32 and a feature pyramid over them.

    Source:
        Lin et al., Feature Pyramid Networks, CVPR 2017, over a residual network a tenth of ResNet-18's width.
    """

    def __init__(
        self,
        *,
        stem_channels: int,
        stage_channels: Sequence[int],
        stage_blocks: Sequence[int],
        pyramid_channels: int,
    ) -> None:
        super().__init__()
        self.channels = pyramid_channels
        self.stem = convolution_block(3, stem_channels, kernel=5, stride=2)
        self.stages = nn.ModuleList()
        channels_in = stem_channels
        for channels, n_blocks in zip(stage_channels, stage_blocks, strict=True):
            blocks = [ResidualBlock(channels_in, channels, stride=2)]
            blocks += [ResidualBlock(channels, channels, stride=1) for _ in range(n_blocks - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels_in = channels
        self.pyramid = FeaturePyramidNetwork(list(stage_channels), pyramid_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of normalised images.

        Args:
            images: (B, 3, H, W) float, normalised; H and W multiples of 32.

        Returns:
            Four (B, C, H / s, W / s) float tensors, strides s = 4, 8, 16, 32.
        """
        features = self.stem(images)
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for number, stage in enumerate(self.stages):
            features = stage(features)
            levels[str(number)] = features
        return list(self.pyramid(levels).values())
