"""The command that trains without the pipeline, and what it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gestalt.config.distillation import DistillationSettings
from gestalt.config.presets import PRESETS
from gestalt.config.schema import check_ranges
from gestalt.errors import ConfigError, DataError
from gestalt.features import distillation_training
from gestalt.features.distillation_training import CHECKPOINT, main, pack_checkpoint, read_settings
from gestalt.features.loading import load_features
from gestalt.features.training_images import write_images
from tests.features.small_distillation import QUICK, noisy_frames

CONF = PRESETS / "distillation"


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "frames.npz"
    write_images(path, noisy_frames(), [f"s{number // 2}" for number in range(10)])
    return path


@pytest.mark.parametrize("variant", ["embedded", "paper"])
def test_every_variant_has_every_key_in_its_range(variant: str) -> None:
    settings = read_settings(CONF / f"{variant}.yaml", [])
    assert isinstance(settings, DistillationSettings)
    check_ranges(settings, "distillation")


def test_paper_has_the_published_numbers() -> None:
    paper = read_settings(CONF / "paper.yaml", [])
    assert (paper.projection.outputs, paper.views.local_count, paper.batch_size) == (65536, 8, 1024)
    assert (paper.optimiser.learning_rate, paper.optimiser.teacher_momentum) == (5e-4, 0.996)
    assert paper.dense.weight == 0


def run(out: Path, frames: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, float]:
    main(["--images", str(frames), "--out", str(out), "--device", "cpu", *more, *QUICK])
    report: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return report


def test_the_command_writes_features_and_goes_on_after_a_limit(
    tmp_path: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features"
    assert run(out, frames, capsys, "--max-seconds", "0.000001")["finished"] is False
    assert json.loads((out / "card.json").read_text())["is_finished"] is False
    report = run(out, frames, capsys)
    assert report["finished"] is True
    assert report["images"] == 10
    assert 0 <= report["same_sequence_share"] <= 1
    assert report["same_sequence_chance"] == pytest.approx(1 / 9, abs=1e-4)
    card = json.loads((out / "card.json").read_text())
    assert card["recipe"]["steps"] == 6
    assert card["seed"] == 0
    assert card["losses"]["views"] == report["views"] > 0
    assert len(card["source"]["sha256"]) == 64
    assert len((out / "curve.csv").read_text().splitlines()) == 4
    assert not list((out / "state").glob("*"))
    features = load_features(out)
    assert features(torch.rand(1, 3, 20, 33)).shape == (1, 24, 3, 5)
    # Half precision in the file, full in use.
    assert (out / "weights.safetensors").stat().st_size < 2.5 * sum(
        v.numel() for v in features.parameters()
    ) + 8192
    assert all(value.dtype == torch.float32 for value in features.parameters())


def test_a_machine_without_safetensors_leaves_what_another_one_packs(
    tmp_path: Path, frames: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", frames, capsys)
    with monkeypatch.context() as bare:
        bare.setattr(distillation_training.importlib.util, "find_spec", lambda name: None)
        run(tmp_path / "bare", frames, capsys)
    assert not (tmp_path / "bare" / "card.json").exists()
    main(["--pack", str(tmp_path / "bare" / CHECKPOINT), "--out", str(tmp_path / "packed")])
    for name in ("weights.safetensors", "card.json"):
        assert (tmp_path / "packed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; --pack names"):
        pack_checkpoint(tmp_path / "none.pt", tmp_path)
    torch.save({"teacher": {}}, tmp_path / "other.pt")
    with pytest.raises(DataError, match=f"is no {CHECKPOINT} of this training"):
        pack_checkpoint(tmp_path / "other.pt", tmp_path)
    torch.save({"bad": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(DataError, match=f"is no {CHECKPOINT} of this training"):
        pack_checkpoint(tmp_path / "code.pt", tmp_path)


def test_errors_are_one_line_and_name_the_key(
    tmp_path: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--images", str(frames), "--out", str(tmp_path), "--device", "cpu", "views.global_px=20"])
    assert stopped.value.code == 1
    assert "distillation.views.global_px must be a multiple" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "either --images or --pack" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"a key of distillation. Got: 'stepz=3'"):
        read_settings(CONF / "embedded.yaml", ["stepz=3"])


def test_training_imports_nothing_that_a_bare_machine_lacks() -> None:
    script = (
        "import sys\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        missing = {'cv2', 'omegaconf', 'hydra', 'pandas', 'pyarrow', 'typer', 'tqdm', 'yaml', 'safetensors'}\n"
        "        if name.split('.')[0] in missing:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "import gestalt.features.distillation_training, gestalt.config.distillation\n"
        "assert 'torchvision' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
