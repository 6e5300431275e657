"""The contract of the matching benchmark: what it prints, and that both ways measure the same."""

import itertools
import json

import numpy as np
import pytest

from benchmarks import matching


def test_one_json_object_is_printed_and_both_ways_agree(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--height", "64", "--width", "80", "--frames", "2", "--variant", "small", "--device", "cpu"]
    matching.main([*size, "--flow-iterations", "2", "--stereo-iterations", "1"])
    report = json.loads(capsys.readouterr().out)
    assert report["size"] == [64, 80]
    assert report["iterations"] == [2, 1]
    assert report["ratio"] == pytest.approx(
        report["frames_per_second"] / report["frames_per_second_six_calls"], rel=0.02
    )
    assert report["cpu_seconds"] > 0
    assert report["peak_device_memory_mib"] is None
    assert max(report["mean_difference_px"].values()) < 1e-4


def test_the_next_images_of_a_frame_are_those_of_the_next_frame() -> None:
    frames = matching.consecutive_frames(3, 20, 50, seed=0)
    for one, other in itertools.pairwise(frames):
        assert np.array_equal(one.left_next, other.left)
        assert np.array_equal(one.right_next, other.right)
    first = frames[0]
    assert np.array_equal(first.left[:, matching.DISPARITY :], first.right[:, : -matching.DISPARITY])
    assert {image.shape for image in (first.left, first.right, first.left_next)} == {(20, 50, 3)}


def test_missing_weights_are_one_line(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        matching.main(["--weights", str(tmp_path), "--device", "cpu"])
    assert ended.value.code == 1
    assert "does not exist" in capsys.readouterr().err
