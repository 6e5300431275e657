import subprocess
from pathlib import Path

import pytest

from gestalt.tracking.lineage import (
    evaluation_hash,
    file_hash,
    flatten,
    git_commit,
    git_difference,
    output_hashes,
    pipeline_key,
)
from tests.tracking.experiment import params, write_reports


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("PIPELINE_KEY", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def commit(folder: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "file").write_text("one")
    subprocess.run([*git, "add", "file"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-qm", "first"], cwd=folder, check=True)


def test_outside_git_everything_is_unknown_and_nothing_fails(repository: Path) -> None:
    assert git_commit() == "unknown"
    assert git_difference() == "unknown"
    assert pipeline_key(params()).startswith("unknown-")


def test_a_change_shows_and_a_commit_is_clean(repository: Path) -> None:
    commit(repository)
    assert len(git_commit()) == 40
    assert git_difference() == "clean"
    (repository / "file").write_text("two")
    assert len(git_difference()) == 12


def test_an_experiment_has_a_key_of_its_own(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "lr05")
    assert pipeline_key(params()).startswith("lr05-")


def test_flat_keys_are_those_of_the_file() -> None:
    flat = flatten(params())
    assert flat["batches"] == ["monday", "tuesday"]
    assert "runtime.device" in flat
    assert flatten({"a": {"b": 1}}) == {"a.b": 1}


def test_outputs_and_their_hashes_come_from_the_lock(repository: Path) -> None:
    assert output_hashes() == {}
    write_reports(repository)
    assert output_hashes() == {
        "data/benchmarks/cityscapes": "bbbb.dir",
        "models/self_trained": "24aaaaaaaaaaaaaaaa.dir",
    }
    assert file_hash(Path("nothing")) == "missing"


def test_evaluation_hash_changes_with_the_sets_and_only_with_them(repository: Path) -> None:
    outputs = {"data/benchmarks/kitti": "1", "models/guided": "2"}
    before = evaluation_hash(outputs)
    assert before == evaluation_hash(outputs | {"models/guided": "3"})
    assert before != evaluation_hash(outputs | {"data/benchmarks/kitti": "4"})
    own = repository / "data/benchmarks/bdd"
    own.mkdir(parents=True)
    (own / "source.yaml").write_text("adapter: bdd")
    assert before != evaluation_hash(outputs)
