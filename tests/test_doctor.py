"""The doctor finds what is missing and says what to do."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from gestalt import doctor
from gestalt.doctor import (
    EXTRA_FIX,
    NOTE,
    OK,
    PROBLEM,
    examine,
    examine_dvc,
    examine_git,
    examine_machine,
    examine_packages,
)


def test_this_environment_has_what_the_package_asks_for() -> None:
    findings = {finding.name: finding for finding in examine_packages()}
    assert findings["packages"].verdict == OK
    assert not [finding for finding in findings.values() if finding.verdict == PROBLEM]
    assert {"extra detectron2", "extra dask", "extra dev"} <= set(findings)


def test_every_extra_is_looked_at() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    assert set(EXTRA_FIX) == set(project["optional-dependencies"])


def test_wrong_and_missing_packages_are_problems_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=999", "no-such-package>=1", "torch>=1", 'no-such-cluster>=1; extra == "dask"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    findings = {finding.name: finding for finding in examine_packages()}
    assert findings["numpy"].verdict == findings["no-such-package"].verdict == PROBLEM
    assert findings["no-such-package"].found == "missing"
    assert "pip install 'numpy>=999'" in findings["numpy"].fix
    assert findings["packages"].found.startswith("1 of 3 fit")
    assert findings["extra dask"].verdict == NOTE
    assert "no-such-cluster" in findings["extra dask"].found


def test_little_free_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_DISK_GIB", 1e9)
    disk = next(finding for finding in examine_machine(tmp_path) if finding.name == "free disk")
    assert disk.verdict == PROBLEM
    assert "dvc gc" in disk.fix


def test_an_empty_folder_lacks_parameters_git_and_dvc(tmp_path: Path) -> None:
    problems = {finding.name: finding.fix for finding in examine(tmp_path) if finding.verdict == PROBLEM}
    assert "gestalt configure" in problems["params.yaml"]
    assert "git init" in problems["git"]
    assert "dvc init" in problems["DVC"]


def test_uncommitted_changes_are_counted(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    assert examine_git(tmp_path).verdict == OK
    (tmp_path / "b").write_text("2")
    assert "1 uncommitted changes" in examine_git(tmp_path).found


@pytest.mark.parametrize(
    ("answer", "verdict", "found"),
    [
        ("Data and pipelines are up to date.", OK, "up to date"),
        (
            "motion@monday:\n\tchanged deps:\n\t\tmodified: x\nguided:\n\tchanged deps:",
            NOTE,
            "2 stages are stale",
        ),
        (None, PROBLEM, "fails"),
    ],
)
def test_the_state_of_dvc_is_read_from_its_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None, verdict: str, found: str
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.lock").touch()
    monkeypatch.setattr(doctor, "_ask", lambda *_: answer)
    finding = examine_dvc(tmp_path)
    assert finding.verdict == verdict
    assert found in finding.found
