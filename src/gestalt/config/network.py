"""Settings of the sections ``network`` (the panoptic network) and ``predict`` (inference with it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gestalt.config.schema import section, setting
from gestalt.errors import ConfigError

# Strides of the pyramid's levels, one stage of the trunk each; images are padded to a multiple of the last one.
STRIDES = (4, 8, 16, 32)
# Most stages of the cascade.
MAX_CASCADE = 3
# Channels of a block's output per channel inside, by kind of block.
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True)
class ProposalNetworkSettings:
    """The region proposal network: where objects may be, whatever their class."""

    anchor_sizes_px: list[int] = setting(
        "anchor side on each pyramid level, finest first, px; a fifth one lies on a level of stride 64", low=1
    )
    anchor_ratios: list[float] = setting("height to width of the anchors", low=0.01)
    positive_iou: float = setting("an anchor is positive from this IoU with a target box", low=0, high=1)
    negative_iou: float = setting("an anchor is negative below this IoU with every target", low=0, high=1)
    samples: int = setting("anchors per image that the loss looks at", low=1)
    positive_share: float = setting("largest share of positives among them", low=0, high=1)
    nms_iou: float = setting("non-maximum suppression of proposals", low=0, high=1)
    before_nms_train: int = setting("best anchors per level that enter suppression in training", low=1)
    before_nms_test: int = setting("the same at inference", low=1)
    after_nms_train: int = setting("proposals per image that leave it in training", low=1)
    after_nms_test: int = setting("the same at inference", low=1)


@dataclass(frozen=True)
class InstanceHeadSettings:
    """The box cascade and the mask head."""

    cascade_ious: list[float] = setting(
        "IoU from which a proposal is positive, per cascade stage; CUPS: 0.5, 0.6, 0.7", low=0, high=1
    )
    samples: int = setting("proposals per image that the losses look at", low=1)
    positive_share: float = setting("largest share of positives among them", low=0, high=1)
    box_hidden: int = setting("width of the two fully connected layers of a box stage", low=1)
    mask_channels: int = setting("channels of the mask head", low=1)
    mask_convolutions: int = setting("3x3 convolutions of the mask head", low=1)
    canonical_box_px: int = setting("side of the box that is pooled from stride 16", low=1)
    samples_per_cell: int = setting("RoIAlign samples per cell and axis; 0 adapts to the box", low=0)
    nms_iou: float = setting("suppression of detections of one class", low=0, high=1)
    max_detections: int = setting("detections per image", low=1)


@dataclass(frozen=True)
class NetworkSettings:
    """Panoptic Cascade Mask R-CNN on a residual feature pyramid; class counts come from the vocabulary."""

    backend: str = setting(
        "library that the parts come from; detectron2 is an extra, see docs/detectron2.md",
        choices=("torchvision", "detectron2"),
    )
    block: str = setting("residual block of the trunk; CUPS: bottleneck", choices=("basic", "bottleneck"))
    stem_kernel: int = setting("side of the first convolution (stride 2), odd; CUPS: 7", low=1)
    stem_pool: bool = setting(
        "halve again by max pooling after it, as ResNet-50 does, otherwise in the first stage"
    )
    stem_channels: int = setting("channels after the first convolution", low=1)
    stage_channels: list[int] = setting("channels of the stages at strides 4, 8, 16, 32", low=1)
    stage_blocks: list[int] = setting("residual blocks of these stages", low=1)
    pyramid_channels: int = setting("channels of every pyramid level", low=1)
    pyramid_norm: bool = setting("batch normalisation in the pyramid; CUPS: true")
    semantic_channels: int = setting("channels of the semantic head; CUPS: 128", low=1)
    semantic_groups: int = setting("groups of its group normalisation; CUPS: 32", low=1)
    semantic_loss_weight: float = setting("weight of the semantic cross-entropy; CUPS: 0.5", low=0)
    semantic_loss_stride: int = setting("the semantic loss looks at one pixel in this many per axis", low=1)
    proposals: ProposalNetworkSettings = section(ProposalNetworkSettings, "the region proposal network")
    instances: InstanceHeadSettings = section(InstanceHeadSettings, "box cascade and mask head")


def check_network(settings: NetworkSettings, path: str = "network") -> None:
    """Raise on the first value that cannot work with the others.

    Args:
        settings: Values of the right type and range.
        path: Full key of the section, for the message.

    Raises:
        ConfigError: With the key's full path, what is allowed and the value found.
    """
    lengths: dict[str, tuple[Sequence[float], tuple[int, ...]]] = {
        "stage_channels": (settings.stage_channels, (len(STRIDES),)),
        "stage_blocks": (settings.stage_blocks, (len(STRIDES),)),
        "proposals.anchor_sizes_px": (settings.proposals.anchor_sizes_px, (len(STRIDES), len(STRIDES) + 1)),
        "instances.cascade_ious": (settings.instances.cascade_ious, tuple(range(1, MAX_CASCADE + 1))),
    }
    for key, (values, allowed) in lengths.items():
        if len(values) not in allowed:
            counts = f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
            raise ConfigError(f"{path}.{key} must have {counts} values. Got: {list(values)}")
    expansion = EXPANSION[settings.block]
    if odd := [channels for channels in settings.stage_channels if channels % expansion]:
        raise ConfigError(
            f"{path}.stage_channels must be multiples of {expansion} with {settings.block} blocks. Got: {odd}"
        )
    if settings.semantic_channels % settings.semantic_groups:
        raise ConfigError(
            f"{path}.semantic_channels must be a multiple of {path}.semantic_groups. "
            f"Got: {settings.semantic_channels} channels in {settings.semantic_groups} groups"
        )
    if settings.stem_kernel % 2 == 0:
        raise ConfigError(f"{path}.stem_kernel must be odd. Got: {settings.stem_kernel}")


@dataclass(frozen=True)
class MergeSettings:
    """How detections and semantics become one panoptic map."""

    score_threshold: float = setting("detections below are left out; CUPS: 0.5", low=0, high=1)
    overlap_share: float = setting(
        "a detection with a larger share of its pixels already taken is left out; CUPS: 0.5", low=0, high=1
    )
    min_stuff_share: float = setting(
        "smallest stuff segment as a share of the image; CUPS: 4096 px of 1024x2048", low=0, high=1
    )


@dataclass(frozen=True)
class PredictSettings:
    """Inference on a benchmark, a picture, a folder or a video."""

    batch_size: int = setting("images of one size per forward pass", low=1)
    height_px: int = setting(
        "images are scaled to this height for the network; 0 takes the height that it was trained at", low=0
    )
    view_scales: list[float] = setting("scales that are averaged; [1.0] is plain inference", low=0.01)
    view_flip: bool = setting("average each view with its mirror image")
    merge: MergeSettings = section(MergeSettings, "how detections and semantics become one map")
