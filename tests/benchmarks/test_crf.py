"""The contract of the CRF benchmark: files in, files out, one JSON object."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import crf
from gestalt.config.crf import CrfSettings
from gestalt.semantics.crf import refine


def write_scene(path: Path) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    prob = generator.dirichlet(np.ones(5), (12, 17)).transpose(2, 0, 1).astype(np.float32)
    np.savez(path, image=image, probabilities=prob)
    return image, prob


def test_the_file_has_the_refined_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, out = tmp_path / "scene.npz", tmp_path / "out.npz"
    image, prob = write_scene(scene)
    threads = str(torch.get_num_threads())
    given = ["--scene", str(scene), "--out", str(out), "--device", "cpu", "--threads", threads]
    assert crf.main(given) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["seconds"] > 0
    assert report["cpu_seconds"] > 0
    assert report["peak_rss_mib"] > 1
    assert report["size"] == [5, 12, 17]
    with np.load(out) as arrays:
        refined = arrays["probabilities"]
    assert refined.dtype == np.float32
    log_prob = torch.from_numpy(prob).log()[None]
    wanted = refine(torch.from_numpy(image)[None], log_prob, CrfSettings(10, 3.0, 1.0, 4.0, 67.0, 3.0))
    assert np.allclose(refined, wanted[0].numpy(), atol=1e-6)


def test_an_absent_package_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf.importlib.util, "find_spec", lambda name: None)
    scene, out = tmp_path / "scene.npz", tmp_path / "out.npz"
    write_scene(scene)
    given = ["--scene", str(scene), "--out", str(out), "--device", "cpu", "--threads", "1"]
    assert crf.main([*given, "--beside"]) == 0
    assert json.loads(capsys.readouterr().out)["pydensecrf"] == "absent"
    assert crf.main([*given, "--only-pydensecrf"]) == 1
    assert "not installed" in capsys.readouterr().err


def test_a_file_that_is_no_scene_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.npz")
    np.savez(tmp_path / "half.npz", image=np.zeros((2, 2, 3), np.uint8))
    for name in ("missing.npz", "half.npz"):
        assert crf.main(["--scene", str(tmp_path / name), "--out", out, "--threads", "1"]) == 1
        assert "image and probabilities" in capsys.readouterr().err
    np.savez(tmp_path / "types.npz", image=np.zeros((2, 2, 3)), probabilities=np.ones((1, 2, 2)))
    assert crf.main(["--scene", str(tmp_path / "types.npz"), "--out", out, "--threads", "1"]) == 1
    assert "uint8" in capsys.readouterr().err
    assert not Path(out).exists()
