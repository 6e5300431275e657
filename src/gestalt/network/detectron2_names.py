"""Names of weights here and in detectron2, for the same network; and which networks detectron2 has.

Nothing of detectron2 is imported: the names are enough to read its checkpoints and to write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gestalt.config.network import STRIDES, NetworkSettings
from gestalt.errors import ConfigError

Value = TypeVar("Value")

# Kind of block and blocks per stage of the residual networks that detectron2 has: ResNet-18, 34, 50, 101 and 152.
RESNETS = [
    ("basic", [2, 2, 2, 2]),
    ("basic", [3, 4, 6, 3]),
    ("bottleneck", [3, 4, 6, 3]),
    ("bottleneck", [3, 4, 23, 3]),
    ("bottleneck", [3, 8, 36, 3]),
]
# What detectron2's stem, poolers and group normalisation have, whatever its configuration says.
STEM_KERNEL, CANONICAL_BOX_PX, GROUPS = 7, 224, 32
# The width of its basic blocks is fixed.
BASIC_CHANNELS = 64
# Its first residual stage and its finest pyramid level carry this number.
FIRST_LEVEL = 2
# Numbers of the convolutions of a residual block; a basic one lacks the last.
BLOCK_CONVOLUTIONS = (1, 2, 3)


@dataclass(frozen=True)
class _Counts:
    """What differs between networks: blocks of the longest stage of the trunk, cascade stages, mask convolutions."""

    blocks: int
    stages: int
    mask_convolutions: int


def to_detectron2(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Weights of a network under the names that detectron2 gives them.

    Args:
        weights: All of a network's, by the names of ``PanopticModel.weights``. A name that has no counterpart stays.
    """
    counts = _Counts(
        blocks=1 + _largest(r"backbone\.trunk\.layer\d\.(\d+)\.", weights),
        stages=1 + _largest(r"instance_heads\.stages\.(\d+)\.", weights),
        # A ReLU follows each convolution; the last of these layers enlarges.
        mask_convolutions=_largest(r"instance_heads\.mask_head\.layers\.(\d+)\.", weights) // 2,
    )
    return _rename(weights, _pair_modules(counts))


def from_detectron2(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Inverse of ``to_detectron2``; weights may be missing."""
    counts = _Counts(
        blocks=1 + _largest(r"backbone\.bottom_up\.res\d\.(\d+)\.", weights),
        stages=1 + _largest(r"roi_heads\.box_(?:head|predictor)\.(\d+)\.", weights),
        mask_convolutions=_largest(r"roi_heads\.mask_head\.mask_fcn(\d+)\.", weights),
    )
    return _rename(weights, {theirs: own for own, theirs in _pair_modules(counts).items()})


def check_expressible(settings: NetworkSettings) -> None:
    """Refuse a network that no configuration of detectron2 describes.

    Raises:
        ConfigError: Names each setting with the value that is needed and the value found.
    """
    first = BASIC_CHANNELS if settings.block == "basic" else settings.stage_channels[0]
    n_stages = len(settings.instances.cascade_ious)
    needed: dict[str, tuple[Any, list[Any]]] = {
        "block and network.stage_blocks": ((settings.block, list(settings.stage_blocks)), RESNETS),
        "stem_kernel": (settings.stem_kernel, [STEM_KERNEL]),
        "stem_pool": (settings.stem_pool, [True]),
        "stage_channels": (
            list(settings.stage_channels),
            [[first * 2**level for level in range(len(STRIDES))]],
        ),
        "semantic_groups": (settings.semantic_groups, [GROUPS]),
        "instances.canonical_box_px": (settings.instances.canonical_box_px, [CANONICAL_BOX_PX]),
        # A single stage is another class there, with other names.
        "instances.cascade_ious must have several values; their number": (n_stages, [2, 3]),
    }
    wrong = [
        f"network.{key} must be {' or '.join(map(str, allowed))} (it is {found})"
        for key, (found, allowed) in needed.items()
        if found not in allowed
    ]
    if wrong:
        raise ConfigError(
            f"detectron2 has no such network: {'; '.join(wrong)}. Networks of the preset network=paper can be converted"
        )


def _rename(weights: Mapping[str, Value], modules: Mapping[str, str]) -> dict[str, Value]:
    renamed = {}
    for name, value in weights.items():
        module, _, leaf = name.rpartition(".")
        renamed[f"{modules[module]}.{leaf}" if module in modules else name] = value
    return renamed


def _largest(pattern: str, names: Iterable[str]) -> int:
    """The largest number that stands in names that begin so; 0 where there is none."""
    return max((int(found[1]) for name in names if (found := re.match(pattern, name))), default=0)


def _pair_modules(counts: _Counts) -> dict[str, str]:
    """The name here of every module that a network may have, and its name in detectron2."""
    return {
        **_pair_trunk(counts.blocks),
        **_pair_pyramid(),
        **_pair_instance_parts(counts.stages, counts.mask_convolutions),
        **_pair_semantic_head(),
    }


def _pair_trunk(n_blocks: int) -> dict[str, str]:
    own, theirs = "backbone.trunk", "backbone.bottom_up"
    pairs = {f"{own}.conv1": f"{theirs}.stem.conv1", f"{own}.bn1": f"{theirs}.stem.conv1.norm"}
    for stage in range(len(STRIDES)):
        for block in range(n_blocks):
            mine, other = f"{own}.layer{stage + 1}.{block}", f"{theirs}.res{stage + FIRST_LEVEL}.{block}"
            pairs |= {
                f"{mine}.downsample.0": f"{other}.shortcut",
                f"{mine}.downsample.1": f"{other}.shortcut.norm",
            }
            for number in BLOCK_CONVOLUTIONS:
                pairs[f"{mine}.conv{number}"] = f"{other}.conv{number}"
                pairs[f"{mine}.bn{number}"] = f"{other}.conv{number}.norm"
    return pairs


def _pair_pyramid() -> dict[str, str]:
    pairs: dict[str, str] = {}
    for level in range(len(STRIDES)):
        for own, theirs in (("inner_blocks", "fpn_lateral"), ("layer_blocks", "fpn_output")):
            mine, other = f"backbone.pyramid.{own}.{level}", f"backbone.{theirs}{level + FIRST_LEVEL}"
            pairs |= {f"{mine}.0": other, f"{mine}.1": f"{other}.norm"}
    return pairs


def _pair_instance_parts(n_stages: int, n_mask_convolutions: int) -> dict[str, str]:
    own, theirs = "proposal_network.head", "proposal_generator.rpn_head"
    pairs = {
        f"{own}.conv.0.0": f"{theirs}.conv",
        f"{own}.cls_logits": f"{theirs}.objectness_logits",
        f"{own}.bbox_pred": f"{theirs}.anchor_deltas",
    }
    own, theirs = "instance_heads.stages", "roi_heads"
    for stage in range(n_stages):
        pairs |= {
            f"{own}.{stage}.first": f"{theirs}.box_head.{stage}.fc1",
            f"{own}.{stage}.second": f"{theirs}.box_head.{stage}.fc2",
            f"{own}.{stage}.classify": f"{theirs}.box_predictor.{stage}.cls_score",
            f"{own}.{stage}.regress": f"{theirs}.box_predictor.{stage}.bbox_pred",
        }
    own, theirs = "instance_heads.mask_head", "roi_heads.mask_head"
    for number in range(n_mask_convolutions):
        pairs[f"{own}.layers.{2 * number}"] = f"{theirs}.mask_fcn{number + 1}"
    return {
        **pairs,
        f"{own}.layers.{2 * n_mask_convolutions}": f"{theirs}.deconv",
        f"{own}.classify": f"{theirs}.predictor",
    }


def _pair_semantic_head() -> dict[str, str]:
    pairs = {"semantic_head.classify": "sem_seg_head.predictor"}
    for level in range(len(STRIDES)):
        for number in range(max(level, 1)):
            # A doubling of resolution follows each, which has a place in detectron2's sequence.
            mine, other = (
                f"semantic_head.levels.{level}.{number}",
                f"sem_seg_head.p{level + FIRST_LEVEL}.{2 * number}",
            )
            pairs |= {f"{mine}.0": other, f"{mine}.1": f"{other}.norm"}
    return pairs
