"""Files of weights in every form, and files that are none or would run code."""

import argparse
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gestalt.errors import DataError
from gestalt.features.backbone_files import read_backbone_file

TENSORS = {
    "norm.weight": torch.arange(4.0),
    "blocks.0.attn.qkv.weight": torch.ones(2, 3, dtype=torch.float16),
}


class Malicious:
    """A pickle that would make a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """What a careless reader would call."""
        return Path.touch, (self.path,)


def wrapped(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in TENSORS.items()}


def assert_read(path: Path, part: str = "", dropped: tuple[str, ...] = ()) -> None:
    file = read_backbone_file(path)
    assert set(file.tensors) == set(TENSORS)
    for name, value in file.tensors.items():
        assert torch.equal(value, TENSORS[name].float())
        assert value.dtype == torch.float32
    assert (file.part, file.dropped) == (part, dropped)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_state_dict(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pth")
    assert_read(tmp_path / "a.pth")


def test_a_state_dict_of_the_old_format(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_read(tmp_path / "a.pth")


def test_safetensors(tmp_path: Path) -> None:
    save_file(wrapped("network."), tmp_path / "a.bin")
    assert_read(tmp_path / "a.bin")


@pytest.mark.parametrize("old", [False, True])
def test_a_training_checkpoint_gives_its_teacher(tmp_path: Path, old: bool) -> None:
    head = {"head.mlp.0.weight": torch.ones(1), "head.last_layer.weight_g": torch.ones(1)}
    other = {name: value + 1 for name, value in wrapped("module.backbone.").items()}
    checkpoint = {
        "student": {**other, **{f"module.{name}": value for name, value in head.items()}},
        "teacher": {**wrapped("backbone."), **head},
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 7,
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
        "dino_loss": {"center": torch.zeros(3)},
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not old)
    assert_read(path, part="teacher", dropped=tuple(head))
    del checkpoint["teacher"]
    checkpoint["student"] = {**wrapped("module.backbone."), "module.head.last_layer.weight_g": torch.ones(1)}
    torch.save(checkpoint, path)
    assert_read(path, part="student", dropped=("module.head.last_layer.weight_g",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickled_arrays_of_detectron2(tmp_path: Path, protocol: int) -> None:
    model = {f"backbone.bottom_up.{name}": value.numpy() for name, value in TENSORS.items()}
    model |= {"backbone.fpn_lateral2.weight": np.ones(2), "proposal_generator.x": np.ones(1)}
    content = {"model": model, "__author__": "somebody", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert_read(tmp_path / "a.pkl", "model", ("backbone.fpn_lateral2.weight", "proposal_generator.x"))


def test_pickled_arrays_of_older_numpy_and_python(tmp_path: Path) -> None:
    content = pickle.dumps({"norm.weight": np.arange(3, dtype=">f4")}, protocol=2)
    renamed = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in renamed
    (tmp_path / "a.pkl").write_bytes(renamed)
    assert read_backbone_file(tmp_path / "a.pkl").tensors["norm.weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", ["pickle", "zip", "old"])
def test_code_in_a_file_is_refused_and_never_run(tmp_path: Path, form: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights.pth"
    content = {**TENSORS, "extra": Malicious(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DataError, match="code is never run"):
        read_backbone_file(path)
    assert not mark.exists()
    # The file is a real trap: a careless reader springs it.
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors", "pickle"])
def test_truncated_files_are_refused(tmp_path: Path, form: str, share: float) -> None:
    path, tensors = tmp_path / "weights", {"norm.weight": torch.rand(3000)}
    if form == "safetensors":
        save_file(tensors, path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in tensors.items()}))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_backbone_file(path)


def test_files_without_a_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(DataError, match="gestalt weights list"):
        read_backbone_file(path)
    for content, message in (
        ([1, 2], "must hold a state dict"),
        ({"epoch": 3}, "must hold names and tensors. Got: epoch"),
        ({"module.x": torch.ones(1), "x": torch.ones(1)}, "x twice, once as x"),
        ({"x": torch.tensor([1.0, float("nan")])}, "x must be finite"),
    ):
        torch.save(content, path)
        with pytest.raises(DataError, match=message):
            read_backbone_file(path)
    path.write_text("<html>not found</html>")
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_backbone_file(path)
