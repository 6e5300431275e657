"""Networks from settings: which library the parts come from, and the numbers that they get."""

from __future__ import annotations

from gestalt.config.network import NetworkSettings, check_network
from gestalt.errors import ConfigError
from gestalt.network.backbone import PyramidBackbone, ResidualTrunk
from gestalt.network.instance_heads import InstanceHeads
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.proposal_network import ProposalCounts, ProposalNetwork
from gestalt.network.semantic_head import SemanticHead
from gestalt.panoptic import Vocabulary


def build_network(settings: NetworkSettings, vocabulary: Vocabulary) -> PanopticModel:
    """The network of ``settings`` with random weights and the class counts of ``vocabulary``.

    Raises:
        ConfigError: The vocabulary has no thing or no stuff, or values of the settings contradict each other.
        MissingDependencyError: The settings ask for Detectron2 and it is not installed.
    """
    n_things, n_stuff = len(vocabulary.things), len(vocabulary.stuff)
    if n_things == 0 or n_stuff == 0:
        raise ConfigError(
            f"the vocabulary must have things and stuff for a panoptic network. Got: {n_things} things and "
            f"{n_stuff} stuff classes; look at thing_stuff.psi and at the ratios in data/vocabulary.json"
        )
    check_network(settings)
    if settings.backend == "detectron2":
        from gestalt.network.detectron2_backend import build_detectron2_network

        return build_detectron2_network(settings, n_things=n_things, n_stuff=n_stuff)
    return build_panoptic_network(settings, n_things=n_things, n_stuff=n_stuff)


def build_panoptic_network(settings: NetworkSettings, *, n_things: int, n_stuff: int) -> PanopticNetwork:
    """The network on torchvision's parts, with random weights."""
    counts = settings.proposals
    return PanopticNetwork(
        backbone=PyramidBackbone(
            ResidualTrunk(
                block=settings.block,
                stem_kernel=settings.stem_kernel,
                stem_pool=settings.stem_pool,
                stem_channels=settings.stem_channels,
                stage_channels=settings.stage_channels,
                stage_blocks=settings.stage_blocks,
            ),
            stage_channels=settings.stage_channels,
            channels=settings.pyramid_channels,
            norm=settings.pyramid_norm,
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
            pyramid_channels=settings.pyramid_channels,
            channels=settings.semantic_channels,
            groups=settings.semantic_groups,
            n_stuff=n_stuff,
        ),
        semantic_loss_weight=settings.semantic_loss_weight,
        semantic_loss_stride=settings.semantic_loss_stride,
    )
