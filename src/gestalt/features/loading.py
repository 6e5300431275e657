"""Find the class behind stored features and build them again."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from gestalt.errors import DataError
from gestalt.features.dense import CARD, WEIGHTS, DenseFeatures
from gestalt.features.embedded import EmbeddedFeatures

# Each class builds an object without weights from the card that `save_features` wrote.
KINDS = {kind.kind: kind for kind in (EmbeddedFeatures,)}


def load_features(folder: Path, device: torch.device | str = "cpu") -> DenseFeatures:
    """Features that ``save_features`` wrote, ready for inference.

    Args:
        folder: Holds ``weights.safetensors`` and ``card.json``, such as ``models/features``.
        device: Where they run.

    Raises:
        DataError: A file is missing, broken, of an unknown kind, or the tensors do not fit the card.
    """
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
    try:
        features = KINDS[kind].from_card(card)
        features.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{folder / WEIGHTS} and {CARD} do not make {kind!r} features ({error}); "
            "make them again: dvc repro -f features"
        ) from error
    return features.to(device).eval()
