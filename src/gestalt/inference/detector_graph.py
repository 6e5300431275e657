"""The panoptic network for one image of fixed size, written so that it can leave Python as a graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from gestalt.config.network import STRIDES
from gestalt.network.anchors import anchor_grid
from gestalt.network.boxes import clip_boxes, decode_boxes
from gestalt.network.instance_heads import (
    BOX_CELLS,
    CANONICAL_LEVEL,
    MASK_CELLS,
    STAGE_WEIGHTS,
    InstanceHeads,
)
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.proposal_network import ANCHOR_WEIGHTS, MIN_SIDE_PX, ProposalNetwork
from gestalt.network.semantic_head import upsample_logits

INPUTS = ("image", "score_threshold")
OUTPUTS = ("boxes", "scores", "classes", "mask_probs", "semantic_logits")

# Two boxes outside of every image and apart from each other, scored below everything: see `suppress`.
NOWHERE = ((-20.0, -20.0, -19.0, -19.0), (-10.0, -10.0, -9.0, -9.0))
LOWEST = -1e30


class DetectorGraph(nn.Module):
    """What ``PanopticNetwork.detect`` and ``mask_probs`` compute, without a decision that depends on values.

    ``torch.export`` records one path through the code: "if there is a box on this level" has two. Here every
    level and every step runs, on as many rows as there are, which may be none.

    Args:
        network: Its weights are shared, not copied; in evaluation mode.
        size: (H, W) of the images.
    """

    def __init__(self, network: PanopticNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(
        self, image: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Objects and semantics of one image.

        Args:
            image: (1, 3, H, W) float32 RGB in [0, 1], of the graph's size.
            score_threshold: () float32; detections score above.

        Returns:
            ``boxes`` (N, 4) float32, x0, y0, x1, y1 in pixels of the image, best first; ``scores`` (N,)
            float32; ``classes`` (N,) int64, thing index 0..T-1; ``mask_probs`` (N, 28, 28) float32 inside
            the boxes; ``semantic_logits`` (1, S + 1, H, W) float32, channel 0 is "some thing".
        """
        padded = self.network.normalise(image)
        pyramid = self.network.backbone(padded)
        semantic_logits = upsample_logits(self.network.semantic_head(pyramid), self.size)
        proposals = self._propose(pyramid)
        boxes, scores, classes = self._detect(pyramid, proposals, score_threshold)
        heads = self.network.instance_heads
        mask_logits = heads.mask_head(pool_boxes(pyramid, boxes, MASK_CELLS, heads))
        own = classes.view(-1, 1, 1, 1).expand(-1, 1, *mask_logits.shape[-2:])
        return boxes, scores, classes, mask_logits.gather(1, own).squeeze(1).sigmoid(), semantic_logits

    def _propose(self, pyramid: Sequence[Tensor]) -> Tensor:
        """(N, 4) float proposals, best first."""
        proposing: ProposalNetwork = self.network.proposal_network
        levels = list(pyramid)
        if len(proposing.anchor_boxes) > len(levels):
            levels.append(levels[-1][..., ::2, ::2])
        counts, kept_boxes, kept_logits = proposing.test_counts, [], []
        outputs = zip(*proposing.head(levels), proposing.anchor_boxes, strict=True)
        for number, (logits, offsets, cell_anchors) in enumerate(outputs):
            n_cell, height, width = logits.shape[1:]
            anchors = anchor_grid(cell_anchors, (height, width), STRIDES[0] << number)
            # (1, A * values, h, w) -> (h * w * A, values), the order of the anchors.
            flat_logits = logits.permute(0, 2, 3, 1).reshape(-1)
            flat_offsets = offsets.unflatten(1, (n_cell, 4)).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            best_logits, best = flat_logits.topk(min(counts.before_nms, len(anchors)))
            boxes = clip_boxes(decode_boxes(flat_offsets[best], anchors[best], ANCHOR_WEIGHTS), self.size)
            solid = torch.nonzero(((boxes[:, 2:] - boxes[:, :2]) > MIN_SIDE_PX).all(1)).squeeze(1)
            boxes, best_logits = boxes[solid], best_logits[solid]
            kept = suppress(boxes, best_logits, proposing.nms_iou)
            kept_boxes.append(boxes[kept])
            kept_logits.append(best_logits[kept])
        order = torch.argsort(torch.cat(kept_logits), descending=True)
        return torch.cat(kept_boxes)[order[: counts.after_nms]]

    def _detect(
        self, pyramid: Sequence[Tensor], proposals: Tensor, score_threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and classes after the cascade and suppression, best first."""
        heads: InstanceHeads = self.network.instance_heads
        boxes, stage_probs = proposals, []
        for number, stage in enumerate(heads.stages):
            logits, offsets = stage(pool_boxes(pyramid, boxes, BOX_CELLS, heads))
            stage_probs.append(logits.softmax(-1) / len(heads.stages))
            boxes = clip_boxes(decode_boxes(offsets, boxes, STAGE_WEIGHTS[number]), self.size)
        probs = torch.stack(stage_probs).sum(0)[:, :-1]
        rows, classes = torch.nonzero(probs > score_threshold).unbind(1)
        boxes, scores = boxes[rows], probs[rows, classes]
        # Classes far apart, so that one suppression serves all and no class hides another.
        apart = classes.to(boxes.dtype).unsqueeze(1) * (max(self.size) + 1)
        kept = suppress(boxes + apart, scores, heads.nms_iou)[: heads.max_detections]
        return boxes[kept], scores[kept], classes[kept]


def suppress(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Rows that non-maximum suppression keeps, best first: (N, 4) boxes, (N,) scores -> (M,) int64; M may be 0.

    What torchvision tells ``torch.export`` about its suppression is that at least two rows are kept, and the
    exported program insists on it. Two boxes nowhere make that true and are taken off again.
    """
    everything = torch.cat([boxes, boxes.new_tensor(NOWHERE)])
    kept: Tensor = nms(everything, torch.cat([scores, scores.new_full((len(NOWHERE),), LOWEST)]), iou)
    return kept[: -len(NOWHERE)]


def pool_boxes(pyramid: Sequence[Tensor], boxes: Tensor, cells: int, heads: InstanceHeads) -> Tensor:
    """(N, C, cells, cells): each box pooled from the pyramid level that fits its size.

    Args:
        pyramid: Features of one image, finest first, (1, C, h, w) each.
        boxes: (N, 4) float, pixels; N may be 0.
        cells: Cells per side of the result.
        heads: Say which level fits and how often a cell is sampled.
    """
    regions = torch.cat([boxes.new_zeros(boxes.shape[0], 1), boxes], dim=1)
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1e-6).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / heads.canonical_box_px + 1e-8))
    level = level.clamp(0, len(STRIDES) - 1).long()
    pooled = boxes.new_zeros(boxes.shape[0], pyramid[0].shape[1], cells, cells)
    for number, stride in enumerate(STRIDES):
        rows = torch.nonzero(level == number).squeeze(1)
        own = roi_align(
            pyramid[number], regions[rows], cells, 1 / stride, heads.samples_per_cell or -1, aligned=True
        )
        pooled = pooled.index_put((rows,), own)
    return pooled
