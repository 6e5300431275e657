"""What a file or folder of weights holds, in lines for people, and whether features come out of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from gestalt.data.weight_report import SHOWN
from gestalt.features.backbones import open_backbone
from gestalt.features.dense import DenseFeatures
from gestalt.features.loading import load_features

# Cells of the image that is tried, rows and columns: not square, so that a mixed-up order would show.
TRIED_CELLS = (4, 6)


@dataclass(frozen=True)
class Examination:
    """Result of ``examine_backbone``.

    Attributes:
        lines: What is printed.
        is_usable: Every tensor fits, and the features of a random image are finite.
    """

    lines: tuple[str, ...]
    is_usable: bool


def examine_backbone(path: Path, *, architecture: str = "", patch_size: int | None = None) -> Examination:
    """Say what weights are: architecture, tensors, hash, licence, and features of a random image.

    Args:
        path: A file that ``read_backbone`` takes, or a folder that ``save_features`` wrote.
        architecture: As for ``read_backbone``.
        patch_size: As for ``read_backbone``.

    Raises:
        DataError: The file cannot be read, or is of no known kind.
        ConfigError: The architecture is unknown.
        MissingDependencyError: The architecture is timm's, and timm is not installed.
    """
    backbone = (
        None if path.is_dir() else open_backbone(path, architecture=architecture, patch_size=patch_size)
    )
    features = load_features(path) if backbone is None else backbone.features
    card = features.card()
    source = card.get("source") or {}
    lines = [
        f"architecture: {card.get('architecture', features.kind)}",
        f"cells: {features.stride} px apart, {features.dimension} numbers each",
        *(f"{name}: {source[name]}" for name in ("file", "part", "sha256", "licence") if source.get(name)),
    ]
    if backbone is not None:
        if dropped := backbone.dropped:
            more = ", ..." if len(dropped) > SHOWN else ""
            lines.append(f"{len(dropped)} tensors of heads left out: {', '.join(dropped[:SHOWN])}{more}")
        lines += backbone.report.lines()
        if not backbone.report.is_whole:
            return Examination((*lines, "not usable: the tensors are not those of this architecture"), False)
    tried, is_finite = _try(features)
    return Examination((*lines, tried), is_finite)


def _try(features: DenseFeatures) -> tuple[str, bool]:
    height, width = (cells * features.stride for cells in TRIED_CELLS)
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    tokens = features(images)
    seconds = time.perf_counter() - started
    is_finite = bool(tokens.isfinite().all())
    spread = f"mean {float(tokens.mean()):.4f}, deviation {float(tokens.std()):.4f}"
    verdict = spread if is_finite else "not usable: NaN or infinity"
    return (
        f"image of {height} x {width} px -> {'x'.join(map(str, tokens.shape[1:]))} in {seconds:.2f} s: {verdict}",
        is_finite,
    )
