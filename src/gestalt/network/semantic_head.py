"""The semantic head: S stuff classes and one channel 0 for "some thing", from the feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.config.network import STRIDES
from gestalt.panoptic import VOID


class SemanticHead(nn.Module):
    """Convolutions that bring every level to stride 4, their sum, then S + 1 logits.

    A level passes one 3x3 convolution with group normalisation per doubling of resolution that it needs, the
    finest one passes one.

    Source:
        Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019.
    """

    def __init__(self, *, pyramid_channels: int, channels: int, groups: int, n_stuff: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(
                _normalised_convolution(channels if number else pyramid_channels, channels, groups)
                for number in range(max(1, _doublings(stride)))
            )
            for stride in STRIDES
        )
        self.classify = nn.Conv2d(channels, n_stuff + 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        assert self.classify.bias is not None
        nn.init.zeros_(self.classify.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Pyramid features, finest first -> (B, S + 1, H / 4, W / 4) logits."""
        total: Tensor | None = None
        for stride, convolutions, features in zip(STRIDES, self.levels, pyramid, strict=True):
            for convolution in convolutions:  # type: ignore[attr-defined]
                features = convolution(features)
                if _doublings(stride):
                    features = functional.interpolate(
                        features, scale_factor=2, mode="bilinear", align_corners=False
                    )
            total = features if total is None else total + features
        logits: Tensor = self.classify(total)
        return logits


def _doublings(stride: int) -> int:
    """Doublings of resolution from ``stride`` to that of the finest level."""
    return (stride // STRIDES[0]).bit_length() - 1


def _normalised_convolution(channels_in: int, channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
        nn.GroupNorm(groups, channels),
        nn.ReLU(inplace=True),
    )


def upsample_logits(logits: Tensor, size: tuple[int, int], stride: int = 1) -> Tensor:
    """Logits at stride 4 of a padded batch -> logits of the unpadded images.

    Args:
        logits: (B, S + 1, h, w) float.
        size: (H, W) of the images before padding.
        stride: 1 for every pixel, 2 for one pixel of each 2x2 block, and so on.

    Returns:
        (B, S + 1, ceil(H / stride), ceil(W / stride)) float.
    """
    enlarged = functional.interpolate(
        logits, scale_factor=STRIDES[0] / stride, mode="bilinear", align_corners=False
    )
    height, width = (-(-side // stride) for side in size)
    return enlarged[..., :height, :width]


def semantic_loss(logits: Tensor, semantics: Sequence[Tensor], stride: int) -> Tensor:
    """Mean cross-entropy over the pixels that are not void.

    Args:
        logits: (B, S + 1, h, w) float at stride 4.
        semantics: Per image (H, W) uint8, 0 thing, 1..S stuff, 255 void.
        stride: See ``upsample_logits``.

    Returns:
        Scalar; 0 when every pixel is void.
    """
    target = torch.stack(list(semantics))
    height, width = target.shape[-2:]
    # The middle of each block, so that logits and labels are at most half a pixel apart.
    target = target[..., stride // 2 :: stride, stride // 2 :: stride].long()
    predicted = upsample_logits(logits, (height, width), stride)[..., : target.shape[-2], : target.shape[-1]]
    total = functional.cross_entropy(predicted, target, ignore_index=VOID, reduction="sum")
    return total / (target != VOID).sum().clamp(min=1)
