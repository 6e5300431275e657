"""The state of an unfinished training: written whole or not at all, read without running any code it could hold."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gestalt.data.atomic_files import written_aside
from gestalt.errors import DataError

STATE_FILE = "state.pt"
KEY_LENGTH = 16

logger = logging.getLogger(__name__)


def state_folder(cache_dir: Path, key: Mapping[str, Any]) -> Path:
    """Folder of the state of a training, named after all that it depends on: another key is another training."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True, default=str).encode()).hexdigest()
    return cache_dir / digest[:KEY_LENGTH]


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dictionaries of them).

    Raises:
        DataError: The disk is full.
    """
    with written_aside(folder / STATE_FILE) as aside:
        torch.save(dict(state), aside)


def load_state(folder: Path) -> dict[str, Any] | None:
    """What ``save_state`` wrote, or None where there is nothing.

    Tensors lie on the CPU, where AdamW counts its steps: on a GPU each count would be waited for, weight by weight.
    States of other trainings beside it are told about, because somebody may have expected to go on with one.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        if others := sorted(folder.parent.glob(f"*/{STATE_FILE}")):
            logger.warning(
                "starting anew: %s holds unfinished trainings of other settings, inputs or code (%d); delete what "
                "nobody needs",
                folder.parent,
                len(others),
            )
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({str(error).splitlines()[0]}); delete it to train from the start"
        ) from error
    return state


def forget_state(folder: Path) -> None:
    """Delete the state of a training that is done, and its folder where nothing else lies in it."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
