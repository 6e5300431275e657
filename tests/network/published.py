"""The CUPS network a few channels wide, and files of it as other code writes them."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch
from torch import Tensor, nn

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.network.architecture import build_network
from gestalt.network.detectron2_names import to_detectron2
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.panoptic import Vocabulary

N_THINGS, N_STUFF = 3, 4


@cache
def paper_settings() -> NetworkSettings:
    settings: NetworkSettings = default_settings("network", "paper")
    return settings


@cache
def narrow_settings() -> NetworkSettings:
    """All parts of the preset ``paper``, a sixteenth as wide or less."""
    paper = paper_settings()
    return dataclasses.replace(
        paper,
        stem_channels=8,
        stage_channels=[16, 32, 64, 128],
        pyramid_channels=16,
        semantic_channels=32,
        instances=dataclasses.replace(paper.instances, box_hidden=24, mask_channels=12),
    )


def build_narrow(seed: int = 0) -> PanopticModel:
    """Random weights; normalisations have statistics of their own."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary(tuple(range(N_STUFF, N_STUFF + N_THINGS)), tuple(range(N_STUFF)))
    network = build_network(narrow_settings(), vocabulary).eval()
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    return network


def build_bold(seed: int = 0) -> PanopticNetwork:
    """Weights that answer boldly: those of a fresh network give one score to everything."""
    network = build_narrow(seed)
    assert isinstance(network, PanopticNetwork)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        # One batch gives every batch normalisation its statistics.
        network.train().backbone(network.normalise(torch.rand(4, 3, 128, 128)))
    head, heads = network.proposal_network.head, network.instance_heads
    nn.init.normal_(head.cls_logits.weight, std=0.3)
    nn.init.normal_(head.bbox_pred.weight, std=0.05)
    for stage in heads.stages:
        nn.init.normal_(stage.classify.weight, std=1.0)
        nn.init.normal_(stage.regress.weight, std=0.3)
    nn.init.normal_(heads.mask_head.classify.weight, std=0.5)
    return network.eval()


def detectron2_weights(network: PanopticModel) -> dict[str, Tensor]:
    """The weights of a network as detectron2 calls them."""
    return to_detectron2(network.weights())
