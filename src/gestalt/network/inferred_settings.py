"""What the tensors of a network tell about its architecture and its classes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from gestalt.config.network import STRIDES, NetworkSettings

# Kinds of blocks by the last of their convolutions.
LAST_CONVOLUTION = {"conv2": "basic", "conv3": "bottleneck"}


def infer_settings(tensors: Mapping[str, Tensor], settings: NetworkSettings) -> NetworkSettings:
    """Settings with the counts and widths that shapes tell.

    Args:
        tensors: By the names of ``PanopticModel.weights``; some may be missing.
        settings: The rest, such as sizes of anchors and thresholds, and what missing tensors would tell.
    """
    heads = settings.instances
    n_stages = _count(r"instance_heads\.stages\.(\d+)\.", tensors)
    mask_layers = _count(r"instance_heads\.mask_head\.layers\.(\d+)\.", tensors)
    mask_channels = _side(tensors, "instance_heads.mask_head.layers.0.weight", heads.mask_channels)
    box_hidden = _side(tensors, "instance_heads.stages.0.first.weight", heads.box_hidden)
    heads = dataclasses.replace(
        heads,
        cascade_ious=list(heads.cascade_ious[:n_stages] if n_stages else heads.cascade_ious),
        box_hidden=box_hidden,
        mask_channels=mask_channels,
        # The last layer enlarges.
        mask_convolutions=mask_layers - 1 if mask_layers > 1 else heads.mask_convolutions,
    )
    lateral = "backbone.pyramid.inner_blocks.0"
    return dataclasses.replace(
        settings,
        **_infer_trunk(tensors),
        pyramid_channels=_side(tensors, f"{lateral}.0.weight", settings.pyramid_channels),
        pyramid_norm=f"{lateral}.1.weight" in tensors
        if f"{lateral}.0.weight" in tensors
        else settings.pyramid_norm,
        semantic_channels=_side(tensors, "semantic_head.levels.0.0.0.weight", settings.semantic_channels),
        instances=heads,
    )


def count_classes(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Numbers of thing and stuff classes of the tensors of a network; 0 for a head that is not there."""
    n_things = _side(tensors, "instance_heads.mask_head.classify.weight", 0)
    # One channel more says "some thing".
    return n_things, max(_side(tensors, "semantic_head.classify.weight", 0) - 1, 0)


def _infer_trunk(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of the trunk; none of them where a stage is missing."""
    stages = [f"backbone.trunk.layer{number + 1}" for number in range(len(STRIDES))]
    blocks = [_count(rf"{re.escape(stage)}\.(\d+)\.", tensors) for stage in stages]
    stem = tensors.get("backbone.trunk.conv1.weight")
    last = max((name for name in LAST_CONVOLUTION if f"{stages[0]}.0.{name}.weight" in tensors), default="")
    ends = [tensors.get(f"{stage}.0.{last}.weight") for stage in stages]
    if stem is None or stem.ndim != 4 or not all(blocks) or any(end is None for end in ends):
        return {}
    return {
        "block": LAST_CONVOLUTION[last],
        "stem_kernel": stem.shape[2],
        "stem_channels": stem.shape[0],
        "stage_channels": [end.shape[0] for end in ends if end is not None],
        "stage_blocks": blocks,
    }


def _count(pattern: str, names: Iterable[str]) -> int:
    """How many different numbers stand in names that begin so."""
    return len({found[1] for name in names if (found := re.match(pattern, name))})


def _side(tensors: Mapping[str, Tensor], name: str, otherwise: int) -> int:
    """Rows of a tensor, or another number where it is missing."""
    return tensors[name].shape[0] if name in tensors else otherwise
