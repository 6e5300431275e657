import logging
from datetime import datetime
from pathlib import Path

import pytest

from gestalt.tracking.runs import KEY_TAG, PARENT_TAG, child_runs, run_name, stage_run
from gestalt.tracking.store import open_store, store_uri, ui_command
from tests.tracking.experiment import params


def test_curves_and_end_of_a_stage_are_recorded_under_one_parent(root: Path) -> None:
    with stage_run("guided", params(), device="cpu") as run:
        for step in range(1200):
            run.log(step, {"loss": 1 / (step + 1), "broken": float("nan")})
    with stage_run("self_training", params()) as other:
        other.log(0, {"loss": 1.0})
    client, experiment = open_store(root)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics == {"loss": pytest.approx(1 / 1200)}
    assert [point.step for point in client.get_metric_history(run.run_id, "loss")][-1] == 1199
    parent = stored.data.tags[PARENT_TAG]
    assert {child.info.run_name for child in child_runs(client, experiment, parent)} == {
        "guided",
        "self_training",
    }
    tags = client.get_run(parent).data.tags
    assert tags["preset"] == "embedded"
    assert {"git.commit", "git.dirty", "dvc.lock", "requirements.lock", "device", "env.torch"} <= set(tags)


def record_and_raise(error: BaseException) -> str:
    """The id of a run whose stage logged a point and then raised ``error``."""
    runs = []

    def work() -> None:
        with stage_run("guided", params()) as run:
            runs.append(run.run_id)
            run.log(0, {"loss": 2.0})
            raise error

    with pytest.raises(type(error)):
        work()
    return runs[0]


def test_an_exception_travels_on_and_the_run_is_failed(root: Path) -> None:
    run_id = record_and_raise(ValueError("no loss"))
    client, _ = open_store(root)
    assert client.get_run(run_id).info.status == "FAILED"
    assert client.get_run(run_id).data.metrics == {"loss": 2.0}


def test_an_interrupted_stage_goes_on_in_its_own_run_and_a_finished_one_starts_anew(root: Path) -> None:
    first = record_and_raise(KeyboardInterrupt())
    client, _ = open_store(root)
    assert client.get_run(first).info.status == "KILLED"
    with stage_run("guided", params()) as second:
        second.log(1, {"loss": 1.0})
    assert second.run_id == first
    assert client.get_run(first).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(first, "loss")] == [0, 1]
    with stage_run("guided", params()) as third:
        pass
    assert third.run_id != first


def test_other_parameters_get_another_parent_and_runtime_does_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parent(**values: int) -> str:
        with stage_run("guided", params(**values)) as run:
            return str(open_store(root)[0].get_run(run.run_id).data.tags[PARENT_TAG])

    assert parent() == parent()
    assert parent() != parent(seed=1)
    monkeypatch.setenv("PIPELINE_KEY", "by-hand")
    by_hand = parent()
    assert by_hand == parent(seed=1)
    assert open_store(root)[0].get_run(by_hand).data.tags[KEY_TAG] == "by-hand"


def test_an_unwritable_store_costs_one_warning_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "mlruns").write_text("a file stands where the folder should be")
    with caplog.at_level(logging.WARNING, "gestalt"), stage_run("guided", params()) as run:
        run.log(0, {"loss": 1.0})
    (record,) = [record for record in caplog.records if record.name.startswith("gestalt")]
    assert "tracking is off: cannot record the stage guided" in record.getMessage()
    assert "Not a directory" in record.getMessage()


def test_a_broken_database_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"this is no database" * 100)
    with caplog.at_level(logging.WARNING, "gestalt"), stage_run("guided", params()) as run:
        run.log(0, {"loss": 1.0})
    assert "file is not a database" in caplog.text


def test_a_store_that_breaks_midway_turns_tracking_off(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    def break_down(*arguments: object, **options: object) -> None:
        raise MlflowException("disk I/O error")

    with caplog.at_level(logging.WARNING, "gestalt"), stage_run("guided", params()) as run:
        monkeypatch.setattr(MlflowClient, "log_batch", break_down)
        run.log(0, {"loss": 1.0})
        run.flush()
        run.log(1, {"loss": 1.0})
        run.flush()
    assert sum("disk I/O error" in record.getMessage() for record in caplog.records) == 1


def test_store_lies_in_the_repository_of_a_temporary_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/somewhere/else")
    assert store_uri() == "sqlite:////somewhere/else/mlruns/mlflow.db"
    assert "sqlite:///mlruns/mlflow.db" in ui_command()


def test_runs_are_named_for_people() -> None:
    now = datetime(2026, 3, 4, 5, 6)
    assert run_name(params(), now) == "embedded | monday+tuesday | 2026-03-04 05:06"
    assert run_name(params(batches=list("abcde")), now) == "embedded | 5 batches | 2026-03-04 05:06"


def test_a_picture_is_kept_with_its_run(root: Path, tmp_path: Path) -> None:
    picture = tmp_path / "000040.png"
    picture.write_bytes(b"a picture")
    with stage_run("guided", params()) as run:
        run.log_file(picture, "training")
    client, _ = open_store(root)
    (kept,) = client.list_artifacts(run.run_id, "training")
    assert kept.path == "training/000040.png"
    assert Path(client.download_artifacts(run.run_id, kept.path)).read_bytes() == b"a picture"
