"""The semantic head: S stuff classes and one channel 0 for "some thing", from the feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.network.backbone import STRIDES, convolution_block
from gestalt.panoptic import VOID


class SemanticHead(nn.Module):
    """One convolution per level, summed from coarse to fine, then S + 1 logits at stride 4.

    Source:
        Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, with one convolution per level instead
        of one per doubling of resolution.
    """

    def __init__(self, *, pyramid_channels: int, channels: int, n_stuff: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(convolution_block(pyramid_channels, channels) for _ in STRIDES)
        self.mix = convolution_block(channels, channels)
        self.classify = nn.Conv2d(channels, n_stuff + 1, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Pyramid features -> (B, S + 1, H / 4, W / 4) logits."""
        total: Tensor | None = None
        for level, features in zip(reversed(self.levels), reversed(pyramid), strict=True):
            own = level(features)
            if total is not None:
                own = own + functional.interpolate(
                    total, size=own.shape[-2:], mode="bilinear", align_corners=False
                )
            total = own
        assert total is not None
        logits: Tensor = self.classify(self.mix(total))
        return logits


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
