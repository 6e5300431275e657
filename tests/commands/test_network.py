"""`gestalt network`: what it hands on, what it says, and which mistakes it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gestalt import cli
from gestalt.inference import deployment
from gestalt.inference.deployment import DeploymentCard
from gestalt.panoptic import Vocabulary


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["network", "export", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the export was asked for, instead of half a minute of work."""
    monkeypatch.chdir(tmp_path)
    Path("models/mine").mkdir(parents=True)
    found: dict[str, Any] = {}

    def export_network(folder: Path, out: Path, **rest: Any) -> DeploymentCard:
        found.update(folder=folder, out=out, **rest)
        size = rest["size"] or (48, 64)
        return DeploymentCard(
            format=rest["form"],
            image_size=size,
            trained_size=(48, 64),
            classes=(("road", False), ("car", True)),
            n_stuff=len(Vocabulary(things=(1,), stuff=(0,)).stuff),
            padding_colour=(0.5, 0.5, 0.5),
            weights_sha256="ab",
            graph_sha256="cd",
            differences={"boxes": 0.0, "semantic_logits": 2e-5, "n_boxes": 7.0, "n_unmatched": 1.0},
        )

    monkeypatch.setattr(deployment, "export_network", export_network)
    return found


def test_size_and_format_reach_the_export(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "program.pt2"
    assert run("models/mine", "--format", "torch", "--size", "512x1024", "--out", str(out)) == 0
    assert asked == {"folder": Path("models/mine"), "out": out, "form": "torch", "size": (512, 1024)}
    printed = capsys.readouterr().out
    assert f"{out} written: images of 512x1024, 2 classes; {tmp_path / 'program.json'} says more" in printed
    assert "7 boxes, 1 without a partner: boxes 0.0e+00, semantic_logits 2.0e-05" in printed


def test_without_a_size_it_is_that_of_the_training(asked: dict[str, Any], tmp_path: Path) -> None:
    assert run("models/mine", "--out", str(tmp_path / "a.onnx")) == 0
    assert (asked["form"], asked["size"]) == ("onnx", None)


@pytest.mark.parametrize(("name", "form"), [("a.onnx", "onnx"), ("a.pt2", "torch")])
def test_the_ending_says_which_format(asked: dict[str, Any], tmp_path: Path, name: str, form: str) -> None:
    assert run("models/mine", "--out", str(tmp_path / name)) == 0
    assert asked["form"] == form


def test_a_card_is_not_taken_from_a_graph_of_another_format(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.onnx").touch()
    assert run("models/mine", "--out", str(tmp_path / "a.pt2")) == 1
    assert f"{tmp_path / 'a.json'} is the card of {tmp_path / 'a.onnx'}" in capsys.readouterr().err
    assert asked == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "512", "--out", "a.onnx"), "--size must be HEIGHTxWIDTH, such as 512x1024. Got: '512'"),
        (("--format", "tflite", "--out", "a.onnx"), "--format is 'tflite'; known formats: onnx, torch"),
        (("--format", "onnx", "--out", "a.pt2"), "a file of the format onnx ends in .onnx. Got: a.pt2"),
        (("--out", "a.zip"), "--out must end in .onnx (onnx) or .pt2 (torch). Got: a.zip"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_exported(
    asked: dict[str, Any], arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("models/mine", *arguments) == 1
    assert capsys.readouterr().err == f"gestalt: {message}\n"
    assert asked == {}
