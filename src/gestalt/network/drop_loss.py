"""DropLoss: a classification loss that does not punish confident detections of objects nobody labelled.

Pseudo-labels miss objects. A proposal whose decoded box overlaps no target may be a missed object as well as
background, so it does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from gestalt.config.training import DropLossSettings
from gestalt.errors import ConfigError
from gestalt.network.records import ImageTarget
from gestalt.panoptic import VOID


@dataclass(frozen=True)
class DropRule:
    """When a proposal does not count.

    Attributes:
        iou: Its largest IoU with a target is at most this ...
        unlabelled_share: ... and at least this share of its box is unlabelled; 0 asks for the IoU alone, as
            CutLER and CUPS do.
        covers_anchors: Also leave out negative anchors of the proposal network with that share.
    """

    iou: float
    unlabelled_share: float
    covers_anchors: bool


def drop_rule(settings: DropLossSettings, section: str) -> DropRule | None:
    """DropLoss' rule, or None when it is off.

    Raises:
        ConfigError: Every negative anchor would be left out.
    """
    if not settings.enabled:
        return None
    if settings.covers_anchors and settings.unlabelled_share == 0:
        raise ConfigError(
            f"{section}.drop_loss.covers_anchors needs {section}.drop_loss.unlabelled_share above 0, "
            "otherwise the proposal network has no negative anchor. Got: 0"
        )
    return DropRule(settings.iou, settings.unlabelled_share, settings.covers_anchors)


def drop_weights(decoded_boxes: Sequence[Tensor], targets: Sequence[ImageTarget], rule: DropRule) -> Tensor:
    """Weight of every proposal's classification loss.

    Args:
        decoded_boxes: Per image (N, 4) float, the boxes that the box head makes of its proposals, pixels.
        targets: One per image; it may have no object.
        rule: When a proposal does not count.

    Returns:
        (sum of N,) float, 1 where the proposal counts, otherwise 0.

    Source:
        Wang et al., CutLER, CVPR 2023. The inherited implementation compares with the first distinct rows of
        the matched boxes, which misses targets, and turns the loss off for a batch that has an image without
        targets; ours compares with the image's own target list. Asking for unlabelled pixels is an addition:
        where the semantic pseudo-label says stuff, a far proposal is background and may be learnt as such.
    """
    weights = []
    for decoded, target in zip(decoded_boxes, targets, strict=True):
        if len(target.boxes) == 0 or len(decoded) == 0:
            is_far = torch.ones(len(decoded), dtype=torch.bool, device=decoded.device)
        else:
            is_far = box_iou(decoded, target.boxes).amax(1) <= rule.iou
        if rule.unlabelled_share > 0:
            is_far &= unlabelled_shares(decoded, target) >= rule.unlabelled_share
        weights.append((~is_far).to(decoded.dtype))
    return torch.cat(weights)


def unlabelled_shares(boxes: Tensor, target: ImageTarget) -> Tensor:
    """Share of each box whose pixels are void, or thing without an object.

    Args:
        boxes: (N, 4) float, pixels; rounded to whole pixels and clipped to the image.
        target: The image's labels.

    Returns:
        (N,) float in [0, 1]; 0 for a box without a pixel.
    """
    nothing = torch.zeros_like(target.semantic, dtype=torch.bool)
    is_covered = target.masks.any(0) if len(target.masks) else nothing
    unlabelled = (target.semantic == VOID) | ((target.semantic == 0) & ~is_covered)
    # Sums over all rectangles that start at the origin make every box four look-ups.
    sums = functional.pad(unlabelled.to(torch.int32).cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = unlabelled.shape
    corners = boxes.round().long()
    x0, x1 = corners[:, 0].clamp(0, width), corners[:, 2].clamp(0, width)
    y0, y1 = corners[:, 1].clamp(0, height), corners[:, 3].clamp(0, height)
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0)).clamp(min=1)


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy summed with ``weights`` over the number of **all** proposals, dropped ones included.

    Args:
        logits: (N, T + 1) float, background last.
        labels: (N,) int64.
        weights: (N,) float, or None for 1 everywhere.

    Returns:
        Scalar; 0 without proposals.
    """
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    if weights is not None:
        losses = losses * weights
    return losses.sum() / max(len(labels), 1)
