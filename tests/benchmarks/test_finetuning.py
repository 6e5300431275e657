"""The benchmark of label budgets: a row per run, kept in a file, and a table of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import finetuning
from gestalt.config.network import NetworkSettings
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, save_network
from tests.training.conftest import SIZE, VOCABULARY
from tests.training.conftest import network_settings as network_settings
from tests.training.labelled_world import write_labels


def test_every_run_is_made_once(
    tmp_path: Path,
    network_settings: NetworkSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    card = NetworkCard(network_settings, VOCABULARY, SIZE)
    save_network(tmp_path / "models/self_trained", build_network(network_settings, VOCABULARY), card)
    write_labels(tmp_path / "data/truth/monday", range(4))
    write_labels(tmp_path / "data/benchmarks/cityscapes", range(10, 12))
    given = ["--folder", str(tmp_path), "--batches", "monday", "--shares", "0.25", "0.5", "--device", "cpu"]
    given += ["--starts", "network, largest", "scratch", "--out", str(tmp_path / "rows.json")]
    given += ["--set", "budget_steps=[2,2,2]", "batch_size=1"]
    assert finetuning.main(given) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["start"], row["n_images"]) for row in rows] == [
        ("no labels", 0),
        ("network, largest", 1),
        ("scratch", 1),
        ("network, largest", 2),
        ("scratch", 2),
    ]
    assert all(0 <= row[number] <= 100 for row in rows for number in finetuning.NUMBERS)
    said = capsys.readouterr().out
    assert "| 2 | scratch |" in said

    def never(*arguments: object, **values: object) -> None:
        raise AssertionError("this run stands in the file")

    monkeypatch.setattr(finetuning, "finetune", never)
    assert finetuning.main(given) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == rows


def test_the_table_shows_means_and_spread() -> None:
    row = dict.fromkeys(finetuning.NUMBERS, 10.0)
    rows = [
        {**row, "n_images": 2, "start": "scratch"},
        {**row, "n_images": 2, "start": "scratch", "PQ": 20.0},
    ]
    line = finetuning.table(rows)[-1]
    assert line == "| 2 | scratch | 15.0 (10.0 to 20.0) |" + " 10.0 (10.0 to 10.0) |" * 4 + " 2 |"
