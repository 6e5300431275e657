"""Weights on disk: what is written is read again, and SMURF's published file becomes our network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import optical_flow

from gestalt import cli
from gestalt.errors import DataError
from gestalt.matching.raft import Raft
from gestalt.matching.raft_weights import (
    convert_smurf,
    load_network,
    read_card,
    read_smurf,
    read_state_dict,
    save_network,
)
from tests.matching.test_raft import independent_raft, with_columns_first

ENCODER_SHAPES = {
    "convnormrelu.0": (64, 3, 7, 7),
    **{f"layer1.{block}.convnormrelu{place}.0": (64, 64, 3, 3) for block in (0, 1) for place in (1, 2)},
    "layer2.0.convnormrelu1.0": (96, 64, 3, 3),
    "layer2.0.convnormrelu2.0": (96, 96, 3, 3),
    "layer2.0.downsample.0": (96, 64, 1, 1),
    "layer2.1.convnormrelu1.0": (96, 96, 3, 3),
    "layer2.1.convnormrelu2.0": (96, 96, 3, 3),
    "layer3.0.convnormrelu1.0": (128, 96, 3, 3),
    "layer3.0.convnormrelu2.0": (128, 128, 3, 3),
    "layer3.0.downsample.0": (128, 96, 1, 1),
    "layer3.1.convnormrelu1.0": (128, 128, 3, 3),
    "layer3.1.convnormrelu2.0": (128, 128, 3, 3),
    "conv": (256, 128, 1, 1),
}
# The layers of the published file, written down from its conversion script; each has a weight and a bias.
PUBLISHED_SHAPES = {
    **{f"{encoder}.{layer}": shape for encoder in ("feature_encoder", "context_encoder")
       for layer, shape in ENCODER_SHAPES.items()},
    "update_block.motion_encoder.convcorr1.0": (256, 324, 1, 1),
    "update_block.motion_encoder.convcorr2.0": (192, 256, 3, 3),
    "update_block.motion_encoder.convflow1.0": (128, 2, 7, 7),
    "update_block.motion_encoder.convflow2.0": (64, 128, 3, 3),
    "update_block.motion_encoder.conv.0": (126, 256, 3, 3),
    **{f"update_block.recurrent_block.convgru1.conv{gate}": (128, 384, 1, 5) for gate in "zrq"},
    **{f"update_block.recurrent_block.convgru2.conv{gate}": (128, 384, 5, 1) for gate in "zrq"},
    "update_block.flow_head.conv1": (256, 128, 3, 3),
    "update_block.flow_head.conv2": (2, 256, 3, 3),
    "mask_predictor.convrelu.0": (256, 128, 3, 3),
    "mask_predictor.conv": (576, 256, 1, 1),
}  # fmt: skip


def published_weights(prefix: str = "raft.") -> dict[str, Tensor]:
    """Random numbers under the published names, in the published shapes."""
    generator = torch.Generator().manual_seed(6)
    weights = {}
    for layer, shape in PUBLISHED_SHAPES.items():
        spread = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        weights[f"{prefix}{layer}.weight"] = spread * torch.randn(shape, generator=generator)
        weights[f"{prefix}{layer}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return weights


@pytest.fixture
def smurf_file(tmp_path: Path) -> Path:
    path = tmp_path / "raft_smurf.pt"
    torch.save(published_weights(), path)
    return path


@torch.no_grad()
def test_the_published_file_gives_the_displacements_of_an_independent_network(
    smurf_file: Path, tmp_path: Path
) -> None:
    report = convert_smurf(smurf_file, tmp_path / "smurf")
    assert report.lines() == [
        f"{2 * len(PUBLISHED_SHAPES)} weights fit",
        "0 missing",
        "0 unexpected",
        "0 misshapen",
    ]
    network = load_network(tmp_path / "smurf")
    reference = independent_raft("large")
    reference.load_state_dict(with_columns_first(published_weights(prefix=""), radius=4))
    first, second = torch.rand(2, 1, 3, 128, 144, generator=torch.Generator().manual_seed(7)).unbind(0)
    expected = reference(2 * first - 1, 2 * second - 1, num_flow_updates=3)[-1]
    assert float(expected.abs().max()) > 0.5
    assert torch.allclose(network(first, second, 3)[-1], expected, atol=1e-4)
    card = read_card(tmp_path / "smurf")
    assert card["variant"] == "large"
    assert card["source"] == "raft_smurf.pt"
    assert card["source_sha256"] == hashlib.sha256(smurf_file.read_bytes()).hexdigest()


@pytest.mark.parametrize("prefix", ["", "module.", "model.raft.", "_orig_mod.module.raft."])
def test_names_of_wrappers_are_left_out(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "state_dict": published_weights(prefix)}, path)
    network, report = read_smurf(path)
    assert report.is_whole
    for name, weight in published_weights(prefix="").items():
        assert torch.equal(network.state_dict()[name], weight)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({name: weight.half() for name, weight in published_weights().items()}, path)
    assert {weight.dtype for weight in read_state_dict(path).values()} == {torch.float32}


def test_every_weight_that_does_not_fit_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    weights = published_weights()
    del weights["raft.mask_predictor.conv.bias"]
    weights["raft.update_block.flow_head.conv2.weight"] = torch.zeros(2, 128, 3, 3)
    weights["raft.refinement.weight"] = torch.zeros(4)
    torch.save(weights, tmp_path / "weights.pth")
    report = convert_smurf(tmp_path / "weights.pth", tmp_path / "out")
    assert report.fitting == 2 * len(PUBLISHED_SHAPES) - 2
    assert report.missing == ("mask_predictor.conv.bias (576,)",)
    assert report.unexpected == ("refinement.weight (4,)",)
    assert report.misshapen == (
        "update_block.flow_head.conv2.weight expected (2, 256, 3, 3), got (2, 128, 3, 3)",
    )
    assert not report.is_whole
    assert not (tmp_path / "out").exists()


def test_another_network_is_not_taken_for_smurf(tmp_path: Path) -> None:
    torch.save(optical_flow.raft_large(weights=None).state_dict(), tmp_path / "stock.pth")
    _, report = read_smurf(tmp_path / "stock.pth")
    assert not report.missing
    assert any("running_mean" in entry for entry in report.unexpected)
    assert not report.is_whole
    assert report.lines()[2:] == [
        "75 unexpected:", *(f"  {entry}" for entry in report.unexpected[:8]), "  and 67 more", "0 misshapen",
    ]  # fmt: skip


class Opens:
    """An object whose unpickling would open a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_files_that_hold_no_weights_are_refused_and_run_no_code(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(DataError, match="does not exist"):
        read_state_dict(path)
    path.write_bytes(b"not a file of torch")
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_state_dict(path)
    torch.save(Opens(tmp_path / "opened"), path)
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_state_dict(path)
    assert not (tmp_path / "opened").exists()
    torch.save([torch.zeros(2)], path)
    with pytest.raises(DataError, match="Got: list"):
        read_state_dict(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(DataError, match="Got: epoch"):
        read_state_dict(path)


def test_damaged_and_doubled_weights_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    weights = published_weights()
    weights["raft.mask_predictor.conv.bias"][7] = torch.nan
    torch.save(weights, path)
    with pytest.raises(DataError, match=r"mask_predictor\.conv\.bias must be finite"):
        read_smurf(path)
    torch.save({**published_weights(), **published_weights("module.")}, path)
    with pytest.raises(DataError, match=r"convnormrelu\.0\.weight twice, once as module\."):
        read_smurf(path)


def test_a_saved_network_is_read_again_and_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    network = Raft("small").train()
    for folder in ("one", "two"):
        save_network(network, tmp_path / folder, {"recipe": "test", "seed": 3})
    found = load_network(tmp_path / "one")
    assert found.variant == "small"
    assert not found.training
    for name, weight in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight)
    card = read_card(tmp_path / "one")
    assert (card["recipe"], card["seed"], card["variant"]) == ("test", 3, "small")
    for name in ("network.safetensors", "card.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["card.json", "network.safetensors"]


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gestalt weights smurf"):
        load_network(tmp_path)
    save_network(Raft("small"), tmp_path, {})
    torn = (tmp_path / "network.safetensors").read_bytes()[:-8]
    (tmp_path / "network.safetensors").write_bytes(torn)
    with pytest.raises(DataError, match="is not the file that"):
        load_network(tmp_path)
    card = {**read_card(tmp_path), "weights_sha256": hashlib.sha256(torn).hexdigest()}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="not a safetensors file"):
        load_network(tmp_path)
    save_network(Raft("small"), tmp_path, {})
    (tmp_path / "card.json").write_text(json.dumps({**read_card(tmp_path), "variant": "large"}))
    with pytest.raises(DataError, match="does not fit its card"):
        load_network(tmp_path)
    for broken, reason in (
        ("{", "is not the card"),
        ('{"format": 9}', "format 9"),
        ("[]", "is not the card"),
    ):
        (tmp_path / "card.json").write_text(broken)
        with pytest.raises(DataError, match=reason):
            load_network(tmp_path)


def test_the_command_converts_prints_the_report_and_fails_on_another_network(
    smurf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["weights", "smurf", str(smurf_file)])
    assert ended.value.code == 0
    assert f"{2 * len(PUBLISHED_SHAPES)} weights fit" in capsys.readouterr().out
    assert load_network(Path("models/optical_flow/smurf")).variant == "large"
    torch.save(Raft("small").state_dict(), "small.pth")
    with pytest.raises(SystemExit) as ended:
        cli.main(["weights", "smurf", "small.pth", "--out", "other"])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "misshapen:" in said.out
    assert "small.pth does not hold SMURF's network; nothing was written" in said.err
    assert not Path("other").exists()
