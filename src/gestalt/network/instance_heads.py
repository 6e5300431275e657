"""The instance branch: a cascade of box stages over proposals, and a class-specific mask head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import batched_nms, box_iou, roi_align

from gestalt.config.network import STRIDES
from gestalt.network.boxes import Weights, clip_boxes, decode_boxes, encode_boxes
from gestalt.network.drop_loss import DropRule, classification_loss, drop_weights
from gestalt.network.records import Detections, ImageTarget

BOX_CELLS = 7
MASK_CELLS = 14
MASK_SIDE = 2 * MASK_CELLS

# Cascade R-CNN (Cai and Vasconcelos, CVPR 2018): offsets of later stages are smaller, so they weigh more.
STAGE_WEIGHTS: tuple[Weights, ...] = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (30.0, 30.0, 15.0, 15.0),
)

# Sums of probabilities are exact to less than this.
ROUNDING = 1e-6

# The pyramid level of stride 16 serves boxes of the canonical side.
CANONICAL_LEVEL = 2


@dataclass(frozen=True, eq=False)
class SampledProposals:
    """The proposals of one image that the losses look at.

    Attributes:
        boxes: (N, 4) float.
        labels: (N,) int64, thing index, or T for background.
        matched: (N,) int64, row of the target; 0 where background.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied, so that several stages together weigh as one."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, features: Tensor, factor: float) -> Tensor:
        context.factor = factor  # type: ignore[attr-defined]
        return features.view_as(features)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * context.factor, None  # type: ignore[attr-defined]


class BoxStage(nn.Module):
    """Two fully connected layers, class logits (background last) and class-agnostic box offsets."""

    def __init__(self, *, channels: int, hidden: int, n_things: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels * BOX_CELLS**2, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, n_things + 1)
        self.regress = nn.Linear(hidden, 4)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        for layer in (self.first, self.second, self.classify, self.regress):
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, 7, 7) -> (N, T + 1) logits, (N, 4) offsets."""
        hidden = functional.relu(self.first(pooled.flatten(1)))
        hidden = functional.relu(self.second(hidden))
        return self.classify(hidden), self.regress(hidden)


class MaskHead(nn.Module):
    """Convolutions, a doubling of resolution, one channel of logits per thing class."""

    def __init__(self, *, channels_in: int, channels: int, n_convolutions: int, n_things: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(n_convolutions):
            layers += [
                nn.Conv2d(channels if number else channels_in, channels, 3, 1, 1),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ConvTranspose2d(channels, channels, 2, 2), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Conv2d(channels, n_things, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classify.weight, std=0.001)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, C, 14, 14) -> (N, T, 28, 28) logits."""
        logits: Tensor = self.classify(self.layers(pooled))
        return logits


class InstanceHeads(nn.Module):
    """Proposals to classified boxes and masks.

    Source:
        Cascade Mask R-CNN as CUPS uses it: class-agnostic boxes with an L1 loss, scores averaged over the
        stages, the mask head trained on the positives of the first stage. One entry in ``cascade_ious`` gives
        Mask R-CNN.
    """

    def __init__(
        self,
        *,
        channels: int,
        n_things: int,
        cascade_ious: Sequence[float],
        samples: int,
        positive_share: float,
        box_hidden: int,
        mask_channels: int,
        mask_convolutions: int,
        canonical_box_px: int,
        samples_per_cell: int,
        nms_iou: float,
        max_detections: int,
    ) -> None:
        super().__init__()
        self.n_things = n_things
        self.cascade_ious = tuple(cascade_ious)
        self.stages = nn.ModuleList(
            BoxStage(channels=channels, hidden=box_hidden, n_things=n_things) for _ in self.cascade_ious
        )
        self.mask_head = MaskHead(
            channels_in=channels, channels=mask_channels, n_convolutions=mask_convolutions, n_things=n_things
        )
        self.sampler = BalancedPositiveNegativeSampler(samples, positive_share)
        self.canonical_box_px, self.samples_per_cell = canonical_box_px, samples_per_cell
        self.nms_iou, self.max_detections = nms_iou, max_detections

    def losses(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        size: tuple[int, int],
        targets: Sequence[ImageTarget],
        drop: DropRule | None,
    ) -> dict[str, Tensor]:
        """Losses ``class``, ``box`` (summed over the stages) and ``mask``.

        Args:
            pyramid: Features, finest first.
            proposals: Per image (N, 4) float.
            size: (H, W) before padding.
            targets: One per image.
            drop: DropLoss' rule, or None for the plain cross-entropy.
        """
        sampled = [self._sample(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
        first_stage = sampled
        class_loss = box_loss = pyramid[0].new_zeros(())
        for number, stage in enumerate(self.stages):
            boxes = [image.boxes for image in sampled]
            pooled = self._pool(pyramid, boxes, BOX_CELLS)
            if len(self.stages) > 1:
                pooled = _ScaleGradient.apply(pooled, 1 / len(self.stages))
            logits, offsets = stage(pooled)
            references = torch.cat(boxes)
            decoded = decode_boxes(offsets.detach().float(), references, STAGE_WEIGHTS[number])
            decoded_per_image = list(torch.split(clip_boxes(decoded, size), [len(image) for image in boxes]))
            weights = None
            if drop is not None:
                weights = drop_weights(decoded_per_image, targets, drop)
            labels = torch.cat([image.labels for image in sampled])
            class_loss = class_loss + classification_loss(logits, labels, weights)
            box_loss = box_loss + self._box_loss(offsets, references, sampled, targets, number)
            if number + 1 < len(self.stages):
                sampled = [
                    self._match(_without_empty(boxes), target, self.cascade_ious[number + 1])
                    for boxes, target in zip(decoded_per_image, targets, strict=True)
                ]
        return {"class": class_loss, "box": box_loss, "mask": self._mask_loss(pyramid, first_stage, targets)}

    def detect(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        size: tuple[int, int],
        score_threshold: float,
    ) -> list[Detections]:
        """Classified boxes after suppression, without masks.

        Args:
            pyramid: Features, finest first.
            proposals: Per image (N, 4) float.
            size: (H, W) before padding; boxes are clipped to it.
            score_threshold: Scores must be above.
        """
        boxes = list(proposals)
        counts = [len(image) for image in boxes]
        probs = pyramid[0].new_zeros((sum(counts), self.n_things + 1), dtype=torch.float32)
        for number, stage in enumerate(self.stages):
            logits, offsets = stage(self._pool(pyramid, boxes, BOX_CELLS))
            probs = probs + logits.float().softmax(-1) / len(self.stages)
            decoded = decode_boxes(offsets.float(), torch.cat(boxes), STAGE_WEIGHTS[number])
            boxes = list(torch.split(clip_boxes(decoded, size), counts))
            # What the stages to come can add at most; without it most boxes are out, and pooled no more.
            most = 1 - (number + 1) / len(self.stages) + ROUNDING
            may_score = probs[:, :-1].amax(1) + most > score_threshold
            boxes = [own[rows] for own, rows in zip(boxes, torch.split(may_score, counts), strict=True)]
            probs, counts = probs[may_score], [len(own) for own in boxes]
        found = []
        for image_boxes, image_probs in zip(boxes, torch.split(probs, counts), strict=True):
            rows, classes = torch.nonzero(image_probs[:, :-1] > score_threshold, as_tuple=True)
            scores = image_probs[rows, classes]
            found.append(self.suppress(image_boxes[rows], scores, classes))
        return found

    def suppress(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
        """Per-class non-maximum suppression; the best ``max_detections`` stay, best first, without masks."""
        kept = batched_nms(boxes, scores, classes, self.nms_iou)[: self.max_detections]
        return Detections(
            boxes[kept], scores[kept], classes[kept], boxes.new_zeros((0, MASK_SIDE, MASK_SIDE))
        )

    def mask_probs(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], classes: Sequence[Tensor]
    ) -> list[Tensor]:
        """Per image (N, 28, 28) float: probability of the object of ``classes`` inside each of ``boxes``."""
        labels = torch.cat(list(classes))
        if len(labels) == 0:
            return [labels.new_zeros((0, MASK_SIDE, MASK_SIDE), dtype=torch.float32) for _ in boxes]
        logits = self.mask_head(self._pool(pyramid, boxes, MASK_CELLS))
        own = logits[torch.arange(len(labels), device=labels.device), labels].float().sigmoid()
        return list(torch.split(own, [len(image) for image in boxes]))

    def _sample(self, proposals: Tensor, target: ImageTarget) -> SampledProposals:
        candidates = self._match(torch.cat([proposals, target.boxes]), target, self.cascade_ious[0])
        # The sampler wants 1 and more for positives, 0 for negatives.
        positive, negative = self.sampler([(candidates.labels < self.n_things).float()])
        chosen = torch.nonzero((positive[0] | negative[0]).bool()).squeeze(1)
        return SampledProposals(
            candidates.boxes[chosen], candidates.labels[chosen], candidates.matched[chosen]
        )

    def _match(self, boxes: Tensor, target: ImageTarget, positive_iou: float) -> SampledProposals:
        if len(target.boxes) == 0 or len(boxes) == 0:
            labels = torch.full((len(boxes),), self.n_things, device=boxes.device)
            return SampledProposals(boxes, labels, torch.zeros_like(labels))
        best_iou, matched = box_iou(boxes, target.boxes).max(1)
        labels = torch.where(best_iou >= positive_iou, target.classes[matched], self.n_things)
        return SampledProposals(boxes, labels, matched)

    def _box_loss(
        self,
        offsets: Tensor,
        references: Tensor,
        sampled: Sequence[SampledProposals],
        targets: Sequence[ImageTarget],
        number: int,
    ) -> Tensor:
        positive = torch.cat([image.labels < self.n_things for image in sampled])
        matched = torch.cat(
            [
                target.boxes[image.matched[image.labels < self.n_things]]
                for image, target in zip(sampled, targets, strict=True)
            ]
        )
        wanted = encode_boxes(matched, references[positive], STAGE_WEIGHTS[number])
        total = functional.l1_loss(offsets[positive].float(), wanted, reduction="sum")
        return total / max(len(references), 1)

    def _mask_loss(
        self, pyramid: Sequence[Tensor], sampled: Sequence[SampledProposals], targets: Sequence[ImageTarget]
    ) -> Tensor:
        positives = [image.labels < self.n_things for image in sampled]
        boxes = [image.boxes[positive] for image, positive in zip(sampled, positives, strict=True)]
        labels = torch.cat(
            [image.labels[positive] for image, positive in zip(sampled, positives, strict=True)]
        )
        if len(labels) == 0:
            # Zero, yet connected to the head, so that every process of a distributed run has its gradients.
            return (
                sum((weight.sum() for weight in self.mask_head.parameters()), pyramid[0].new_zeros(())) * 0.0
            )
        logits = self.mask_head(self._pool(pyramid, boxes, MASK_CELLS))
        own = logits[torch.arange(len(labels), device=labels.device), labels].float()
        wanted = torch.cat(
            [
                mask_targets(target.masks, image.matched[positive], image_boxes)
                for target, image, positive, image_boxes in zip(
                    targets, sampled, positives, boxes, strict=True
                )
            ]
        )
        return functional.binary_cross_entropy_with_logits(own, wanted)

    def _pool(self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], cells: int) -> Tensor:
        """(sum of N, C, cells, cells): each box pooled from the level that fits its size."""
        flat = torch.cat(list(boxes))
        image = torch.cat([flat.new_full((len(own),), number) for number, own in enumerate(boxes)])
        regions = torch.cat([image.unsqueeze(1), flat], dim=1)
        side = ((flat[:, 2] - flat[:, 0]) * (flat[:, 3] - flat[:, 1])).clamp(min=1e-6).sqrt()
        level = torch.floor(CANONICAL_LEVEL + torch.log2(side / self.canonical_box_px + 1e-8))
        level = level.clamp(0, len(pyramid) - 1).long()
        pooled = pyramid[0].new_zeros((len(flat), pyramid[0].shape[1], cells, cells))
        for number, (features, stride) in enumerate(zip(pyramid, STRIDES, strict=True)):
            rows = torch.nonzero(level == number).squeeze(1)
            if len(rows):
                # In float32: in bfloat16 a box at 800 px would move by up to 2 px. In place: a copy of all boxes
                # per level would cost a sixth of the pooling.
                own = roi_align(
                    features.float(),
                    regions[rows],
                    cells,
                    1 / stride,
                    self.samples_per_cell if self.samples_per_cell else -1,
                    aligned=True,
                )
                pooled.index_put_((rows,), own.to(pooled.dtype))
        return pooled


def mask_targets(masks: Tensor, rows: Tensor, boxes: Tensor) -> Tensor:
    """Masks cut out by boxes: (M, H, W) bool, (N,) rows, (N, 4) boxes -> (N, 28, 28) float 0 or 1."""
    # A region names its mask, so that a mask that many boxes share is there once.
    regions = torch.cat([rows.unsqueeze(1).to(boxes), boxes], dim=1)
    cut: Tensor = roi_align(masks.unsqueeze(1).to(boxes.dtype), regions, MASK_SIDE, aligned=True)
    return (cut.squeeze(1) >= 0.5).to(boxes.dtype)


def paste_mask(
    mask_prob: Tensor, box: Tensor, size: tuple[int, int]
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """One soft mask in pixels of its image, limited to the rows and columns that its box touches.

    Args:
        mask_prob: (M, M) float, the mask over the box.
        box: (4,) float, x0, y0, x1, y1 in pixels.
        size: (H, W) of the image.

    Returns:
        (h, w) float probabilities, and the region (top, bottom, left, right), bottom and right exclusive.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    height, width = size
    top, bottom = max(math.floor(y0), 0), min(math.ceil(y1), height)
    left, right = max(math.floor(x0), 0), min(math.ceil(x1), width)
    if bottom <= top or right <= left:
        return mask_prob.new_zeros((0, 0)), (top, top, left, left)
    rows = _interpolation_matrix(len(mask_prob), y0, y1, top, bottom).to(mask_prob)
    columns = _interpolation_matrix(len(mask_prob), x0, x1, left, right).to(mask_prob)
    return rows @ mask_prob @ columns.T, (top, bottom, left, right)


def _interpolation_matrix(side: int, start: float, stop: float, first: int, last: int) -> Tensor:
    """(last - first, side) bilinear weights at pixel centres; cells outside the mask count as 0."""
    centres = torch.arange(first, last, dtype=torch.float64) + 0.5
    position = (centres - start) / max(stop - start, 1e-6) * side - 0.5
    cells = torch.arange(side, dtype=torch.float64)
    return (1 - (position.unsqueeze(1) - cells).abs()).clamp(min=0)


def _without_empty(boxes: Tensor) -> Tensor:
    return boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)]
