import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

import flows.retrain as module
from flows import serve
from flows.inbox import PENDING, read_pending
from flows.processes import CommandFailed
from flows.retrain import retrain

PARAMS = """batches: [monday]
guided:
  initial_network: ""
"""
PIPELINE = """stages:
  manifest:
    matrix: {batch: "${batches}"}
    outs: ["data/manifests/${item.batch}.parquet"]
"""
NEEDS = {
    "report": {"guided"},
    "guided": {"gate"},
    "gate": {"motion@monday"},
    "motion@monday": set[str](),
}


class Workshop:
    """Replaces every command that the flow calls, and remembers them."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.broken: dict[str, str] = {}
        self.promoted = True

    def run(self, command: Any, *, what: str, log: Any = None) -> list[str]:
        words = list(command)
        if words[1] != "-c":
            self.commands.append(" ".join(words[3:]) if words[1] == "-m" else " ".join(words))
        if what.startswith("manifest@"):
            # The real stage writes its table, which tells the reasons, before it fails.
            Path("data/manifests").mkdir(exist_ok=True)
            Path(f"data/manifests/{what.removeprefix('manifest@')}.parquet").write_text("table")
        if what in self.broken:
            raise CommandFailed(f"{what}: exit 1\n{self.broken[what]}")
        if what == "data add":
            batch = words[words.index("add") + 1]
            Path("params.yaml").write_text(Path("params.yaml").read_text().replace("]", f", {batch}]"))
            source = Path("data/raw") / batch / "source.yaml"
            source.parent.mkdir(parents=True)
            source.write_text("adapter: folder")
        return []

    def read(self, command: Any, *, what: str) -> str:
        self.commands.append(" ".join(list(command)[3:]))
        if what == "tracking champion":
            return json.dumps({"folder": "models/champions/abc"})
        return json.dumps({"promoted": self.promoted, "reasons": ["mean PQ changes by +1"]})

    def run_stages(self, stages: list[str], title: str) -> list[str]:
        for stage in stages:
            self.run(["python", "-m", "dvc", "repro", stage], what=stage)
        return stages


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    Path("dvc.yaml").write_text(PIPELINE)
    shop = Workshop()
    for task in ("look_into", "ingest", "start_from_champion", "start_anew", "promote", "commit_version"):
        monkeypatch.setattr(module, task, getattr(module, task).fn)
    monkeypatch.setattr(module, "run_command", shop.run)
    monkeypatch.setattr(module, "read_command", shop.read)
    monkeypatch.setattr(module, "run_stages", shop.run_stages)
    monkeypatch.setattr(module, "stage_needs", lambda: NEEDS)
    monkeypatch.setattr(module, "publish_metrics", lambda key, ran, notes: "")
    with disable_run_logger():
        yield shop


def deliver(name: str = "tuesday") -> None:
    folder = Path("data/inbox") / name
    folder.mkdir(parents=True)
    (folder / "0001.png").write_text("video")


def test_an_empty_inbox_does_nothing(workshop: Workshop) -> None:
    state = retrain.fn(settle_seconds=0)
    assert state.message == "no new video"
    assert workshop.commands == []


def test_new_video_is_labelled_judged_trained_from_the_champion_and_promoted(workshop: Workshop) -> None:
    deliver()
    state = retrain.fn(settle_seconds=0, commit=True)
    assert state.message == "tuesday: promoted"
    assert workshop.commands == [
        "data add tuesday --adapter folder --root data/deliveries/tuesday",
        "repro --single-item manifest@tuesday",
        "repro motion@monday",
        "repro gate",
        "champion",
        "repro guided",
        "repro report",
        "promote --tolerance 0.5",
        "git add -- params.yaml dvc.lock",
        "git add --force -- data/raw/tuesday/source.yaml",
        "git commit -m Retrain with tuesday: promoted -- params.yaml dvc.lock data/raw/tuesday/source.yaml",
    ]
    assert 'initial_network: "models/champions/abc"' in Path("params.yaml").read_text()
    assert read_pending() == []
    assert not Path("data/inbox/tuesday").exists()


def test_training_starts_anew_although_an_earlier_retrain_named_a_network(workshop: Workshop) -> None:
    deliver()
    Path("params.yaml").write_text(PARAMS.replace('""', '"models/champions/old"'))
    retrain.fn(settle_seconds=0, from_champion=False)
    assert 'initial_network: ""' in Path("params.yaml").read_text()
    assert "champion" not in workshop.commands


def test_nothing_is_committed_unless_asked(workshop: Workshop) -> None:
    deliver()
    workshop.promoted = False
    assert retrain.fn(settle_seconds=0).message == "tuesday: not promoted"
    assert not [command for command in workshop.commands if command.startswith("git")]


@pytest.mark.parametrize("what", ["data add", "manifest@tuesday"])
def test_bad_video_goes_to_quarantine_with_the_reason(workshop: Workshop, what: str) -> None:
    deliver()
    workshop.broken[what] = "calibration: the stereo baseline is 0"
    assert retrain.fn(settle_seconds=0).message == "no new video"
    assert "baseline is 0" in Path("data/quarantine/tuesday/reason.txt").read_text()
    assert Path("data/quarantine/tuesday/0001.png").exists()
    assert Path("params.yaml").read_text() == PARAMS
    assert not Path("data/raw/tuesday").exists()
    assert not Path("data/manifests/tuesday.parquet").exists()


def test_broken_parameters_are_not_the_fault_of_the_video(workshop: Workshop) -> None:
    deliver()
    workshop.broken["params.yaml"] = "missing semantics.n_pseudo_classes"
    with pytest.raises(CommandFailed, match="missing semantics"):
        retrain.fn(settle_seconds=0)
    assert Path("data/inbox/tuesday/0001.png").exists()


def test_a_taken_name_goes_to_quarantine_without_a_command(workshop: Workshop) -> None:
    Path("data/raw/tuesday").mkdir(parents=True)
    deliver()
    retrain.fn(settle_seconds=0)
    assert "exists already" in Path("data/quarantine/tuesday/reason.txt").read_text()
    assert workshop.commands == []


def test_a_closed_gate_takes_the_guilty_batch_back_and_fails_with_the_reason(workshop: Workshop) -> None:
    deliver("tuesday")
    deliver("wednesday")
    workshop.broken["gate"] = "gate: tuesday: critical: few frames failed"
    Path("reports/audit/tuesday").mkdir(parents=True)
    Path("reports/audit/tuesday/index.html").write_text("evidence")
    Path("reports/gate.json").write_text(json.dumps({"stopped_by": ["tuesday"]}))
    with pytest.raises(CommandFailed, match="few frames failed"):
        retrain.fn(settle_seconds=0)
    assert "few frames failed" in Path("data/quarantine/tuesday/reason.txt").read_text()
    assert Path("data/quarantine/tuesday/audit/tuesday/index.html").read_text() == "evidence"
    assert Path("data/inbox/wednesday/0001.png").exists()
    assert Path("params.yaml").read_text() == PARAMS
    assert not PENDING.exists()
    assert "repro guided" not in workshop.commands


def test_an_interrupted_retrain_goes_on_with_its_batches(workshop: Workshop) -> None:
    deliver()
    workshop.broken["guided"] = "no space left on device"
    with pytest.raises(CommandFailed, match="no space left"):
        retrain.fn(settle_seconds=0)
    assert read_pending() == ["tuesday"]
    assert Path("data/deliveries/tuesday").exists()
    workshop.broken.clear()
    assert retrain.fn(settle_seconds=0).message == "tuesday: promoted"
    assert read_pending() == []


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def tracked() -> set[str]:
    return set(git("ls-tree", "-r", "--name-only", "HEAD").split())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A repository with one commit; a batch was taken in since and the pipeline wrote its lock file."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Tester")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "tester@example.org")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    git("init", "--quiet")
    write(".gitignore", "/data/\n*.tmp\n")
    write("params.yaml", PARAMS)
    git("add", ".")
    git("commit", "--quiet", "-m", "Begin")
    write("params.yaml", PARAMS.replace("]", ", tuesday]"))
    write("dvc.lock", "stages: {}")
    write("data/deliveries/tuesday/0001.png", "video")
    write("data/raw/tuesday/source.yaml", "adapter: folder")
    with disable_run_logger():
        yield


def commit(*batches: str) -> None:
    module.commit_version.fn(list(batches), "promoted")


def test_a_clone_of_the_commit_has_the_results_and_the_pointer_of_the_batch(repository: None) -> None:
    results = {
        "reports/metrics/guided.json",
        "reports/evaluation/kitti.json",
        "reports/label_quality/tuesday.json",
        "reports/curves/guided.csv",
    }
    for path in results:
        write(path, "1")
    write("reports/metrics/guided.json.tmp", "half")
    commit("tuesday")
    git("clone", "--quiet", ".", "../clone")
    clone = Path("../clone")
    expected = {".gitignore", "params.yaml", "dvc.lock", "data/raw/tuesday/source.yaml"} | results
    assert tracked() == expected
    assert "tuesday" in (clone / "params.yaml").read_text()
    assert (clone / "data/raw/tuesday/source.yaml").read_text() == "adapter: folder"
    assert git("log", "-1", "--format=%s").strip() == "Retrain with tuesday: promoted"


def test_a_retrain_without_some_results_is_committed(repository: None) -> None:
    Path("reports/curves").mkdir(parents=True)
    write("reports/metrics/guided.json", "1")
    commit("tuesday")
    assert {"reports/metrics/guided.json", "data/raw/tuesday/source.yaml"} <= tracked()


def test_a_result_that_the_pipeline_no_longer_writes_leaves_the_next_commit(repository: None) -> None:
    for name in ("guided", "old"):
        write(f"reports/metrics/{name}.json", "1")
    commit("tuesday")
    Path("reports/metrics/old.json").unlink()
    commit("wednesday")
    assert "reports/metrics/old.json" not in tracked()


def test_the_pointer_of_an_earlier_batch_that_was_not_committed_comes_along(repository: None) -> None:
    write("data/deliveries/wednesday/0001.png", "video")
    write("data/raw/wednesday/source.yaml", "adapter: folder")
    commit("wednesday")
    assert {"data/raw/tuesday/source.yaml", "data/raw/wednesday/source.yaml"} <= tracked()


def test_work_in_progress_and_rendered_video_stay_out_of_the_commit(repository: None) -> None:
    write("notes.md", "staged by hand")
    git("add", "notes.md")
    # The stage `scenes` writes this one: DVC tracks it, and git must not.
    write("data/raw/monday/source.yaml", "adapter: cityscapes")
    commit("tuesday")
    assert not {"notes.md", "data/raw/monday/source.yaml"} & tracked()
    assert git("diff", "--cached", "--name-only").split() == ["notes.md"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of each call of the flow, which is replaced."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "retrain", lambda **parameters: made.append(parameters))
    return made


def test_the_command_line_hands_its_options_to_the_flow(calls: list[dict[str, Any]]) -> None:
    module.main(["--settle-seconds", "5", "--adapter", "kitti_raw", "--commit"])
    assert calls == [{"settle_seconds": 5.0, "adapter": "kitti_raw", "commit": True}]


def test_without_options_the_command_line_runs_the_flow_as_it_is(calls: list[dict[str, Any]]) -> None:
    module.main([])
    assert calls == [{"settle_seconds": 60.0, "adapter": "folder", "commit": False}]


def test_a_failed_command_ends_the_command_line_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**parameters: Any) -> None:
        raise CommandFailed("gate: exit 1")

    monkeypatch.setattr(module, "retrain", fail)
    with pytest.raises(SystemExit, match="gate: exit 1"):
        module.main([])


@pytest.mark.parametrize("main", [module.main, serve.main])
def test_the_help_explains_every_option_with_its_default(
    main: Callable[[list[str]], None], calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for words in ("--settle-seconds", "(default: 60.0)", "--adapter", "(default: folder)", "--commit"):
        assert words in said
    assert calls == []
