"""The command that trains without the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gestalt.config.presets import PRESETS, default_settings
from gestalt.errors import ConfigError, DataError
from gestalt.matching import smurf_training
from gestalt.matching.raft_weights import load_network, read_card
from gestalt.matching.smurf_training import read_settings
from gestalt.matching.training_pairs import write_pairs
from tests.matching.small_training import moving_pairs

CONF = PRESETS / "optical_flow"
QUICK = [
    "steps=2", "updates=1", "batch_size=1", "log_every=1", "crop.height=64", "crop.width=64",
    "crop.context_rows_px=8", "crop.context_columns_px=8", "self_supervision.start_step=0",
    "self_supervision.ramp_steps=1", "self_supervision.margin_px=8",
]  # fmt: skip


@pytest.mark.parametrize("variant", ["embedded", "paper"])
def test_settings_are_those_of_the_presets(variant: str) -> None:
    assert read_settings(CONF / f"{variant}.yaml", []) == default_settings("optical_flow", variant)


def test_settings_can_be_json_and_be_overridden(tmp_path: Path) -> None:
    import yaml

    values = yaml.safe_load((CONF / "paper.yaml").read_text())
    (tmp_path / "own.json").write_text(json.dumps(values))
    found = read_settings(tmp_path / "own.json", ["steps=7", "optical_flow.crop.height=64", "variant=small"])
    assert (found.steps, found.crop.height, found.variant) == (7, 64, "small")
    assert found.census == default_settings("optical_flow", "paper").census


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "stepz=3"),
        ("steps", "key=value"),
        ("steps=0", r"optical_flow\.steps must be at least 1"),
        ("steps=many", r"optical_flow\.steps must be int"),
        ("crop=3", r"optical_flow\.crop is a section"),
        ("crop.height.more=3", "key=value"),
    ],
)
def test_overrides_that_cannot_work_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(CONF / "embedded.yaml", [override])


def test_missing_settings_and_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_settings(tmp_path / "none.json", [])
    (tmp_path / "some.json").write_text('{"steps": 3}')
    with pytest.raises(ConfigError, match=r"Unknown or missing: .*batch_size"):
        read_settings(tmp_path / "some.json", [])


def test_the_command_writes_a_network_and_goes_on_after_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = tmp_path / "pairs.npz", tmp_path / "network"
    write_pairs(pairs, moving_pairs(n_sequences=1))
    command = ["smurf_training", "--images", str(pairs), "--out", str(out), "--device", "cpu"]

    def run(*more: str) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", [*command, *more, *QUICK])
        smurf_training.main()
        report: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return report

    assert run("--max-seconds", "0.000001")["finished"] is False
    assert read_card(out)["is_finished"] is False
    report = run()
    assert report["finished"] is True
    card = read_card(out)
    assert card["recipe"]["steps"] == 2
    assert card["losses"]["census"] == report["census"] > 0
    assert len((out / "curve.csv").read_text().splitlines()) == 3
    assert not list((out / "state").glob("*"))
    image = torch.rand(1, 3, 64, 64)
    assert load_network(out)(image, image, 1)[0].shape == (1, 2, 64, 64)


def test_training_imports_nothing_that_a_bare_machine_lacks() -> None:
    script = (
        "import sys\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        missing = {'cv2', 'omegaconf', 'hydra', 'pandas', 'pyarrow', 'typer', 'tqdm', 'yaml'}\n"
        "        if name.split('.')[0] in missing:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "import gestalt.matching.smurf_training, gestalt.config.optical_flow\n"
        "assert 'torchvision' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
