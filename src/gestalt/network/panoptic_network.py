"""The CUPS network on torchvision's parts, in one place: image, pyramid, proposals, instances, semantics.

From an image to a panoptic map: ``PanopticNetwork.detect`` gives boxes and semantics, ``mask_probs`` the masks in the
boxes, ``merge.merge_panoptic`` paints both into one map. ``test_time.predict_views`` walks that way for several views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gestalt.config.network import STRIDES
from gestalt.network.backbone import PyramidBackbone
from gestalt.network.drop_loss import DropRule
from gestalt.network.instance_heads import InstanceHeads
from gestalt.network.panoptic_model import (
    COLOUR_MEAN,
    COLOUR_STD,
    PanopticModel,
    check_targets,
    parameters_without_normalisation,
)
from gestalt.network.proposal_network import ProposalNetwork
from gestalt.network.records import Detections, ImageTarget
from gestalt.network.semantic_head import SemanticHead, semantic_loss, upsample_logits


class PanopticNetwork(PanopticModel):
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
        """See ``PanopticModel.forward``."""
        size = check_targets(images, targets)
        pyramid = self.backbone(self.normalise(images))
        proposals, losses = self.proposal_network(pyramid, size, targets, drop)
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
        """See ``PanopticModel.detect``."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        pyramid = self.backbone(self.normalise(images))
        proposals, _ = self.proposal_network(pyramid, size)
        detections = self.instance_heads.detect(pyramid, proposals, size, score_threshold)
        return pyramid, detections, upsample_logits(self.semantic_head(pyramid).float(), size)

    def suppress(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Detections:
        """See ``PanopticModel.suppress``."""
        return self.instance_heads.suppress(boxes, scores, classes)

    def mask_probs(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], classes: Sequence[Tensor]
    ) -> list[Tensor]:
        """See ``PanopticModel.mask_probs``."""
        return self.instance_heads.mask_probs(pyramid, boxes, classes)

    def head_parameters(self) -> list[nn.Parameter]:
        """See ``PanopticModel.head_parameters``."""
        return parameters_without_normalisation(
            self.proposal_network, self.instance_heads, self.semantic_head
        )
