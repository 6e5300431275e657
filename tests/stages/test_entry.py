"""A stage writes its metrics and status, and says errors in one line."""

import json
import sys
from pathlib import Path

import pytest

from gestalt.config.presets import compose_params
from gestalt.config.writing import render_params
from gestalt.errors import DataError
from stages.entry import Outcome, Stage, run_stage


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(render_params(compose_params()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_metrics_hold_no_times_and_status_does(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["motion", "--batch", "monday"])

    def body(stage: Stage) -> Outcome:
        """Do nothing."""
        assert stage.label == "motion-monday"
        return Outcome(metrics={"n_frames": 3}, status={"n_ok": 3})

    run_stage(body, name="motion", item="batch")
    assert json.loads((workspace / "reports/metrics/motion-monday.json").read_text()) == {"n_frames": 3}
    status = json.loads((workspace / "reports/status/motion-monday.json").read_text())
    assert status["n_ok"] == 3
    assert status["seconds"] >= 0


def test_errors_are_one_line_and_exit_code_one(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gate"])

    def body(stage: Stage) -> Outcome:
        """Fail."""
        raise DataError("no label table; `dvc repro pseudo_labels` makes it")

    with pytest.raises(SystemExit) as stop:
        run_stage(body, name="gate")
    assert stop.value.code == 1
    assert capsys.readouterr().err.strip() == "gate: no label table; `dvc repro pseudo_labels` makes it"
    assert not (workspace / "reports").exists()


def test_values_by_hand_are_checked(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gate", "runtime.workers=-3"])
    with pytest.raises(SystemExit):
        run_stage(lambda stage: Outcome({}, {}), name="gate")
    assert "runtime.workers must be at least 0" in capsys.readouterr().err
