import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gestalt.tracking.closing import close_pipeline, headline, pipeline_metrics
from gestalt.tracking.registry import CANDIDATE, find_version
from gestalt.tracking.runs import child_runs, stage_run
from gestalt.tracking.store import open_store
from tests.tracking.experiment import evaluation, params, write_reports


def stages(root: Path, parent: str) -> dict[str, Any]:
    client, experiment = open_store(root)
    return {run.info.run_name: run for run in child_runs(client, experiment, parent)}


def test_metrics_are_named_by_benchmark_network_and_labels(root: Path) -> None:
    write_reports(root)
    metrics = pipeline_metrics()
    assert metrics["PQ/cityscapes"] == 24.0
    assert metrics["PQ_guided/cityscapes"] == 23.0
    assert metrics["PQ_thing/kitti"] == 10.0
    assert metrics["mIoU/kitti"] == 31.0
    assert metrics["labels_PQ/monday"] == 22.0
    assert metrics["proposals_motion_moving_objects_min_64_px_precision/monday"] == pytest.approx(58.0)


def test_headline_follows_the_primary_convention_of_the_protocol() -> None:
    content = evaluation(24.0)
    assert headline(content["networks"]["self_trained"], {"conventions": ["standard"]})["PQ"] == 1.0


def test_closing_writes_everything_on_the_parent(root: Path) -> None:
    write_reports(root)
    closing = close_pipeline(params(), device="cpu")
    client, _ = open_store(root)
    run = client.get_run(closing.run_id)
    assert run.data.metrics["PQ/cityscapes"] == 24.0
    assert run.data.params["batches"] == "['monday', 'tuesday']"
    assert run.data.tags["dvc.lock"] != "missing"
    names = {artifact.path for artifact in client.list_artifacts(closing.run_id)}
    assert {"dvc.lock", "outputs.json", "evaluation", "label_quality"} <= names
    version = find_version(client, CANDIDATE)
    assert version is not None
    assert (str(version.version), version.tags["dvc.md5"]) == (closing.version, "24aaaaaaaaaaaaaaaa.dir")
    assert version.run_id == closing.run_id


def test_each_stage_that_worked_gets_a_run_once(root: Path) -> None:
    write_reports(root)
    closing = close_pipeline(params(), device="cpu")
    assert closing.n_stages == 2
    motion = stages(root, closing.run_id)["motion-monday"]
    assert motion.data.metrics["n_ok"] == 120
    assert motion.data.metrics["status.peak_memory_mib"] == 400.0
    assert motion.info.end_time - motion.info.start_time == 60_000
    assert close_pipeline(params(), device="cpu").n_stages == 0
    status = root / "reports/status/motion-monday.json"
    os.utime(status, (status.stat().st_atime, status.stat().st_mtime + 5))
    again = close_pipeline(params(), device="cpu")
    assert (again.n_stages, again.run_id) == (1, closing.run_id)


def test_work_of_an_earlier_pipeline_is_not_recorded_again_under_new_parameters(root: Path) -> None:
    write_reports(root)
    first = close_pipeline(params(), device="cpu")
    second = close_pipeline(params(seed=1), device="cpu")
    assert second.run_id != first.run_id
    assert second.n_stages == 0
    assert open_store(root)[0].get_run(second.run_id).data.metrics["PQ/cityscapes"] == 24.0


def test_a_resumed_stage_is_completed_in_the_run_it_went_on_with(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stage_run("guided", params()) as first:
        raise KeyboardInterrupt
    client, _ = open_store(root)
    long_ago = client.get_run(first.run_id).info.start_time - 3_600_000
    with sqlite3.connect(root / "mlruns/mlflow.db") as database:
        database.execute("update runs set start_time = ? where run_uuid = ?", (long_ago, first.run_id))
    database.close()
    with stage_run("guided", params()) as second:
        second.log(1, {"total": 1.0})
    write_reports(root)
    (root / "reports/status/guided.json").write_text('{"seconds": 30.0}')
    closing = close_pipeline(params(), device="cpu")
    assert stages(root, closing.run_id)["guided"].info.run_id == first.run_id
    assert len(stages(root, closing.run_id)) == 2


def test_a_live_run_is_completed_and_not_doubled(root: Path) -> None:
    with stage_run("guided", params()) as live:
        live.log(0, {"total": 3.0})
    write_reports(root)
    status = root / "reports/status/guided.json"
    status.write_text('{"seconds": 30.0}')
    closing = close_pipeline(params(), device="cpu")
    guided = stages(root, closing.run_id)["guided"]
    assert guided.info.run_id == live.run_id
    assert guided.data.metrics["loss"] == 0.7
    assert guided.data.metrics["total"] == 3.0


def test_closing_without_a_store_still_gives_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_reports(tmp_path)
    (tmp_path / "mlruns").write_text("not a folder")
    with caplog.at_level(logging.WARNING, "gestalt"):
        closing = close_pipeline(params(), device="cpu")
    assert closing.metrics["PQ/cityscapes"] == 24.0
    assert closing.run_id == ""
    assert "cannot record the pipeline" in caplog.text
