from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.logging import disable_run_logger

import flows.reproduce as module
from flows.processes import CommandFailed
from flows.reproduce import is_transient, reproduce, reproduce_stage


@pytest.fixture(autouse=True)
def no_server() -> Iterator[None]:
    with disable_run_logger():
        yield


def test_only_a_held_lock_is_worth_a_retry() -> None:
    busy = "motion@monday: exit 255\nERROR: 'data/raw' is busy, it is being blocked by: (PID 7): dvc repro"
    assert is_transient(None, None, SimpleNamespace(message=busy))
    assert not is_transient(None, None, SimpleNamespace(message="gate: exit 1\nthe gate is closed"))
    assert reproduce_stage.retry_condition_fn is is_transient
    assert reproduce_stage.retries > 0


def test_a_skipped_stage_is_told_from_one_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"a": ["Stage 'a' didn't change, skipping"], "b": ["Running stage 'b':", "> python -m stages.b"]}
    commands: list[Any] = []

    def run(command: Any, *, what: str, log: Any) -> list[str]:
        commands.append(command[-3:])
        return lines[what]

    monkeypatch.setattr(module, "run_command", run)
    assert reproduce_stage.fn("a") is False
    assert reproduce_stage.fn("b") is True
    assert commands == [["repro", "--single-item", "a"], ["repro", "--single-item", "b"]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages in the order they are asked for; the artefacts of the UI are replaced."""
    asked: list[str] = []

    def ask(stage: str) -> bool:
        asked.append(stage)
        if stage == "broken":
            raise CommandFailed("broken: exit 1\nwhy")
        return stage != "unchanged"

    monkeypatch.setattr(module, "reproduce_stage", ask)
    monkeypatch.setattr(module, "create_progress_artifact", lambda **values: "progress")
    monkeypatch.setattr(module, "update_progress_artifact", lambda key, **values: None)
    monkeypatch.setattr(module, "publish_metrics", lambda key, ran: "")
    return asked


def test_stages_run_in_the_order_of_their_needs(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"report": {"train"}, "train": {"unchanged"}, "unchanged": set()}
    monkeypatch.setattr(module, "stage_needs", lambda: needs)
    assert reproduce.fn() == ["train", "report"]
    assert calls == ["unchanged", "train", "report"]


def test_nothing_runs_after_a_failed_stage(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"report": {"broken"}, "broken": {"first"}, "first": set()}
    monkeypatch.setattr(module, "stage_needs", lambda: needs)
    with pytest.raises(CommandFailed, match="why"):
        reproduce.fn()
    assert calls == ["first", "broken"]


def test_a_misspelt_stage_is_refused_before_anything_runs(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "stage_needs", lambda: {"gate": set()})
    with pytest.raises(SystemExit):
        module.main(["gaet"])
    assert "'gaet' is no stage" in capsys.readouterr().err
    assert calls == []
