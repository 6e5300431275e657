"""The benchmarks of the trainings: whole runs on tiny images, and a refusal."""

from __future__ import annotations

import json

import pytest

from benchmarks import teacher_views, training_step

TINY = ["--device", "cpu", "--size", "64x96", "--batch", "2"]


def test_a_step_beside_that_of_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    training_step.main([*TINY, "--rounds", "1"])
    report = json.loads(capsys.readouterr().out)
    # One round: the ratio is that of the two times.
    assert report["ratio"] == pytest.approx(
        report["reference_seconds_per_step"] / report["seconds_per_step"], rel=0.05
    )
    assert report["predict_every"] == 5
    assert report["batch_size"] == 2


def test_the_reference_predicts_and_copies_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = []
    original = training_step.GuidedBatches.predict

    def count(batches: training_step.GuidedBatches, step: int) -> None:
        original(batches, step)
        predicted.append(batches._settings.copy_paste.predict_every)

    monkeypatch.setattr(training_step.GuidedBatches, "predict", count)
    training_step.main([*TINY, "--rounds", "1"])
    assert predicted.count(1) == predicted.count(5) == 10


def test_views_in_batches_give_what_single_views_give(capsys: pytest.CaptureFixture[str]) -> None:
    teacher_views.main([*TINY, "--rounds", "1", "--scales", "1.0", "--score-threshold", "0.1"])
    report = json.loads(capsys.readouterr().out)
    assert report["ratio"] == pytest.approx(report["single_seconds"] / report["seconds"], rel=0.05)
    assert report["largest_difference"] < 1e-4
    assert report["detections"] > 0
    assert report["views"] == 2


def test_passes_that_do_not_fit_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training_step.main([*TINY, "--accumulate", "3"])
    assert "guided.batch_size must be a multiple of 3" in capsys.readouterr().err
