"""The contract of the feature benchmark: what it writes and prints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import features as benchmark
from gestalt.data.images import write_png
from gestalt.features.backbones import read_backbone
from gestalt.features.dense import image_to_tensor
from gestalt.features.vit import VisionTransformer, VitLayout


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    torch.manual_seed(0)
    layout = VitLayout(patch_size=8, width=128, depth=2, heads=2, grid=5)
    torch.save(VisionTransformer(layout).state_dict(), tmp_path / "w.pth")
    image = np.random.default_rng(0).integers(0, 256, (24, 48, 3)).astype(np.uint8)
    write_png(tmp_path / "image.png", image)
    return tmp_path / "w.pth", tmp_path / "image.png", image


def run(weights: Path, image: Path, out: Path, *more: str) -> None:
    names = ["--weights", str(weights), "--image", str(image), "--out", str(out), "--device", "cpu"]
    benchmark.main([*names, *more])


def test_arrays_are_written_and_one_json_object_is_printed(
    scene: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, path, image = scene
    run(weights, path, tmp_path / "out.npz", "--repeats", "2")
    report = json.loads(capsys.readouterr().out)
    assert report["architecture"] == "ViT 128 wide, 2 deep, patch 8"
    assert (report["size"], report["grid"], report["dimension"]) == ([24, 48], [3, 6], 128)
    assert min(report["seconds"], report["cpu_seconds"], report["peak_rss_mib"]) > 0
    grid = read_backbone(weights).extract(image_to_tensor(image))
    with np.load(tmp_path / "out.npz") as arrays:
        assert set(arrays) == {"tokens", "keys", "cls_attention"}
        assert arrays["tokens"].shape == arrays["keys"].shape == (3, 6, 128)
        assert arrays["cls_attention"].shape == (2, 3, 6)
        assert {arrays[name].dtype for name in arrays} == {np.dtype(np.float32)}
        np.testing.assert_allclose(arrays["tokens"][1, 4], grid.tokens[0, :, 1, 4], atol=1e-5)
        np.testing.assert_allclose(arrays["keys"][2, 0], grid.keys[0, :, 2, 0], atol=1e-5)
        np.testing.assert_allclose(arrays["cls_attention"], grid.cls_attention[0], atol=1e-6)


def test_timm_is_timed_beside(
    scene: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    weights, path, _ = scene
    run(weights, path, tmp_path / "out.npz", "--beside-timm", "--repeats", "3")
    report = json.loads(capsys.readouterr().out)
    assert report["ratio"] == pytest.approx(report["seconds_timm"] / report["seconds"], rel=0.01)


def test_what_is_missing_is_one_line(
    scene: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "none.pth", scene[1], tmp_path / "out.npz")
    assert ended.value.code == 1
    assert "none.pth does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
