"""Names of weights here and in detectron2: the same weights, none twice, none lost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError
from gestalt.network.architecture import build_panoptic_network
from gestalt.network.detectron2_names import check_expressible, from_detectron2, to_detectron2
from tests.network.published import narrow_settings, paper_settings

# Written down from a published checkpoint and from the frame of this package, side by side.
SAMPLE = {
    "backbone.trunk.conv1.weight": "backbone.bottom_up.stem.conv1.weight",
    "backbone.trunk.bn1.running_var": "backbone.bottom_up.stem.conv1.norm.running_var",
    "backbone.trunk.bn1.num_batches_tracked": "backbone.bottom_up.stem.conv1.norm.num_batches_tracked",
    "backbone.trunk.layer1.0.downsample.0.weight": "backbone.bottom_up.res2.0.shortcut.weight",
    "backbone.trunk.layer1.0.downsample.1.bias": "backbone.bottom_up.res2.0.shortcut.norm.bias",
    "backbone.trunk.layer3.5.conv2.weight": "backbone.bottom_up.res4.5.conv2.weight",
    "backbone.trunk.layer4.2.bn3.running_mean": "backbone.bottom_up.res5.2.conv3.norm.running_mean",
    "backbone.pyramid.inner_blocks.0.0.weight": "backbone.fpn_lateral2.weight",
    "backbone.pyramid.inner_blocks.3.1.weight": "backbone.fpn_lateral5.norm.weight",
    "backbone.pyramid.layer_blocks.1.0.weight": "backbone.fpn_output3.weight",
    "backbone.pyramid.layer_blocks.1.1.running_var": "backbone.fpn_output3.norm.running_var",
    "proposal_network.head.conv.0.0.bias": "proposal_generator.rpn_head.conv.bias",
    "proposal_network.head.cls_logits.weight": "proposal_generator.rpn_head.objectness_logits.weight",
    "proposal_network.head.bbox_pred.weight": "proposal_generator.rpn_head.anchor_deltas.weight",
    "instance_heads.stages.0.first.weight": "roi_heads.box_head.0.fc1.weight",
    "instance_heads.stages.2.second.bias": "roi_heads.box_head.2.fc2.bias",
    "instance_heads.stages.1.classify.weight": "roi_heads.box_predictor.1.cls_score.weight",
    "instance_heads.stages.2.regress.weight": "roi_heads.box_predictor.2.bbox_pred.weight",
    "instance_heads.mask_head.layers.0.weight": "roi_heads.mask_head.mask_fcn1.weight",
    "instance_heads.mask_head.layers.6.bias": "roi_heads.mask_head.mask_fcn4.bias",
    "instance_heads.mask_head.layers.8.weight": "roi_heads.mask_head.deconv.weight",
    "instance_heads.mask_head.classify.bias": "roi_heads.mask_head.predictor.bias",
    "semantic_head.levels.0.0.0.weight": "sem_seg_head.p2.0.weight",
    "semantic_head.levels.1.0.1.weight": "sem_seg_head.p3.0.norm.weight",
    "semantic_head.levels.2.1.0.weight": "sem_seg_head.p4.2.weight",
    "semantic_head.levels.3.2.1.bias": "sem_seg_head.p5.4.norm.bias",
    "semantic_head.classify.weight": "sem_seg_head.predictor.weight",
}  # fmt: skip


def names(settings: NetworkSettings) -> dict[str, str]:
    """Every weight of a network, under its own name."""
    with torch.device("meta"):
        return {name: name for name in build_panoptic_network(settings, n_things=3, n_stuff=4).weights()}


def variants() -> dict[str, NetworkSettings]:
    narrow = narrow_settings()
    heads = narrow.instances
    return {
        "paper": paper_settings(),
        "small": default_settings("network", "small"),
        "ResNet-101": dataclasses.replace(narrow, stage_blocks=[3, 4, 23, 3]),
        "no norm": dataclasses.replace(narrow, pyramid_norm=False),
        "basic": dataclasses.replace(narrow, block="basic"),
        "two stages": dataclasses.replace(
            narrow, instances=dataclasses.replace(heads, cascade_ious=[0.5, 0.6], mask_convolutions=2)
        ),
    }


def test_names_written_down_by_hand() -> None:
    theirs = to_detectron2(names(paper_settings()))
    translated = {own: name for name, own in theirs.items()}
    assert {own: translated[own] for own in SAMPLE} == SAMPLE


@pytest.mark.parametrize("variant", variants())
def test_every_name_has_a_counterpart_and_comes_back(variant: str) -> None:
    own = names(variants()[variant])
    theirs = to_detectron2(own)
    assert len(theirs) == len(own)
    assert not set(theirs) & set(own)
    assert from_detectron2(theirs) == own
    assert list(from_detectron2(theirs)) == list(own)


def test_names_without_a_counterpart_stay() -> None:
    assert to_detectron2({"a.weight": 1, "backbone.trunk.conv1.weight": 2}) == {
        "a.weight": 1,
        "backbone.bottom_up.stem.conv1.weight": 2,
    }
    assert from_detectron2({"roi_heads.box_head.fc1.weight": 1}) == {"roi_heads.box_head.fc1.weight": 1}


def detectron2_network(settings: NetworkSettings) -> Any:
    """Detectron2's own network as its configuration files describe it."""
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    model = config.MODEL
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = "PanopticFPN"
    model.BACKBONE.NAME, model.BACKBONE.FREEZE_AT = "build_resnet_fpn_backbone", 0
    model.RESNETS.DEPTH = {6: 50, 23: 101, 36: 152}[settings.stage_blocks[2]]
    model.RESNETS.NORM, model.RESNETS.STRIDE_IN_1X1 = "BN", False
    model.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    model.RESNETS.STEM_OUT_CHANNELS = settings.stem_channels
    model.RESNETS.RES2_OUT_CHANNELS = settings.stage_channels[0]
    model.RESNETS.WIDTH_PER_GROUP = settings.stage_channels[0] // 4
    model.FPN.IN_FEATURES = model.RESNETS.OUT_FEATURES
    model.FPN.OUT_CHANNELS, model.FPN.NORM = settings.pyramid_channels, "BN" if settings.pyramid_norm else ""
    model.ANCHOR_GENERATOR.SIZES = [[size] for size in settings.proposals.anchor_sizes_px]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [settings.proposals.anchor_ratios]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.ROI_HEADS.NAME, model.ROI_HEADS.NUM_CLASSES = "CascadeROIHeads", 3
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_BOX_HEAD.NAME, model.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 2
    model.ROI_BOX_HEAD.FC_DIM = settings.instances.box_hidden
    model.ROI_BOX_HEAD.POOLER_RESOLUTION, model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = 7, True
    model.ROI_MASK_HEAD.NAME, model.ROI_MASK_HEAD.POOLER_RESOLUTION = "MaskRCNNConvUpsampleHead", 14
    model.ROI_MASK_HEAD.NUM_CONV = settings.instances.mask_convolutions
    model.ROI_MASK_HEAD.CONV_DIM = settings.instances.mask_channels
    model.MASK_ON = True
    model.SEM_SEG_HEAD.NAME, model.SEM_SEG_HEAD.NUM_CLASSES = "SemSegFPNHead", 5
    model.SEM_SEG_HEAD.CONVS_DIM = settings.semantic_channels
    return build_model(config)


@pytest.mark.parametrize("variant", ["narrow", "ResNet-101", "no norm"])
def test_names_and_shapes_are_those_of_the_real_network(variant: str) -> None:
    settings = {**variants(), "narrow": narrow_settings()}[variant]
    theirs = {name: tuple(value.shape) for name, value in detectron2_network(settings).state_dict().items()}
    with torch.device("meta"):
        network = build_panoptic_network(settings, n_things=3, n_stuff=4)
    own = {name: tuple(value.shape) for name, value in network.weights().items()}
    assert to_detectron2(own) == theirs
    assert from_detectron2(theirs) == own


def test_networks_that_detectron2_has_can_be_expressed() -> None:
    for variant in ("paper", "ResNet-101", "no norm", "two stages"):
        check_expressible(variants()[variant])


def test_what_detectron2_has_not_is_listed_setting_by_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        check_expressible(default_settings("network", "small"))
    message = str(caught.value)
    for key in (
        "network.block",
        "network.stem_kernel",
        "network.stem_pool",
        "network.instances.cascade_ious",
    ):
        assert key in message
    assert "network=paper" in message
    uneven = dataclasses.replace(narrow_settings(), stage_channels=[16, 32, 64, 64])
    with pytest.raises(
        ConfigError, match=r"stage_channels must be \[16, 32, 64, 128\] \(it is \[16, 32, 64, 64\]\)"
    ):
        check_expressible(uneven)
