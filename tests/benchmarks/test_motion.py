"""The contract of the motion benchmark: what it reads, writes and prints."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.boxes import BOXES, make_scene
from benchmarks.motion import best_ious

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"benchmarks/{script}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_made_boxes_are_found_and_one_json_object_is_printed(tmp_path: Path) -> None:
    scene, out = tmp_path / "scene.npz", tmp_path / "masks.npz"
    made = run("boxes", "--out", scene, "--height", 192, "--width", 384, "--noise", 0.2)
    assert json.loads(made.stdout)["objects"] == len(BOXES), made.stderr
    report = json.loads(run("motion", "--scene", scene, "--out", out).stdout)
    assert {
        "seconds", "cpu_seconds", "seconds_warm", "cpu_seconds_warm", "peak_rss_mib", "n_objects", "iou",
    } == set(report)  # fmt: skip
    assert min(report["iou"]) > 0.6
    with np.load(out) as stored:
        instance_map = stored["instance_map"]
    assert instance_map.shape == (192, 384)
    assert instance_map.dtype == np.uint16
    assert len(np.unique(instance_map)) == report["n_objects"] + 1


def test_a_scene_that_lacks_an_array_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "scene.npz", disparity=np.ones((4, 4)))
    ended = run("motion", "--scene", tmp_path / "scene.npz", "--out", tmp_path / "masks.npz")
    assert ended.returncode == 1
    assert "lacks disparity_next, disparity_right" in ended.stderr
    assert not ended.stdout


def test_forward_and_backward_flow_of_the_boxes_undo_each_other() -> None:
    scene = make_scene(96, 192, noise=0.0, seed=0)
    forward, backward = scene["optical_flow_forward"], scene["optical_flow_backward"]
    y, x = (scene["instances"] == 0).nonzero()
    # On the wall, which every motion keeps in view.
    far = scene["disparity"][y, x] < 1.1 * scene["disparity"].min()
    target_x, target_y = x[far] + forward[0, y[far], x[far]], y[far] + forward[1, y[far], x[far]]
    inside = (target_x > 1) & (target_x < 190) & (target_y > 1) & (target_y < 94)
    columns, rows = target_x[inside].round().astype(int), target_y[inside].round().astype(int)
    there = scene["disparity_next"][rows, columns] < 1.2 * scene["disparity"].min()
    sums = forward[:, y[far][inside], x[far][inside]] + backward[:, rows, columns]
    assert there.mean() > 0.9
    assert np.abs(sums[:, there]).max() < 0.2


def test_best_iou_is_counted_by_hand() -> None:
    true_map = np.array([[1, 1, 2, 2], [0, 0, 2, 2]])
    found_map = np.array([[1, 1, 1, 2], [0, 0, 2, 2]])
    assert best_ious(true_map, found_map) == pytest.approx([2 / 3, 3 / 4])
