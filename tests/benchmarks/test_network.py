"""The contract of the network benchmark: what it writes and prints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import network as benchmark
from gestalt.data.images import write_png
from gestalt.network.panoptic_model import PanopticModel
from tests.network.published import N_STUFF, N_THINGS, build_bold, detectron2_weights

# No multiple of 32: nothing may be resized, and padding may not show.
SIZE = (70, 101)


@pytest.fixture(scope="module")
def network() -> PanopticModel:
    return build_bold(4)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


@pytest.fixture
def arguments(tmp_path: Path, network: PanopticModel, image: np.ndarray) -> list[str]:
    weights = {f"model.{name}": tensor for name, tensor in detectron2_weights(network).items()}
    torch.save({"state_dict": {**weights, "model.extra": torch.ones(1)}}, tmp_path / "a.ckpt")
    write_png(tmp_path / "image.png", image)
    paths = ["--checkpoint", str(tmp_path / "a.ckpt"), "--image", str(tmp_path / "image.png")]
    return [*paths, "--out", str(tmp_path / "out.npz"), "--device", "cpu", "--score-threshold", "0.3"]


def run(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    benchmark.main(arguments)
    with np.load(arguments[5]) as file:
        return json.loads(capsys.readouterr().out), dict(file)


def test_arrays_are_those_of_the_network_and_one_json_object_is_printed(
    arguments: list[str], network: PanopticModel, image: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    report, found = run([*arguments, "--min-stuff-px", "40", "--repeats", "2"], capsys)
    assert (report["missing"], report["unexpected"], report["misshapen"]) == (0, 1, 0)
    assert report["matched"] == len(network.weights())
    assert report["unexpected_names"] == ["extra (1,)"]
    assert (report["n_things"], report["n_stuff"], report["size"]) == (N_THINGS, N_STUFF, list(SIZE))
    assert min(report["seconds"], report["cpu_seconds"], report["peak_rss_mib"]) > 0

    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        _, (expected,), logits = network.detect(pixels, 0.3)
    n_found = len(expected.boxes)
    assert report["detections"] == n_found > 5
    assert np.array_equal(found["boxes"], expected.boxes.numpy())
    assert np.array_equal(found["scores"], expected.scores.numpy())
    assert np.array_equal(found["classes"], expected.classes.numpy())
    assert np.array_equal(found["semantic_logits"], logits[0].numpy())
    assert found["semantic_logits"].shape == (N_STUFF + 1, *SIZE)
    assert found["masks"].shape == (n_found, *SIZE)
    assert found["masks"].dtype == bool
    assert 0 < found["masks"].mean() < 1


def test_the_panoptic_map_follows_from_masks_and_logits(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    limit = 40
    _, found = run([*arguments, "--min-stuff-px", str(limit)], capsys)
    semantic, instance = found["panoptic"][..., 0], found["panoptic"][..., 1]
    # Best first, each takes what is free unless more than half of it is gone.
    expected = np.zeros(SIZE, np.int64)
    classes = []
    for mask, thing in zip(found["masks"], found["classes"], strict=True):
        free = mask & (expected == 0)
        if mask.sum() and 1 - free.sum() / mask.sum() <= 0.5:
            classes.append(N_STUFF + thing)
            expected[free] = len(classes)
    assert np.array_equal(instance, expected)
    assert len(classes) > 1
    best = found["semantic_logits"].argmax(0)
    for number in range(N_STUFF + 1):
        region = (best == number) & (expected == 0)
        is_kept = number > 0 and region.sum() >= limit
        assert (semantic[region] == (number - 1 if is_kept else 255)).all()
    for number, unified in enumerate(classes, start=1):
        assert (semantic[instance == number] == unified).all()


def test_the_stuff_limit_counts_pixels_exactly(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = run([*arguments, "--min-stuff-px", "1"], capsys)
    stuff = found["panoptic"][..., 0] * (found["panoptic"][..., 1] == 0)
    areas = np.bincount(stuff[(found["panoptic"][..., 1] == 0) & (stuff < N_STUFF)], minlength=N_STUFF)
    largest = int(areas.max())
    assert largest > 1
    for limit, is_kept in ((largest, True), (largest + 1, False)):
        _, found = run([*arguments, "--min-stuff-px", str(limit)], capsys)
        assert bool((found["panoptic"][..., 0] == int(areas.argmax())).any()) == is_kept


def test_what_is_wrong_is_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        benchmark.main([*arguments, "--part", "teacher"])
    assert "holds no teacher" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_both_backends_give_the_same(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("detectron2")
    _, own = run(arguments, capsys)
    report, other = run([*arguments, "--backend", "detectron2"], capsys)
    assert report["backend"] == "detectron2"
    for name in ("boxes", "scores", "semantic_logits"):
        assert np.allclose(own[name], other[name], atol=1e-4), name
    for name in ("classes", "masks", "panoptic"):
        assert np.array_equal(own[name], other[name]), name
