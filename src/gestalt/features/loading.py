"""Find the class behind stored features and build them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gestalt.errors import ConfigError, DataError
from gestalt.features.dense import CARD, WEIGHTS, DenseFeatures
from gestalt.features.embedded import EmbeddedFeatures
from gestalt.features.resnet import ResNetFeatures
from gestalt.features.timm_vit import TimmFeatures
from gestalt.features.transformer import FACETS, check_facet
from gestalt.features.vit_features import VitFeatures

# Each class builds an object without weights from the card that `save_features` wrote.
KINDS: dict[str, Any] = {
    kind.kind: kind for kind in (EmbeddedFeatures, VitFeatures, ResNetFeatures, TimmFeatures)
}


def load_features(folder: Path, device: torch.device | str = "cpu", *, facet: str = "") -> DenseFeatures:
    """Features that ``save_features`` wrote, ready for inference.

    Args:
        folder: Holds ``weights.safetensors`` and ``card.json``, such as ``models/features``.
        device: Where they run.
        facet: What a cell of a vision transformer is described by, instead of what the card says.

    Raises:
        DataError: A file is missing, broken, of an unknown kind, or the tensors do not fit the card.
        ConfigError: ``facet`` is unknown, or these features have but one.
        MissingDependencyError: They need timm, which is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder / CARD} does not exist; make it with: dvc repro features") from None
    except ValueError as error:
        raise DataError(
            f"{folder / CARD} is not JSON ({error}); make it again: dvc repro -f features"
        ) from None
    kind = card.get("kind") if isinstance(card, dict) else None
    if kind not in KINDS:
        raise DataError(f"{folder / CARD}: kind is {kind!r}; known kinds: {', '.join(sorted(KINDS))}")
    if facet:
        check_facet(facet)
        if "facet" in card:
            card["facet"] = facet
        elif facet != FACETS[0]:
            raise ConfigError(f"{folder}: {kind!r} features have no keys; facet must be {FACETS[0]}")
    try:
        features: DenseFeatures = KINDS[kind].from_card(card)
        features.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{folder / WEIGHTS} and {CARD} do not make {kind!r} features ({error}); "
            "make them again: dvc repro -f features"
        ) from error
    return features.to(device).eval()
