"""The whole network in one place: image, pyramid, proposals, instances, semantics; losses or raw outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.config.network import NetworkSettings
from gestalt.errors import ConfigError, ShapeError
from gestalt.network.backbone import STRIDES, PyramidBackbone
from gestalt.network.drop_loss import DropRule
from gestalt.network.instance_heads import STAGE_WEIGHTS, InstanceHeads
from gestalt.network.proposal_network import ProposalCounts, ProposalNetwork
from gestalt.network.records import Detections, ImageTarget
from gestalt.network.semantic_head import SemanticHead, semantic_loss, upsample_logits
from gestalt.panoptic import Vocabulary

# Statistics of ImageNet's colours, the normalisation of most published backbones.
COLOUR_MEAN = (0.485, 0.456, 0.406)
COLOUR_STD = (0.229, 0.224, 0.225)


class PanopticNetwork(nn.Module):
    """Panoptic Cascade Mask R-CNN: a feature pyramid with an instance branch and a semantic branch.

    Source:
        Hahn et al., CUPS, CVPR 2025; Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019.
    """

    colour_mean: Tensor
    colour_std: Tensor

    def __init__(
        self,
        *,
        backbone: PyramidBackbone,
        proposal_network: ProposalNetwork,
        instance_heads: InstanceHeads,
        semantic_head: SemanticHead,
        semantic_loss_weight: float,
        semantic_loss_stride: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proposal_network = proposal_network
        self.instance_heads = instance_heads
        self.semantic_head = semantic_head
        self.semantic_loss_weight = semantic_loss_weight
        self.semantic_loss_stride = semantic_loss_stride
        self.register_buffer("colour_mean", torch.tensor(COLOUR_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("colour_std", torch.tensor(COLOUR_STD).view(3, 1, 1), persistent=False)

    @property
    def n_things(self) -> int:
        """T, the number of thing classes."""
        return self.instance_heads.n_things

    @property
    def n_stuff(self) -> int:
        """S, the number of stuff classes."""
        return self.semantic_head.classify.out_channels - 1

    def forward(
        self, images: Tensor, targets: Sequence[ImageTarget], drop: DropRule | None = None
    ) -> dict[str, Tensor]:
        """Training losses, each with its weight applied; their sum is the total loss.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1], any size.
            targets: One per image, of the same size.
            drop: DropLoss' rule, or None for the plain classification loss.

        Returns:
            Scalars ``semantic``, ``objectness``, ``proposal_box``, ``class``, ``box``, ``mask``.

        Raises:
            ShapeError: Images and targets differ in number or size.
        """
        size = (int(images.shape[-2]), int(images.shape[-1]))
        sizes = {tuple(target.semantic.shape) for target in targets}
        if len(targets) != len(images) or sizes != {size}:
            raise ShapeError(
                f"{len(images)} images of {size} need as many targets of that size. "
                f"Got: {len(targets)} targets of {sorted(sizes)}"
            )
        padded = self.normalise(images)
        pyramid = self.backbone(padded)
        proposals, losses = self.proposal_network(padded, pyramid, size, targets, drop)
        losses |= self.instance_heads.losses(pyramid, proposals, size, targets, drop)
        logits = self.semantic_head(pyramid)
        semantic = semantic_loss(logits, [target.semantic for target in targets], self.semantic_loss_stride)
        return {"semantic": self.semantic_loss_weight * semantic, **losses}

    def normalise(self, images: Tensor) -> Tensor:
        """Colours with zero mean and unit spread, padded right and below with zeros to a multiple of 32."""
        height, width = images.shape[-2:]
        padding = (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])
        return functional.pad((images - self.colour_mean) / self.colour_std, padding)

    def detect(self, images: Tensor, score_threshold: float) -> tuple[list[Tensor], list[Detections], Tensor]:
        """Features, boxes and semantics of a batch; masks follow with ``instance_heads.mask_probs``.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1], any size.
            score_threshold: Detections must score above.

        Returns:
            The pyramid; per image the detections without masks, in pixels of ``images``; (B, S + 1, H, W)
            float semantic logits.
        """
        size = (int(images.shape[-2]), int(images.shape[-1]))
        padded = self.normalise(images)
        pyramid = self.backbone(padded)
        proposals, _ = self.proposal_network(padded, pyramid, size)
        detections = self.instance_heads.detect(pyramid, proposals, size, score_threshold)
        return pyramid, detections, upsample_logits(self.semantic_head(pyramid).float(), size)

    def head_parameters(self) -> list[nn.Parameter]:
        """What self-training changes: both instance parts and the semantic head, without normalisation."""
        heads = (self.proposal_network, self.instance_heads, self.semantic_head)
        return [
            weight
            for head in heads
            for module in head.modules()
            if not is_normalisation(module)
            for weight in module.parameters(recurse=False)
        ]

    def freeze_normalisation(self) -> None:
        """Use the stored statistics and keep them; call after every ``train()``."""
        for module in self.modules():
            if is_normalisation(module):
                module.eval()


def is_normalisation(module: nn.Module) -> bool:
    """Whether the module is a batch, group or layer normalisation."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm)


def build_network(settings: NetworkSettings, vocabulary: Vocabulary) -> PanopticNetwork:
    """The network of ``settings`` with random weights and the class counts of ``vocabulary``.

    Raises:
        ConfigError: The vocabulary has no thing or no stuff, or lists of the settings differ in length.
    """
    n_things, n_stuff = len(vocabulary.things), len(vocabulary.stuff)
    if n_things == 0 or n_stuff == 0:
        raise ConfigError(
            f"the vocabulary must have things and stuff for a panoptic network. Got: {n_things} things and "
            f"{n_stuff} stuff classes; look at thing_stuff.psi and at the ratios in data/vocabulary.json"
        )
    _check_lengths(settings)
    counts = settings.proposals
    return PanopticNetwork(
        backbone=PyramidBackbone(
            stem_channels=settings.stem_channels,
            stage_channels=settings.stage_channels,
            stage_blocks=settings.stage_blocks,
            pyramid_channels=settings.pyramid_channels,
        ),
        proposal_network=ProposalNetwork(
            channels=settings.pyramid_channels,
            anchor_sizes_px=counts.anchor_sizes_px,
            anchor_ratios=counts.anchor_ratios,
            positive_iou=counts.positive_iou,
            negative_iou=counts.negative_iou,
            samples=counts.samples,
            positive_share=counts.positive_share,
            nms_iou=counts.nms_iou,
            train_counts=ProposalCounts(counts.before_nms_train, counts.after_nms_train),
            test_counts=ProposalCounts(counts.before_nms_test, counts.after_nms_test),
        ),
        instance_heads=InstanceHeads(
            channels=settings.pyramid_channels,
            n_things=n_things,
            cascade_ious=settings.instances.cascade_ious,
            samples=settings.instances.samples,
            positive_share=settings.instances.positive_share,
            box_hidden=settings.instances.box_hidden,
            mask_channels=settings.instances.mask_channels,
            mask_convolutions=settings.instances.mask_convolutions,
            canonical_box_px=settings.instances.canonical_box_px,
            samples_per_cell=settings.instances.samples_per_cell,
            nms_iou=settings.instances.nms_iou,
            max_detections=settings.instances.max_detections,
        ),
        semantic_head=SemanticHead(
            pyramid_channels=settings.pyramid_channels, channels=settings.semantic_channels, n_stuff=n_stuff
        ),
        semantic_loss_weight=settings.semantic_loss_weight,
        semantic_loss_stride=settings.semantic_loss_stride,
    )


def _check_lengths(settings: NetworkSettings) -> None:
    for key, values in (
        ("network.stage_channels", settings.stage_channels),
        ("network.stage_blocks", settings.stage_blocks),
        ("network.proposals.anchor_sizes_px", settings.proposals.anchor_sizes_px),
    ):
        if len(values) != len(STRIDES):
            raise ConfigError(
                f"{key} must have {len(STRIDES)} values, one per stride {STRIDES}. Got: {list(values)}"
            )
    n_stages = len(settings.instances.cascade_ious)
    if not 1 <= n_stages <= len(STAGE_WEIGHTS):
        raise ConfigError(
            f"network.instances.cascade_ious must have 1 to {len(STAGE_WEIGHTS)} values. Got: {n_stages}"
        )
