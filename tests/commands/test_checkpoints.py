"""`gestalt network import` and `convert` as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gestalt import cli
from gestalt.network.checkpoint import NetworkCard, load_network, save_network
from gestalt.network.checkpoint_files import unified_vocabulary
from gestalt.panoptic import Vocabulary
from tests.network.published import N_STUFF, N_THINGS, build_narrow, detectron2_weights


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    weights = detectron2_weights(build_narrow(1))
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}, "cups.ckpt")
    return Path("cups.ckpt")


def run(*arguments: str) -> int:
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["network", *arguments])
    return int(ended.value.code or 0)


def test_a_checkpoint_goes_in_and_comes_out(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert run("import", str(checkpoint), "--out", "models/cups", "--size", "64x96") == 0
    said = capsys.readouterr().out
    assert str(len(original)) in said
    assert f"{N_THINGS} thing and {N_STUFF} stuff classes" in said
    assert "gestalt predict IMAGES --network models/cups" in said
    assert load_network(Path("models/cups"), torch.device("cpu"))[1].image_size == (64, 96)
    assert run("convert", "models/cups", "--to", "cups", "--out", "back.ckpt") == 0
    back = torch.load("back.ckpt", weights_only=True)["state_dict"]
    assert set(back) == set(original)
    assert all(torch.equal(back[name], tensor) for name, tensor in original.items())


def test_a_network_of_another_origin_is_not_replaced(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--out", "models/cups", "--size", "64x96")
    assert run("import", str(checkpoint), *arguments) == 0
    before = Path("models/cups/network.safetensors").read_bytes()
    other = checkpoint.rename("other.ckpt")
    assert run("import", str(other), *arguments) == 1
    assert "models/cups holds a network that is not from other.ckpt" in capsys.readouterr().err
    assert Path("models/cups/network.safetensors").read_bytes() == before
    assert run("import", str(other.rename(checkpoint)), *arguments) == 0


def test_a_part_of_a_network_is_taken_for_a_vocabulary_only(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    headless = {name: tensor for name, tensor in weights.items() if "sem_seg_head" not in name}
    torch.save({"state_dict": headless}, checkpoint)
    assert run("import", str(checkpoint), "--out", "models/part") == 1
    refusal = capsys.readouterr().err
    assert "--vocabulary" in refusal
    assert "missing" in refusal
    assert not Path("models").exists()
    Vocabulary((0, 1, 2), (3, 4)).save(Path("vocabulary.json"))
    assert run("import", str(checkpoint), "--out", "models/part", "--vocabulary", "vocabulary.json") == 0
    said = capsys.readouterr().out
    assert "sem_seg_head" in said
    assert "guided.initial_network=models/part" in said
    assert load_network(Path("models/part"), torch.device("cpu"))[0].n_stuff == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "none.ckpt", "--out", "x"), "none.ckpt does not exist"),
        (("import", ".", "--out", "x"), ". is a folder; name the file of a checkpoint in it"),
        (("import", "cups.ckpt", "--out", "x", "--vocabulary", "none.json"), "none.json does not exist"),
        (("import", "cups.ckpt", "--out", "cups.ckpt"), "is a file"),
        (("import", "cups.ckpt", "--out", "x", "--part", "teacher"), "holds no teacher"),
        (("import", "cups.ckpt", "--out", "x", "--size", "wide"), "--size must be HEIGHTxWIDTH"),
        (("convert", "none", "--out", "a.pth"), "none does not exist"),
        (("convert", ".", "--out", "a.ckpt"), "--out must end with .pth or .pkl for detectron2"),
        (("convert", ".", "--out", "a.pth", "--to", "onnx"), "--to must be detectron2 or cups"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err
    assert not Path("x").exists()


def test_a_network_of_gestalt_is_not_imported(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", str(checkpoint), "--out", "models/cups", "--size", "64x96") == 0
    for given in ("models/cups", "models/cups/network.safetensors", "models/cups/card.json"):
        assert run("import", given, "--out", "x") == 1
        said = capsys.readouterr().err
        assert f"{given} is a network of Gestalt already" in said
        assert "--network models/cups\n" in said
    assert not Path("x").exists()


def test_a_network_that_detectron2_has_not_is_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gestalt.config.presets import default_settings
    from gestalt.network.architecture import build_network

    small, vocabulary = default_settings("network", "small"), unified_vocabulary(2, 3)
    save_network(Path("small"), build_network(small, vocabulary), NetworkCard(small, vocabulary, (64, 96)))
    assert run("convert", "small", "--out", "a.pth") == 1
    assert "detectron2 has no such network: network.block" in capsys.readouterr().err
    assert not Path("a.pth").exists()
