import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

import flows.retrain as module
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
    for task in ("look_into", "ingest", "start_from_champion", "promote", "commit_lock"):
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
        "git commit -m Retrain with tuesday: promoted -- params.yaml dvc.lock",
    ]
    assert 'initial_network: "models/champions/abc"' in Path("params.yaml").read_text()
    assert read_pending() == []
    assert not Path("data/inbox/tuesday").exists()


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
