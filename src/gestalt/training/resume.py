"""Where the state of an unfinished training lies: other settings, inputs or code, another folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gestalt.data import training_state
from gestalt.data.code_version import code_version


def state_folder(cache_dir: Path, key: Mapping[str, Any]) -> Path:
    """Folder of the training that ``key`` describes; other settings, inputs, seeds or code have another one.

    Args:
        cache_dir: Cache of the stage.
        key: What the result depends on, as JSON.
    """
    return training_state.state_folder(cache_dir, {**key, "code": code_version()})
