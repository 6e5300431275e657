"""The state of an unfinished training: what a run that is started again goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gestalt.data import training_state
from gestalt.data.code_version import code_version
from gestalt.training.curve import CurveRow


class Stateful(Protocol):
    """Anything that can be put aside and taken up again: a network, an optimiser, a queue."""

    def state_dict(self) -> Any:
        """The content."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Replace the content by what ``state_dict`` returned."""


class TrainingState:
    """Everything that changes in a training, and the curve of the steps that are done.

    What an interrupted run left is taken up at once; other settings, inputs, seeds or code start anew.

    Args:
        cache_dir: Cache of the stage.
        key: What the result depends on, as JSON.
        members: By name, as they are at the start of the training; changed in place.

    Raises:
        DataError: What the interrupted run left is damaged.
    """

    def __init__(self, cache_dir: Path, key: Mapping[str, Any], members: Mapping[str, Stateful]) -> None:
        self.folder = state_folder(cache_dir, key)
        self.curve: list[CurveRow] = []
        self._members = members
        if (state := training_state.load_state(self.folder)) is not None:
            for name, member in members.items():
                member.load_state_dict(state[name])
            self.curve = state["curve"]

    def save(self) -> None:
        """Put everything aside.

        Raises:
            DataError: The disk is full.
        """
        content = {name: member.state_dict() for name, member in self._members.items()}
        training_state.save_state(self.folder, {**content, "curve": self.curve})


def state_folder(cache_dir: Path, key: Mapping[str, Any]) -> Path:
    """Folder of the training that ``key`` describes; other settings, inputs, seeds or code have another one.

    Args:
        cache_dir: Cache of the stage.
        key: What the result depends on, as JSON.
    """
    return training_state.state_folder(cache_dir, {**key, "code": code_version()})
