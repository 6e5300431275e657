"""Where the state of an unfinished training lies: other settings, inputs or code, another folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gestalt.data.sharded_run import code_version
from gestalt.data.training_state import STATE_FILE

KEY_LENGTH = 16


def state_folder(cache_dir: Path, key: Mapping[str, Any]) -> Path:
    """Folder of the training that ``key`` describes; other settings, inputs, seeds or code have another one.

    Args:
        cache_dir: Cache of the stage.
        key: What the result depends on, as JSON.
    """
    text = json.dumps({**key, "code": code_version()}, sort_keys=True, default=str)
    return cache_dir / hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def forget_state(folder: Path) -> None:
    """Delete the state of a training that is done."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
