"""Backbones that others trained: a file of weights in, features out; the architecture follows from the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gestalt.data.weight_report import WeightReport, compare_weights
from gestalt.errors import DataError
from gestalt.features.backbone_files import BackboneFile, read_backbone_file
from gestalt.features.catalogue import licence_of
from gestalt.features.dense import DenseFeatures
from gestalt.features.loading import load_features
from gestalt.features.resnet import ResNetFeatures, to_torchvision_names
from gestalt.features.timm_vit import TimmFeatures, convert_for_timm, name_timm_architecture
from gestalt.features.vit import PUBLISHED_OFFSET, VitLayout
from gestalt.features.vit_features import VitFeatures

# All published vision transformers of DINO have heads of this width.
HEAD_WIDTH = 64
BLOCK = re.compile(r"blocks\.(\d+)\.")
# A normalisation counts the batches of its training; the count serves nothing afterwards and some files lack it.
COUNTER = "num_batches_tracked"
# Names of a few tensors, where a file is of no known kind.
SHOWN = 6


@dataclass(frozen=True, eq=False)
class Backbone:
    """Features with weights from a file, and how the file compares with them.

    Attributes:
        features: On the CPU, in evaluation mode. Its weights are random where the report is not whole.
        report: Tensors fitting, missing, unexpected, of another shape.
        dropped: Names of the file's tensors that belong to heads.
    """

    features: DenseFeatures
    report: WeightReport
    dropped: tuple[str, ...]


def read_backbone(
    path: Path,
    *,
    facet: str = "tokens",
    architecture: str = "",
    patch_size: int | None = None,
    stride: int = 16,
) -> DenseFeatures:
    """Features with the weights of a file.

    Args:
        path: A state dict or training checkpoint of DINO, of torchvision or detectron2 (ResNet-50), or of timm; or a
            folder that ``save_features`` wrote, which has an architecture of its own.
        facet: What a cell of a vision transformer is described by: ``tokens`` or ``keys``; a ResNet-50 has but one.
        architecture: timm's name; "" infers the architecture from the tensors.
        patch_size: What the patch is expected to be; None takes what the file has.
        stride: Pixels between cells of a ResNet-50: 16 or 32.

    Returns:
        Features on the CPU, in evaluation mode; their card names file, SHA-256 and licence.

    Raises:
        DataError: The file cannot be read, is of no known kind, lacks tensors or has others, or has another patch.
        ConfigError: ``facet``, ``stride`` or ``architecture`` is unknown, or several architectures fit.
        MissingDependencyError: The architecture is timm's, and timm is not installed.
    """
    if path.is_dir():
        return load_features(path, facet=facet)
    backbone = open_backbone(
        path, facet=facet, architecture=architecture, patch_size=patch_size, stride=stride
    )
    if not backbone.report.is_whole:
        name = backbone.features.card()["architecture"]
        raise DataError(f"{path} does not hold a whole {name}:\n" + "\n".join(backbone.report.lines()))
    return backbone.features


def open_backbone(
    path: Path,
    *,
    facet: str = "tokens",
    architecture: str = "",
    patch_size: int | None = None,
    stride: int = 16,
) -> Backbone:
    """As ``read_backbone``, with the comparison, and without refusing a file whose tensors do not all fit."""
    file = read_backbone_file(path)
    source = {
        "file": path.name,
        "sha256": file.sha256,
        "licence": licence_of(path.name, file.sha256),
        "part": file.part,
    }
    features, tensors = _choose(file, path, facet, architecture, stride, source)
    if patch_size is not None and features.stride != patch_size:
        raise DataError(f"{path}: patches must be {patch_size} px. Got: {features.stride} px")
    network: nn.Module = features.network  # type: ignore[assignment]
    report = compare_weights(network, {**_counters(network), **tensors})
    if report.is_whole:
        network.load_state_dict({**_counters(network), **tensors})
    return Backbone(features.eval(), report, file.dropped)


def infer_vit_layout(tensors: Mapping[str, Tensor]) -> VitLayout | None:
    """Sizes of a plain vision transformer from the shapes of its tensors.

    Args:
        tensors: A state dict with DINO's names.

    Returns:
        None where the tensors are not those of such a network. Heads are 64 wide, as all published ones are.

    Raises:
        DataError: It is such a network, but no DINO's: patches or positions are not square, or the width is no
            multiple of 64.
    """
    patches, positions = tensors.get("patch_embed.proj.weight"), tensors.get("pos_embed")
    blocks = [int(found[1]) for name in tensors if (found := BLOCK.match(name))]
    if patches is None or positions is None or patches.ndim != 4 or positions.ndim != 3 or not blocks:
        return None
    width, _, height, side = patches.shape
    grid = math.isqrt(positions.shape[1] - 1)
    if height != side or grid**2 != positions.shape[1] - 1 or width % HEAD_WIDTH:
        raise DataError(
            "a vision transformer of DINO has square patches, a square grid of positions after CLS and heads "
            f"{HEAD_WIDTH} wide. Got: patches {height} x {side}, {positions.shape[1]} positions, width {width}"
        )
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    return VitLayout(
        patch_size=side,
        width=width,
        depth=1 + max(blocks),
        heads=width // HEAD_WIDTH,
        mlp_ratio=4.0 if hidden is None else hidden.shape[0] / width,
        grid=grid,
        position_offset=PUBLISHED_OFFSET,
    )


def _choose(
    file: BackboneFile, path: Path, facet: str, architecture: str, stride: int, source: Mapping[str, Any]
) -> tuple[DenseFeatures, dict[str, Tensor]]:
    renamed = to_torchvision_names(file.tensors)
    if not architecture and {"conv1.weight", "layer1.0.conv1.weight"} & set(renamed):
        return ResNetFeatures(stride, source), renamed
    name = architecture or name_timm_architecture(file.tensors)
    if name:
        features = TimmFeatures(name, facet, source)
        return features, convert_for_timm(features.network, file.tensors)
    layout = infer_vit_layout(file.tensors)
    if layout is None:
        found = ", ".join(list(file.tensors)[:SHOWN])
        raise DataError(
            f"{path} must hold a vision transformer of DINO, a ResNet-50 or a network of timm (name it with "
            f"--architecture). Got {len(file.tensors)} tensors: {found}, ..."
        )
    # Training with masked images leaves the token that stood for a hidden patch.
    tensors = {key: tensor for key, tensor in file.tensors.items() if key != "mask_token"}
    return VitFeatures(layout, facet, source), tensors


def _counters(network: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(value) for name, value in network.state_dict().items() if COUNTER in name}
