"""Backbones that somebody else trained, as the features of this pipeline."""

from __future__ import annotations

from pathlib import Path

from gestalt.errors import DataError
from gestalt.features.backbones import read_backbone
from gestalt.features.dense import CARD, DenseFeatures


def adopt_backbone(path: Path, facet: str) -> DenseFeatures:
    """Features with weights that are brought.

    Args:
        path: A file of weights, or a folder with ``card.json``, such as `gestalt weights fetch` writes.
        facet: What a cell of a vision transformer is described by: ``tokens`` or ``keys``.

    Returns:
        Features on the CPU.

    Raises:
        DataError: There is nothing at ``path``, or it is no backbone, or not a whole one.
        ConfigError: ``facet`` is unknown.
    """
    if not path.is_file() and not (path / CARD).is_file():
        raise DataError(
            f"features.file.path must name a file of weights or a folder with {CARD}. Got: {path}; "
            "`gestalt weights list` shows what can be brought, `gestalt weights fetch NAME` brings it"
        )
    return read_backbone(path, facet=facet)
