"""The region proposal network: which anchors of the feature pyramid hold an object of any class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, box_iou

from gestalt.config.network import STRIDES
from gestalt.network.anchors import anchor_boxes, anchor_grid
from gestalt.network.boxes import Weights, clip_boxes, decode_boxes, encode_boxes
from gestalt.network.drop_loss import DropRule, unlabelled_shares
from gestalt.network.records import ImageTarget

ANCHOR_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)

# Proposals thinner than this hold no pixel.
MIN_SIDE_PX = 1e-3


@dataclass(frozen=True)
class ProposalCounts:
    """How many proposals enter and leave suppression."""

    before_nms: int
    after_nms: int


class ProposalNetwork(nn.Module):
    """Anchors, a 3x3 convolution with objectness and box offsets, their losses, and proposals.

    It looks at the levels of the pyramid, and with a fifth anchor size at one more: every second cell of the
    coarsest level.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, with the L1 box loss of Detectron2.
    """

    anchor_boxes: Tensor

    def __init__(
        self,
        *,
        channels: int,
        anchor_sizes_px: Sequence[int],
        anchor_ratios: Sequence[float],
        positive_iou: float,
        negative_iou: float,
        samples: int,
        positive_share: float,
        nms_iou: float,
        train_counts: ProposalCounts,
        test_counts: ProposalCounts,
    ) -> None:
        super().__init__()
        boxes = torch.stack([anchor_boxes(side, anchor_ratios) for side in anchor_sizes_px])
        self.register_buffer("anchor_boxes", boxes, persistent=False)
        self.head = RPNHead(channels, len(anchor_ratios))
        self.matcher = Matcher(positive_iou, negative_iou, allow_low_quality_matches=True)
        self.sampler = BalancedPositiveNegativeSampler(samples, positive_share)
        self.nms_iou = nms_iou
        self.train_counts, self.test_counts = train_counts, test_counts

    def forward(
        self,
        pyramid: Sequence[Tensor],
        size: tuple[int, int],
        targets: Sequence[ImageTarget] | None = None,
        drop: DropRule | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose boxes.

        Args:
            pyramid: Features, finest first.
            size: (H, W) before padding; proposals are clipped to it.
            targets: One per image to compute losses, or None.
            drop: DropLoss' rule; it may leave negative anchors out.

        Returns:
            Per image (N, 4) float proposals without gradient, best first; the losses ``objectness`` and
            ``proposal_box`` (empty without targets).
        """
        levels = self._levels(pyramid)
        logits_per_level, offsets_per_level = self.head(levels)
        anchors = [
            anchor_grid(boxes, (int(level.shape[-2]), int(level.shape[-1])), STRIDES[0] << number)
            for number, (boxes, level) in enumerate(zip(self.anchor_boxes, levels, strict=True))
        ]
        logits = [_flatten_level(level, 1).squeeze(-1) for level in logits_per_level]
        offsets = [_flatten_level(level, 4) for level in offsets_per_level]
        proposals = self._propose(anchors, logits, offsets, size)
        if targets is None:
            return proposals, {}
        return proposals, self._losses(
            torch.cat(anchors), torch.cat(logits, 1), torch.cat(offsets, 1), targets, drop
        )

    def _levels(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        levels = list(pyramid)
        if len(self.anchor_boxes) > len(levels):
            levels.append(levels[-1][..., ::2, ::2])
        return levels

    @torch.no_grad()
    def _propose(
        self, anchors: list[Tensor], logits: list[Tensor], offsets: list[Tensor], size: tuple[int, int]
    ) -> list[Tensor]:
        counts = self.train_counts if self.training else self.test_counts
        kept_logits, kept_boxes, kept_levels = [], [], []
        for number, (level_logits, level_offsets) in enumerate(zip(logits, offsets, strict=True)):
            n_kept = min(counts.before_nms, level_logits.shape[1])
            best_logits, best = level_logits.float().topk(n_kept, dim=1)
            best_offsets = level_offsets.float().gather(1, best.unsqueeze(-1).expand(-1, -1, 4))
            boxes = decode_boxes(best_offsets.flatten(0, 1), anchors[number][best.flatten()], ANCHOR_WEIGHTS)
            kept_logits.append(best_logits)
            kept_boxes.append(clip_boxes(boxes, size).view(len(best), n_kept, 4))
            kept_levels.append(torch.full_like(best, number))
        all_logits, all_boxes = torch.cat(kept_logits, 1), torch.cat(kept_boxes, 1)
        all_levels = torch.cat(kept_levels, 1)
        proposals = []
        for image_logits, boxes, levels in zip(all_logits, all_boxes, all_levels, strict=True):
            solid = ((boxes[:, 2:] - boxes[:, :2]) > MIN_SIDE_PX).all(1) & torch.isfinite(image_logits)
            boxes, image_logits, levels = boxes[solid], image_logits[solid], levels[solid]
            kept = batched_nms(boxes, image_logits, levels, self.nms_iou)[: counts.after_nms]
            proposals.append(boxes[kept])
        return proposals

    def _losses(
        self,
        anchors: Tensor,
        logits: Tensor,
        offsets: Tensor,
        targets: Sequence[ImageTarget],
        drop: DropRule | None,
    ) -> dict[str, Tensor]:
        labels, wanted = [], []
        for target in targets:
            matched = self._match(anchors, target.boxes)
            # -1: the sampler looks away (between the two IoU limits).
            label = torch.where(
                matched >= 0, 1.0, torch.where(matched == Matcher.BELOW_LOW_THRESHOLD, 0.0, -1.0)
            )
            if drop is not None and drop.covers_anchors:
                may_be_missed = unlabelled_shares(anchors, target) >= drop.unlabelled_share
                label = torch.where((label == 0) & may_be_missed, -1.0, label)
            labels.append(label)
            boxes = target.boxes[matched.clamp(min=0)] if len(target.boxes) else anchors
            wanted.append(encode_boxes(boxes, anchors, ANCHOR_WEIGHTS))
        positive, negative = (torch.stack(masks).bool() for masks in self.sampler(labels))
        sampled = positive | negative
        # As many as are wanted, also where an image has fewer: the published normaliser.
        n_wanted = self.sampler.batch_size_per_image * len(targets)
        objectness = functional.binary_cross_entropy_with_logits(
            logits[sampled].float(), torch.stack(labels)[sampled], reduction="sum"
        )
        box = functional.l1_loss(offsets[positive].float(), torch.stack(wanted)[positive], reduction="sum")
        return {"objectness": objectness / n_wanted, "proposal_box": box / n_wanted}

    def _match(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        if len(boxes) == 0:
            return torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        matched: Tensor = self.matcher(box_iou(boxes, anchors))
        return matched


def _flatten_level(level: Tensor, values: int) -> Tensor:
    """(B, A * values, h, w) -> (B, h * w * A, values), the order of the anchors."""
    batch, channels, height, width = level.shape
    level = level.view(batch, channels // values, values, height, width)
    return level.permute(0, 3, 4, 1, 2).reshape(batch, -1, values)
