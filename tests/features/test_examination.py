"""What is said of a file of weights."""

from pathlib import Path

import torch

from gestalt.features.dense import save_features
from gestalt.features.examination import examine_backbone
from gestalt.features.vit import VisionTransformer, VitLayout
from gestalt.features.vit_features import VitFeatures

LAYOUT = VitLayout(patch_size=4, width=64, depth=1, heads=1, grid=5)


def test_a_whole_file(tmp_path: Path) -> None:
    teacher = {f"backbone.{name}": value for name, value in VisionTransformer(LAYOUT).state_dict().items()}
    heads = {f"head.mlp.{number}.weight": torch.ones(1) for number in range(10)}
    torch.save({"teacher": {**teacher, **heads}}, tmp_path / "a.pth")
    found = examine_backbone(tmp_path / "a.pth")
    assert found.is_usable
    assert found.lines[:4] == (
        "architecture: ViT 64 wide, 1 deep, patch 4",
        "cells: 4 px apart, 64 numbers each",
        "file: a.pth",
        "part: teacher",
    )
    text = "\n".join(found.lines)
    assert "licence: unknown" in text
    assert "10 tensors of heads left out: head.mlp.0.weight" in text
    assert f"{len(teacher)} weights fit" in text
    assert "image of 16 x 24 px -> 64x4x6" in text


def test_a_file_with_a_hole(tmp_path: Path) -> None:
    state = VisionTransformer(LAYOUT).state_dict()
    del state["norm.bias"]
    torch.save(state, tmp_path / "a.pth")
    found = examine_backbone(tmp_path / "a.pth")
    assert not found.is_usable
    assert "  norm.bias (64,)" in found.lines
    assert found.lines[-1].startswith("not usable")


def test_a_saved_folder(tmp_path: Path) -> None:
    features = VitFeatures(LAYOUT, source={"licence": "MIT", "file": "b.pth"})
    save_features(features.eval(), tmp_path)
    found = examine_backbone(tmp_path)
    assert found.is_usable
    assert {"file: b.pth", "licence: MIT"} <= set(found.lines)


def test_features_that_overflow_are_not_usable(tmp_path: Path) -> None:
    state = VisionTransformer(LAYOUT).state_dict()
    state["norm.weight"] = torch.full((64,), 3e38)
    state["patch_embed.proj.weight"] *= 1e6
    torch.save(state, tmp_path / "a.pth")
    found = examine_backbone(tmp_path / "a.pth")
    assert not found.is_usable
    assert found.lines[-1].endswith("not usable: NaN or infinity")
