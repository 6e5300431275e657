"""The CUPS network on Detectron2's parts, with the interface, the settings and the weight files of our own.

For those who want the library that the authors used, and for holding the two against each other: equal weights give
equal losses, boxes, masks and semantics. Only this module imports Detectron2; docs/detectron2.md says how to get it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gestalt.config.network import STRIDES, NetworkSettings
from gestalt.errors import ConfigError, MissingDependencyError
from gestalt.network.boxes import clip_boxes
from gestalt.network.detectron2_names import STEM_KERNEL, from_detectron2, to_detectron2
from gestalt.network.drop_loss import DropRule, classification_loss, drop_weights, unlabelled_shares
from gestalt.network.instance_heads import BOX_CELLS, MASK_CELLS, MASK_SIDE, STAGE_WEIGHTS
from gestalt.network.merge import MASK_THRESHOLD
from gestalt.network.panoptic_model import (
    COLOUR_MEAN,
    COLOUR_STD,
    PanopticModel,
    check_targets,
    parameters_without_normalisation,
)
from gestalt.network.proposal_network import ANCHOR_WEIGHTS, MIN_SIDE_PX
from gestalt.network.records import Detections, ImageTarget, Prediction
from gestalt.network.semantic_head import semantic_loss, upsample_logits
from gestalt.panoptic import VOID

try:
    from detectron2.layers import ShapeSpec, batched_nms, paste_masks_in_image
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
    from detectron2.modeling.backbone import FPN, BasicStem, ResNet
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN, combine_semantic_and_instance_outputs
    from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
    from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
    from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
    from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
    from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_loss
    from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
    from detectron2.structures import BitMasks, Boxes, ImageList, Instances, pairwise_iou
    from detectron2.utils.events import EventStorage
except ImportError as error:
    raise MissingDependencyError(
        "network.backend detectron2 needs the library Detectron2, which docs/detectron2.md says how to build; "
        f"network.backend torchvision is the same network without it. Python says: {error}"
    ) from error

# Levels of the pyramid at STRIDES, which boxes and semantics look at; Detectron2 names them by the log of the stride.
LEVELS = ("p2", "p3", "p4", "p5")
# One level more, for anchors alone.
ANCHOR_LEVEL, ANCHOR_STRIDE = "p6", 64
# The level at which boxes of the canonical side are pooled: stride 16.
CANONICAL_LEVEL = 4


class Detectron2Network(PanopticModel):
    """Panoptic Cascade Mask R-CNN of Detectron2's modules.

    Its modules have Detectron2's names, and so has ``state_dict``; ``weights`` and ``load_weights`` speak ours.
    ``DropRule.covers_anchors`` is supported. Every sampling, matching and loss is Detectron2's, but for two that
    must be ours: the classification loss where a drop rule is given, and the semantic one, which has a stride and
    is 0, not NaN, where every pixel is void.

    Source:
        Wu et al., Detectron2; put together as Hahn et al., CUPS, CVPR 2025, do.
    """

    colour_mean: Tensor
    colour_std: Tensor

    def __init__(
        self,
        *,
        backbone: FPN,
        proposal_generator: RPN,
        roi_heads: CascadeROIHeads,
        sem_seg_head: SemSegFPNHead,
        semantic_loss_stride: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.sem_seg_head = sem_seg_head
        self.semantic_loss_stride = semantic_loss_stride
        self.register_buffer("colour_mean", torch.tensor(COLOUR_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("colour_std", torch.tensor(COLOUR_STD).view(3, 1, 1), persistent=False)

    @property
    def n_things(self) -> int:
        """T, the number of thing classes."""
        return int(self.roi_heads.num_classes)

    @property
    def n_stuff(self) -> int:
        """S, the number of stuff classes."""
        return int(self.sem_seg_head.predictor.out_channels) - 1

    def forward(
        self, images: Tensor, targets: Sequence[ImageTarget], drop: DropRule | None = None
    ) -> dict[str, Tensor]:
        """See ``PanopticModel.forward``."""
        size = check_targets(images, targets)
        features = self._features(images)
        # Detectron2's parts count samples into a storage that they insist on; nobody reads it here.
        with EventStorage():
            proposals, losses = self._propose(features, size, targets, drop)
            losses |= self._instance_losses(features, proposals, size, targets, drop)
        logits = self.sem_seg_head.layers(features)
        semantics = [target.semantic for target in targets]
        semantic = semantic_loss(logits, semantics, self.semantic_loss_stride)
        return {"semantic": self.sem_seg_head.loss_weight * semantic, **losses}

    def detect(self, images: Tensor, score_threshold: float) -> tuple[list[Tensor], list[Detections], Tensor]:
        """See ``PanopticModel.detect``."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        features = self._features(images)
        proposals, _ = self._propose(features, size)
        detections = self._detect_boxes(features, proposals, size, score_threshold)
        logits = upsample_logits(self.sem_seg_head.layers(features).float(), size)
        return [features[name] for name in LEVELS], detections, logits

    def suppress(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
        """See ``PanopticModel.suppress``."""
        predictor = self.roi_heads.box_predictor[-1]
        kept = batched_nms(boxes, scores, classes, predictor.test_nms_thresh)[: predictor.test_topk_per_image]
        return _without_masks(boxes[kept], scores[kept], classes[kept])

    def mask_probs(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], classes: Sequence[Tensor]
    ) -> list[Tensor]:
        """See ``PanopticModel.mask_probs``."""
        labels = torch.cat(list(classes))
        if len(labels) == 0:
            return [pyramid[0].new_zeros((0, MASK_SIDE, MASK_SIDE), dtype=torch.float32) for _ in boxes]
        heads = self.roi_heads
        pooled = heads.mask_pooler([level.float() for level in pyramid], [Boxes(own) for own in boxes])
        logits = heads.mask_head.layers(pooled)
        own = logits[torch.arange(len(labels), device=labels.device), labels].float().sigmoid()
        return list(torch.split(own, [len(image) for image in boxes]))

    def head_parameters(self) -> list[nn.Parameter]:
        """See ``PanopticModel.head_parameters``."""
        return parameters_without_normalisation(self.proposal_generator, self.roi_heads, self.sem_seg_head)

    def weights(self) -> dict[str, Tensor]:
        """See ``PanopticModel.weights``."""
        return from_detectron2(self.state_dict())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """See ``PanopticModel.load_weights``."""
        self.load_state_dict(to_detectron2(weights))

    def as_panoptic_fpn(
        self, *, score_threshold: float, overlap_share: float, min_stuff_px: int
    ) -> PanopticFPN:
        """Detectron2's own model around the same weights, for its predictors, evaluators and exporters.

        Args:
            score_threshold: Detections must score above.
            overlap_share: See ``merge.paint_instances``.
            min_stuff_px: Smaller stuff segments are void.

        Returns:
            A model that takes RGB images in [0, 1]. It shares modules with this network: what trains one trains
            the other.
        """
        for predictor in self.roi_heads.box_predictor:
            predictor.test_score_thresh = score_threshold
        model = PanopticFPN(
            backbone=self.backbone,
            proposal_generator=self.proposal_generator,
            roi_heads=self.roi_heads,
            sem_seg_head=self.sem_seg_head,
            pixel_mean=COLOUR_MEAN,
            pixel_std=COLOUR_STD,
            input_format="RGB",
            combine_overlap_thresh=overlap_share,
            combine_stuff_area_thresh=min_stuff_px,
            combine_instances_score_thresh=score_threshold,
        )
        # Not model.train(): that would reach into the shared modules, frozen normalisations among them.
        model.training = self.training
        return model

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) images -> every level of the pyramid by Detectron2's name."""
        normal = (images - self.colour_mean) / self.colour_std
        padded = ImageList.from_tensors(list(normal), self.backbone.size_divisibility).tensor
        features: dict[str, Tensor] = self.backbone(padded)
        return features

    def _propose(
        self,
        features: Mapping[str, Tensor],
        size: tuple[int, int],
        targets: Sequence[ImageTarget] | None = None,
        drop: DropRule | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Proposals per image, best first, and with targets the losses of the proposal network."""
        generator = self.proposal_generator
        levels = [features[name] for name in generator.in_features]
        anchors = generator.anchor_generator(levels)
        logits_per_level, offsets_per_level = generator.rpn_head(levels)
        logits = [_per_anchor(level, 1).squeeze(-1) for level in logits_per_level]
        offsets = [_per_anchor(level, 4) for level in offsets_per_level]
        with torch.no_grad():
            proposals: list[Instances] = find_top_rpn_proposals(
                generator._decode_proposals(anchors, offsets),
                logits,
                [size] * len(levels[0]),
                generator.nms_thresh,
                generator.pre_nms_topk[self.training],
                generator.post_nms_topk[self.training],
                generator.min_box_size,
                # Told that it trains it would raise on proposals that are not finite.
                training=False,
            )
        if targets is None:
            return proposals, {}
        labels, wanted = self._label_anchors(Boxes.cat(anchors), targets, drop)
        losses = generator.losses(anchors, logits, labels, offsets, wanted)
        return proposals, {"objectness": losses["loss_rpn_cls"], "proposal_box": losses["loss_rpn_loc"]}

    @torch.no_grad()
    def _label_anchors(
        self, anchors: Boxes, targets: Sequence[ImageTarget], drop: DropRule | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Per image (A,) labels 1, 0 or -1 (not sampled), and (A, 4) the box that each anchor should become."""
        generator = self.proposal_generator
        labels, wanted = [], []
        for target in targets:
            matched, label = generator.anchor_matcher(pairwise_iou(Boxes(target.boxes), anchors))
            if drop is not None and drop.covers_anchors:
                may_be_missed = unlabelled_shares(anchors.tensor, target) >= drop.unlabelled_share
                label[(label == 0) & may_be_missed] = -1
            labels.append(generator._subsample_labels(label))
            wanted.append(target.boxes[matched] if len(target.boxes) else anchors.tensor)
        return labels, wanted

    def _instance_losses(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Instances],
        size: tuple[int, int],
        targets: Sequence[ImageTarget],
        drop: DropRule | None,
    ) -> dict[str, Tensor]:
        """Losses ``class``, ``box`` (summed over the stages) and ``mask``."""
        heads = self.roi_heads
        levels = _to_pool(features)
        instances = [_target_instances(target) for target in targets]
        sampled = first_stage = heads.label_and_sample_proposals(proposals, instances)
        class_loss = box_loss = levels[0].new_zeros(())
        for stage, predictor in enumerate(heads.box_predictor):
            predictions = _run_stage(heads, levels, sampled, stage)
            losses = predictor.losses(predictions, sampled)
            # Detectron2 stops at a box that is not finite; here the loss says so, to whoever guards the training.
            decoded = [
                clip_boxes(own.detach().nan_to_num(), size)
                for own in predictor.predict_boxes(predictions, sampled)
            ]
            if drop is not None:
                weights = drop_weights(decoded, targets, drop)
                labels = torch.cat([image.gt_classes for image in sampled])
                losses["loss_cls"] = classification_loss(predictions[0], labels, weights)
            class_loss = class_loss + losses["loss_cls"]
            box_loss = box_loss + losses["loss_box_reg"]
            if stage + 1 < heads.num_cascade_stages:
                boxes = heads._create_proposals_from_boxes(decoded, [size] * len(decoded))
                sampled = heads._match_and_label_boxes(boxes, stage + 1, instances)
        positive, _ = select_foreground_proposals(first_stage, heads.num_classes)
        pooled = heads.mask_pooler(levels, [image.proposal_boxes for image in positive])
        mask_loss = mask_rcnn_loss(heads.mask_head.layers(pooled).float(), positive)
        return {"class": class_loss, "box": box_loss, "mask": mask_loss}

    def _detect_boxes(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Instances],
        size: tuple[int, int],
        score_threshold: float,
    ) -> list[Detections]:
        heads = self.roi_heads
        levels = _to_pool(features)
        probs_per_stage: list[list[Tensor]] = []
        decoded: list[Tensor] = []
        for stage, predictor in enumerate(heads.box_predictor):
            if stage:
                # Not Detectron2's own step, which in training leaves empty boxes out: the scores of the stages
                # belong to the same boxes.
                proposals = [Instances(size, proposal_boxes=Boxes(clip_boxes(own, size))) for own in decoded]
            predictions = _run_stage(heads, levels, proposals, stage)
            probs_per_stage.append(predictor.predict_probs(predictions, proposals))
            decoded = predictor.predict_boxes(predictions, proposals)
        found, _ = fast_rcnn_inference(
            decoded,
            [torch.stack(image).mean(0) for image in zip(*probs_per_stage, strict=True)],
            [size] * len(decoded),
            score_threshold,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return [_without_masks(image.pred_boxes.tensor, image.scores, image.pred_classes) for image in found]


def build_detectron2_network(settings: NetworkSettings, *, n_things: int, n_stuff: int) -> Detectron2Network:
    """The network of ``settings`` on Detectron2's parts, with random weights.

    Raises:
        ConfigError: Detectron2 has no such trunk.
    """
    _check_trunk(settings)
    has_anchor_level = len(settings.proposals.anchor_sizes_px) > len(LEVELS)
    backbone = FPN(
        _build_trunk(settings),
        ["res2", "res3", "res4", "res5"],
        settings.pyramid_channels,
        norm="BN" if settings.pyramid_norm else "",
        top_block=LastLevelMaxPool() if has_anchor_level else None,
    )
    return Detectron2Network(
        backbone=backbone,
        proposal_generator=_build_proposal_generator(settings),
        roi_heads=_build_roi_heads(settings, n_things),
        sem_seg_head=SemSegFPNHead(
            {name: backbone.output_shape()[name] for name in LEVELS},
            num_classes=n_stuff + 1,
            conv_dims=settings.semantic_channels,
            common_stride=STRIDES[0],
            loss_weight=settings.semantic_loss_weight,
            norm=lambda channels: nn.GroupNorm(settings.semantic_groups, channels),
            ignore_value=VOID,
        ),
        semantic_loss_stride=settings.semantic_loss_stride,
    )


def merge_by_detectron2(
    prediction: Prediction, *, score_threshold: float, overlap_share: float, min_stuff_px: int
) -> tuple[Tensor, list[dict[str, Any]]]:
    """What ``merge.merge_panoptic`` does, done by Detectron2, to hold the two against each other.

    Args:
        prediction: One image's detections and (S + 1, H, W) semantic probabilities.
        score_threshold: Detections below are left out.
        overlap_share: See ``merge.paint_instances``.
        min_stuff_px: Smaller stuff segments are void.

    Returns:
        (H, W) int32, the segment of each pixel, 0 where void; and Detectron2's record of each segment: ``id``,
        ``isthing`` and ``category_id`` (thing index, or stuff index + 1).
    """
    found = prediction.detections
    size = (int(prediction.semantic_probs.shape[1]), int(prediction.semantic_probs.shape[2]))
    instances = Instances(
        size,
        scores=found.scores,
        pred_classes=found.classes,
        pred_masks=paste_masks_in_image(found.mask_probs, Boxes(found.boxes), size, threshold=MASK_THRESHOLD),
    )
    segments: tuple[Tensor, list[dict[str, Any]]] = combine_semantic_and_instance_outputs(
        instances, prediction.semantic_probs.argmax(0), overlap_share, min_stuff_px, score_threshold
    )
    return segments


def _check_trunk(settings: NetworkSettings) -> None:
    advice = "network.backend torchvision can, and network=paper is a network of both"
    for key, value, expected in (
        ("stem_kernel", settings.stem_kernel, STEM_KERNEL),
        ("stem_pool", settings.stem_pool, True),
    ):
        if value != expected:
            raise ConfigError(
                f"network.{key} must be {str(expected).lower()} with network.backend detectron2, whose stem cannot "
                f"be another; {advice}. Got: {str(value).lower()}"
            )
    if settings.block == "basic" and len(set(settings.stage_channels)) < len(settings.stage_channels):
        raise ConfigError(
            "network.stage_channels must differ from stage to stage with basic blocks and network.backend "
            f"detectron2, which halves a stage only where it changes them; {advice}. "
            f"Got: {settings.stage_channels}"
        )


def _build_trunk(settings: NetworkSettings) -> ResNet:
    stages = []
    channels_in = settings.stem_channels
    for number, (channels, n_blocks) in enumerate(
        zip(settings.stage_channels, settings.stage_blocks, strict=True)
    ):
        kind, options = BasicBlock, {}
        if settings.block == "bottleneck":
            # The stride in the 3x3 convolution, as in torchvision.
            kind, options = BottleneckBlock, {"bottleneck_channels": channels // 4, "stride_in_1x1": False}
        strides = [1 if number == 0 else 2] + [1] * (n_blocks - 1)
        stages.append(
            ResNet.make_stage(
                kind,
                n_blocks,
                stride_per_block=strides,
                in_channels=channels_in,
                out_channels=channels,
                norm="BN",
                **options,
            )
        )
        channels_in = channels
    stem = BasicStem(3, settings.stem_channels, norm="BN")
    return ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"])


def _build_proposal_generator(settings: NetworkSettings) -> RPN:
    proposals = settings.proposals
    levels = dict(zip((*LEVELS, ANCHOR_LEVEL), (*STRIDES, ANCHOR_STRIDE), strict=True))
    in_features = list(levels)[: len(proposals.anchor_sizes_px)]
    return RPN(
        in_features=in_features,
        head=StandardRPNHead(
            in_channels=settings.pyramid_channels, num_anchors=len(proposals.anchor_ratios), conv_dims=[-1]
        ),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[side] for side in proposals.anchor_sizes_px],
            aspect_ratios=[proposals.anchor_ratios],
            strides=[levels[name] for name in in_features],
            offset=0.0,
        ),
        anchor_matcher=Matcher(
            [proposals.negative_iou, proposals.positive_iou], [0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=Box2BoxTransform(weights=ANCHOR_WEIGHTS),
        batch_size_per_image=proposals.samples,
        positive_fraction=proposals.positive_share,
        pre_nms_topk=(proposals.before_nms_train, proposals.before_nms_test),
        post_nms_topk=(proposals.after_nms_train, proposals.after_nms_test),
        nms_thresh=proposals.nms_iou,
        min_box_size=MIN_SIDE_PX,
    )


def _build_roi_heads(settings: NetworkSettings, n_things: int) -> CascadeROIHeads:
    instances = settings.instances
    box_heads = [
        FastRCNNConvFCHead(
            _cells(settings, BOX_CELLS), conv_dims=[], fc_dims=[instances.box_hidden, instances.box_hidden]
        )
        for _ in instances.cascade_ious
    ]
    return CascadeROIHeads(
        num_classes=n_things,
        batch_size_per_image=instances.samples,
        positive_fraction=instances.positive_share,
        box_in_features=list(LEVELS),
        box_pooler=_pooler(settings, BOX_CELLS),
        box_heads=box_heads,
        box_predictors=[
            FastRCNNOutputLayers(
                head.output_shape,
                box2box_transform=Box2BoxTransform(weights=weights),
                num_classes=n_things,
                test_nms_thresh=instances.nms_iou,
                test_topk_per_image=instances.max_detections,
                cls_agnostic_bbox_reg=True,
            )
            for head, weights in zip(box_heads, STAGE_WEIGHTS, strict=False)
        ],
        proposal_matchers=[Matcher([iou], [0, 1]) for iou in instances.cascade_ious],
        proposal_append_gt=True,
        mask_in_features=list(LEVELS),
        mask_pooler=_pooler(settings, MASK_CELLS),
        mask_head=MaskRCNNConvUpsampleHead(
            _cells(settings, MASK_CELLS),
            num_classes=n_things,
            conv_dims=[instances.mask_channels] * (instances.mask_convolutions + 1),
        ),
    )


def _cells(settings: NetworkSettings, cells: int) -> ShapeSpec:
    return ShapeSpec(channels=settings.pyramid_channels, height=cells, width=cells)


def _pooler(settings: NetworkSettings, cells: int) -> ROIPooler:
    return ROIPooler(
        output_size=cells,
        scales=[1 / stride for stride in STRIDES],
        sampling_ratio=settings.instances.samples_per_cell,
        pooler_type="ROIAlignV2",
        canonical_box_size=settings.instances.canonical_box_px,
        canonical_level=CANONICAL_LEVEL,
    )


def _to_pool(features: Mapping[str, Tensor]) -> list[Tensor]:
    """The levels that boxes are pooled from, in float32.

    Detectron2 converts boxes to the type of the features; with 8 bits of bfloat16 a box at 800 px would move by up
    to 2 px.
    """
    return [features[name].float() for name in LEVELS]


def _run_stage(
    heads: CascadeROIHeads, levels: list[Tensor], proposals: list[Instances], stage: int
) -> tuple[Tensor, Tensor]:
    """(N, T + 1) float32 logits and (N, 4) float32 offsets of all proposals."""
    logits, offsets = heads._run_stage(levels, proposals, stage)
    return logits.float(), offsets.float()


def _target_instances(target: ImageTarget) -> Instances:
    return Instances(
        tuple(target.semantic.shape),
        gt_boxes=Boxes(target.boxes),
        gt_classes=target.classes,
        gt_masks=BitMasks(target.masks),
    )


def _without_masks(boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
    return Detections(boxes, scores, classes, boxes.new_zeros((0, MASK_SIDE, MASK_SIDE)))


def _per_anchor(level: Tensor, values: int) -> Tensor:
    """(B, A * values, h, w) -> (B, h * w * A, values) float32, the order of Detectron2's anchors."""
    batch, _, height, width = level.shape
    per_anchor = level.float().view(batch, -1, values, height, width).permute(0, 3, 4, 1, 2)
    return per_anchor.flatten(1, 3)
