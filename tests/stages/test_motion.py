"""The stage ``motion`` asks for a network's weights once, before the first frame."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gestalt.config.presets import compose_params
from gestalt.errors import ConfigError
from gestalt.matching.raft import Raft
from gestalt.matching.raft_weights import read_card, save_network
from stages import motion
from stages.entry import Stage


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The keys of sharded runs; no frame is worked on."""
    found: list[dict[str, Any]] = []

    def run_sharded(*_: Any, key: dict[str, Any], **__: Any) -> SimpleNamespace:
        found.append(key)
        return SimpleNamespace(metrics=dict, status=dict, n_frames=1)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(motion, "read_manifest", lambda _: [])
    monkeypatch.setattr(motion, "run_sharded", run_sharded)
    monkeypatch.setattr(motion, "ShardFolder", lambda _: SimpleNamespace(records=pd.DataFrame))
    return found


def propose(*overrides: str) -> None:
    motion.propose(Stage("motion", "monday", compose_params(overrides)))


def test_missing_weights_fail_the_stage_and_not_every_frame(runs: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"motion\.raft\.weights must name a folder"):
        propose("motion=smurf")
    assert runs == []


def test_work_that_was_done_with_other_weights_is_not_taken_up(
    runs: list[dict[str, Any]], tmp_path: Path
) -> None:
    for _ in range(2):
        save_network(Raft("small"), tmp_path / "network", {})
        propose("motion=smurf", f"motion.raft.weights={tmp_path / 'network'}")
        assert runs[-1]["matcher"] == read_card(tmp_path / "network")["weights_sha256"]
    assert runs[0] != runs[1]
    propose("motion=paper")
    assert runs[-1]["matcher"] == ""
