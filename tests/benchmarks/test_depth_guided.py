"""Batched windows give what one window at a time gives."""

import json

import pytest

from benchmarks import depth_guided


def test_batched_and_single_windows_agree_on_a_small_network(capsys: pytest.CaptureFixture[str]) -> None:
    depth_guided.main(
        [
            "--height",
            "32",
            "--width",
            "64",
            "--tokens",
            "64",
            "--depth",
            "1",
            "--repeats",
            "1",
            "--device",
            "cpu",
        ]
    )
    report = json.loads(capsys.readouterr().out)
    assert report["image"] == [32, 64]
    assert report["largest_difference"] < 1e-5
    assert report["ratio"] == pytest.approx(
        report["milliseconds"]["one_by_one"] / report["milliseconds"]["batched"], abs=0.01
    )
