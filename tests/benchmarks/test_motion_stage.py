"""The benchmark of the stage ``motion``: its numbers by hand, its digest, and small runs of the stage's work."""

import dataclasses
import json
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

import stages.entry
import stages.manifest
import stages.scenes
from benchmarks import motion_stage
from benchmarks.motion_stage import FEW_HYPOTHESES, Job, digest, in_fresh_process, repeat, run_job, summarise
from gestalt.config import load_params
from gestalt.data.manifest import read_manifest
from stages.entry import Stage


def one_thread(kind: str, workers: int) -> Executor:
    return ThreadPoolExecutor(1)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def in_this_process(stage: str, folder: Path) -> None:
        monkeypatch.chdir(folder)
        body = {"scenes": stages.scenes.scenes, "manifest": stages.manifest.manifest}[stage]
        body(Stage(stage, motion_stage.BATCH, load_params()))

    monkeypatch.setattr(stages.entry, "open_executor", one_thread)
    monkeypatch.setattr(motion_stage, "open_executor", one_thread)
    monkeypatch.setattr(motion_stage, "run_stage", in_this_process)
    return motion_stage.make_workspace(tmp_path / "workspace", 64, 128, n_pairs=3)


def test_runs_of_the_work_report_numbers_and_equal_bytes(workspace: Path) -> None:
    one, again, other = (
        run_job(Job(str(workspace), motion_stage.BATCH, "local", 1, n_frames, FEW_HYPOTHESES))
        for n_frames in (6, 6, 7)
    )
    assert one["digest"] == again["digest"] != other["digest"]
    assert (one["frames"], other["frames"]) == (6, 7)
    assert 0 < one["cpu_seconds_per_frame"] < one["cpu_seconds"]
    assert one["seconds"] > one["start_seconds"] >= 0
    assert one["peak_rss_mib"]["parent"] > 100
    # Nothing stays in the workspace but what was there.
    assert sorted(path.name for path in workspace.iterdir() if path.is_dir()) == [".cache", "data"]


def test_repeated_frames_keep_their_files_in_order_under_ids_of_their_own(workspace: Path) -> None:
    pairs = read_manifest(Path("data/manifests") / f"{motion_stage.BATCH}.parquet")
    assert len(pairs) == motion_stage.PAIRS_PER_SNIPPET
    frames = repeat(pairs, 10)
    assert [frame.frame_id for frame in frames] == [f"{number:06d}" for number in range(10)]
    assert [frame.left for frame in frames] == [pairs[number % 4].left for number in range(10)]


def test_first_frames_of_processes_are_left_out_of_the_averages() -> None:
    def note(began: float, ended: float, cpu: float) -> dict[str, float]:
        return {"began": began, "ended": ended, "cpu": cpu}

    early = [note(102, 106, 3.0), note(106, 108, 1.0), note(108, 110, 1.0)]
    late = [note(103, 107, 3.0), note(107, 111, 2.0)]
    summary = summarise([early, late], began=100)
    assert summary["start_seconds"] == 2
    # All are warm at 107; then three frames end until 111.
    assert summary["frames_per_second"] == pytest.approx(3 / 4)
    assert summary["seconds_per_frame"] == pytest.approx((2 + 2 + 4) / 3, abs=1e-4)
    assert summary["cpu_seconds_per_frame"] == pytest.approx(4 / 3, abs=1e-4)
    assert summarise([early[:1]], began=100) == {"start_seconds": 2}


def test_a_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    for folder, name, content in (("a", "x", b"1"), ("b", "x", b"1"), ("c", "y", b"1"), ("d", "x", b"2")):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / name).write_bytes(content)
    first, same, renamed, changed = (digest(tmp_path / folder) for folder in "abcd")
    assert first == same
    assert len({first, renamed, changed}) == 3


def test_the_command_prints_one_json_object(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(motion_stage, "in_fresh_process", run_job)
    command = ["motion_stage.py", "--workspace", str(workspace), "--frames", "3", "--executors", "local"]
    monkeypatch.setattr(sys, "argv", [*command, "--sweep"])
    with pytest.raises(SystemExit) as ended:
        motion_stage.main()
    report = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert report["identical"]
    assert [row["workers"] for row in report["executors"]] == [1, 2]
    assert report["sweep"] == []
    assert len(report["load"]) == 2


def test_a_folder_without_parameters_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(str(tmp_path), motion_stage.BATCH, "local", 1, 2)
    monkeypatch.setattr(sys, "argv", ["motion_stage.py", "--job", json.dumps(dataclasses.asdict(job))])
    monkeypatch.setattr(motion_stage, "start", lambda: None)
    with pytest.raises(SystemExit) as ended:
        motion_stage.main()
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert "params.yaml does not exist; `gestalt configure" in printed.err
    assert not printed.out


@pytest.mark.slow
def test_a_fresh_process_with_a_fresh_worker_writes_the_same_bytes(workspace: Path) -> None:
    job = Job(str(workspace), motion_stage.BATCH, "local", 1, 2, FEW_HYPOTHESES)
    fresh = in_fresh_process(job)
    assert fresh["digest"] == run_job(job)["digest"]
    assert fresh["peak_rss_mib"]["worker"] > 100
