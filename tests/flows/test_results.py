"""The page of results: means, spreads and paired differences of what the runs wrote."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flows import results, results_page
from flows.results import Work, run_all, run_job
from flows.results_page import BENCHMARKS, COLOURS, MEASURES, Job, draw, render
from gestalt.data.images import read_image

LABELS = {"full": (20.0, 22.0, 24.0), "without_motion": (11.0, 15.0, 16.0)}


def write_run(job: Job, labels: float, guided: float, self_trained: float) -> None:
    """The metric files of a finished run whose measures are all alike."""
    metrics, detail = job.folder / "reports/metrics", job.folder / "reports/label_quality"
    metrics.mkdir(parents=True)
    detail.mkdir()
    for batch, shift in (("monday", -1), ("tuesday", 1)):
        content = {"precision": 50.0, "recall": 25.0}
        (metrics / f"label_quality-{batch}.json").write_text(json.dumps(content))
        (detail / f"{batch}.json").write_text(json.dumps({"labels": evaluation(labels + shift)}))
    found = job.folder / "reports/evaluation"
    found.mkdir()
    for benchmark in BENCHMARKS:
        content = {"networks": {"guided": evaluation(guided), "self_trained": evaluation(self_trained)}}
        (found / f"{benchmark}.json").write_text(json.dumps(content))


def evaluation(value: float) -> dict[str, Any]:
    """What an evaluation writes when all its measures are alike."""
    quality = dict.fromkeys(("PQ", "SQ", "RQ"), value)
    return {
        "void_neutral": {**quality, "thing": quality, "stuff": quality},
        "standard": quality,
        "mIoU": value,
        "pixel_accuracy": value,
        "per_class": [
            {"class": "car", "void_neutral": {"PQ": value, "occurs": True}},
            {"class": "train", "void_neutral": {"PQ": 0.0, "occurs": False}},
        ],
    }


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Two variants with three seeds each that have run, and one that has not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results_page, "head_of", lambda folder: "0123456789")
    ran = [Job(variant, seed) for variant in LABELS for seed in range(3)]
    for job in ran:
        labels = LABELS[job.variant][job.seed]
        write_run(job, labels, guided=labels + 1, self_trained=labels + 3)
    return [*ran, Job("normalized_cut", 0)]


@pytest.fixture
def page(jobs: list[Job]) -> list[str]:
    return render(jobs, "embedded").splitlines()


def test_rows_are_mean_and_spread_over_seeds(page: list[str]) -> None:
    # Mean 22 and sample standard deviation 2 of 20, 22, 24; the two batches average out.
    assert f"| full | 3 | {' | '.join(['22.0 ± 2.0'] * len(MEASURES))} |" in page
    assert "| full | 3 | 50.0 ± 0.0 | 25.0 ± 0.0 |" in page
    assert "| mots | 23.0 ± 2.0 | 25.0 ± 2.0 |" in page


def test_differences_are_paired_by_seed(page: list[str]) -> None:
    # 11 - 20, 15 - 22, 16 - 24: mean -8, spread 1, although both vary by more.
    assert "| without_motion | -8.0 ± 1.0 | -8.0 ± 1.0 | -8.0 ± 1.0 |" in page
    assert "| without_self_training | | | -2.0 ± 0.0 |" in page


def test_classes_that_do_not_occur_are_left_out(page: list[str]) -> None:
    assert "| car | 22.0 ± 2.0 | 23.0 ± 2.0 | 25.0 ± 2.0 |" in page
    assert not any(line.startswith("| train") for line in page)


def test_what_was_not_run_is_said(page: list[str]) -> None:
    assert f"| normalized_cut | 0 | {' | '.join(['not run'] * len(MEASURES))} |" in page


def test_bars_are_means_and_what_was_not_run_has_none(jobs: list[Job], tmp_path: Path) -> None:
    draw(jobs, tmp_path / "all.png")
    draw(jobs[-1:], tmp_path / "nothing.png")
    everything, nothing = (read_image(tmp_path / name) for name in ("all.png", "nothing.png"))
    shades = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS]
    # In each column of a bar, its height above the axis grows with the mean: 22, 23, 25.
    heights = [(everything == shade).all(2).sum(0).max() for shade in shades]
    assert heights[0] < heights[1] < heights[2]
    assert not any((nothing == shade).all(2).any() for shade in shades)


def test_the_full_method_of_a_seed_goes_before_its_ablations(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Job] = []

    def run_job(job: Job, work: Work) -> str:
        if job.variant != "full":
            assert Job("full", job.seed) in ended
        time.sleep(0.05 if job.variant == "full" else 0)
        ended.append(job)
        return ""

    monkeypatch.setattr(results, "run_job", run_job)
    jobs = [Job(variant, seed) for variant in ("without_motion", "full") for seed in range(3)]
    assert run_all(jobs, Work("embedded", (), ""), side_by_side=4) == []
    assert sorted(ended, key=str) == sorted(jobs, key=str)


def test_a_failed_run_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job("full", seed) for seed in range(3)]
    monkeypatch.setattr(results, "run_job", lambda job, work: "failed" if job.seed == 1 else "")
    assert run_all(jobs, Work("embedded", (), ""), side_by_side=2) == [jobs[1]]


def test_a_worktree_of_before_is_put_on_the_asked_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.sys, "executable", "true")
    git("init", "-q")
    for content in ("one", "two"):
        (tmp_path / "code").write_text(content)
        (tmp_path / ".dvc").mkdir(exist_ok=True)
        (tmp_path / ".dvc/config").touch()
        git("add", "-A")
        git("commit", "-qm", content)
        assert run_job(Job("full", 0), Work("embedded", (), git("rev-parse", "HEAD").strip())) == ""
        assert (Job("full", 0).folder / "code").read_text() == content


def test_the_sections_on_pseudo_classes_stay_when_the_page_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    assert results.kept_sections(page) == ""
    page.write_text("# Results\n\n## Old\n\n## Pseudo-classes from a\n\n| 1 |\n\n## Pseudo-classes from b\n")
    assert results.kept_sections(page) == "\n## Pseudo-classes from a\n\n| 1 |\n\n## Pseudo-classes from b\n"
