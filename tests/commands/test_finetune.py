"""`gestalt finetune` from a folder of labels to a network whose classes have names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gestalt import cli
from gestalt.config.network import NetworkSettings
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, read_card, save_network
from tests.training.conftest import SIZE, VOCABULARY
from tests.training.conftest import network_settings as network_settings
from tests.training.labelled_world import write_labels

QUICK = ["--set", "budget_steps=[2,2,2]", "--set", "batch_size=1", "--device", "cpu"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network_settings: NetworkSettings) -> Path:
    """A folder with a trained network, labels and a benchmark; no ``params.yaml``."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    card = NetworkCard(network_settings, VOCABULARY, SIZE)
    save_network(tmp_path / "models/self_trained", build_network(network_settings, VOCABULARY), card)
    write_labels(tmp_path / "labels", range(6))
    write_labels(tmp_path / "data/benchmarks/town", range(2))
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        cli.main(["finetune", *arguments])
    assert raised.value.code == 1
    return capsys.readouterr().err


def succeeds(*arguments: str) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["finetune", *arguments])
    assert raised.value.code == 0


def test_a_network_with_names_comes_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of an interrupted training with other settings.
    stale = project / "models/finetuned/state/0123456789abcdef/state.pt"
    stale.parent.mkdir(parents=True)
    stale.touch()
    succeeds("labels", "--share", "0.5", *QUICK)
    said = capsys.readouterr().out
    assert "2 of 4 labelled images, 2 more belong to a benchmark" in said
    assert "models/finetuned written: 19 classes of cityscapes19." in said
    assert "  bicycle         fresh" in said
    card = read_card(project / "models/finetuned")
    assert card.class_names[:2] == ("road", "sidewalk")
    assert card.image_size == SIZE
    labels = [name for name in card.sources if name.startswith("label/")]
    assert len(labels) == card.metrics["n_images"] == 2
    assert not {"label/town_000000_000000", "label/town_000000_000001"} & set(labels)
    assert len(card.sources["network"]) == 64
    files = {path.name for path in (project / "models/finetuned").iterdir()}
    assert files == {"card.json", "network.safetensors", "curve.csv"}


def test_a_dry_run_names_the_images_and_writes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeeds("labels", "--dry-run", "--share", "1")
    said = capsys.readouterr().out
    assert "4 of 4 labelled images" in said
    assert "  town_000000_000005" in said
    assert not (project / "models/finetuned").exists()


def test_other_benchmarks_can_be_held_out_instead(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(project / "mine", range(5, 6))
    succeeds("labels", "--dry-run", "--share", "1", "--held-out", "mine")
    assert "5 of 5 labelled images, 1 more belong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere/source.yaml does not exist"),
        (["labels", "--out", "models/self_trained"], "--out and --network are both models/self_trained"),
        (["labels", "--network", "models/none"], "models/none holds no trained network"),
        (
            ["labels", "--set", "stepz=3"],
            "an override is key=value with a key of finetune. Got: 'stepz=3'; known keys: ",
        ),
        (["labels", "--set", "class_start=best"], "finetune.class_start must be one of"),
        (["labels", "--set", "label_space=mots2"], "mots2"),
        (["data/benchmarks/town"], "all 2 labelled images belong to a benchmark"),
    ],
)
def test_what_cannot_work_says_why(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in fails(capsys, *arguments, "--device", "cpu")
    assert not (project / "models/finetuned").exists()
