"""The benchmark of the self-distillation: a whole run on a tiny network, and a refusal."""

from __future__ import annotations

import json

import pytest

from benchmarks import feature_training
from tests.features.small_distillation import QUICK


def test_throughput_is_that_of_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--device", "cpu", "--steps", "2", "--frames", "4", "--height", "40", "--width", "64"]
    feature_training.main([*size, *QUICK])
    report = json.loads(capsys.readouterr().out)
    assert report["images_per_second"] == pytest.approx(4 / report["seconds_per_step"], rel=0.1)
    assert report["seconds_for_crops"] > 0
    assert report["cpu_seconds_per_step"] > 0
    assert report["device"] == "cpu, 1 threads"


def test_settings_that_cannot_work_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        feature_training.main(["--device", "cpu", "views.global_px=13"])
    assert "views.global_px must be a multiple" in capsys.readouterr().err
