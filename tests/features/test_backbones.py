"""Architecture from tensors, refusals that name what is wrong, and what the card says."""

import pickle
from pathlib import Path

import pytest
import torch

from gestalt.errors import ConfigError, DataError
from gestalt.features.backbones import infer_vit_layout, open_backbone, read_backbone
from gestalt.features.dense import save_features
from gestalt.features.resnet import ResNetFeatures
from gestalt.features.timm_vit import TimmFeatures
from gestalt.features.vit import PUBLISHED_OFFSET, VisionTransformer, VitLayout
from gestalt.features.vit_features import VitFeatures

LAYOUT = VitLayout(patch_size=4, width=128, depth=2, heads=2, grid=5, position_offset=PUBLISHED_OFFSET)


def weights(layout: VitLayout = LAYOUT) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return VisionTransformer(layout).state_dict()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT,
        VitLayout(16, 384, 12, 6, grid=14, position_offset=PUBLISHED_OFFSET),
        VitLayout(8, 768, 12, 12, grid=28, position_offset=PUBLISHED_OFFSET),
        VitLayout(8, 192, 6, 3, mlp_ratio=3.0, grid=28, position_offset=PUBLISHED_OFFSET),
    ],
)
def test_sizes_follow_from_the_tensors(layout: VitLayout) -> None:
    with torch.device("meta"):
        state = VisionTransformer(layout).state_dict()
    assert infer_vit_layout(state) == layout


def test_a_state_dict_gives_its_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "dino_deitsmall8_pretrain.pth", weights())
    features, images = read_backbone(path), torch.rand(1, 3, 13, 9)
    own = VitFeatures(LAYOUT)
    own.network.load_state_dict(weights())
    assert torch.equal(features(images), own.eval()(images))
    source = features.card()["source"]
    assert source["file"] == path.name
    assert source["licence"] == "Apache-2.0 (by the file's name)"
    assert len(source["sha256"]) == 64
    keys = read_backbone(path, facet="keys")
    assert torch.equal(keys(images), own.extract(images).keys)


def test_a_teacher_is_taken_and_heads_are_listed(tmp_path: Path) -> None:
    teacher = {f"backbone.{name}": value for name, value in weights().items()}
    teacher["head.last_layer.weight_v"] = torch.ones(2)
    path = saved(tmp_path / "checkpoint.pth", {"teacher": teacher, "student": {}, "epoch": 3})
    backbone = open_backbone(path)
    assert backbone.report.is_whole
    assert backbone.dropped == ("head.last_layer.weight_v",)
    assert backbone.features.card()["source"]["part"] == "teacher"
    assert backbone.features.card()["source"]["licence"] == "unknown"


def test_a_saved_folder_is_read_as_well(tmp_path: Path) -> None:
    made = VitFeatures(LAYOUT).eval()
    save_features(made, tmp_path)
    images = torch.rand(1, 3, 12, 8)
    assert torch.equal(read_backbone(tmp_path)(images), made(images))
    # The file of the folder alone is weights like others, but its positions count as published.
    assert read_backbone(tmp_path / "weights.safetensors").card()["layout"]["position_offset"] == 0.1


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    state = weights()
    del state["blocks.0.attn.qkv.weight"]
    state["decoder.weight"] = torch.ones(1)
    state["blocks.1.mlp.fc2.weight"] = torch.ones(128, 3)
    path = saved(tmp_path / "a.pth", state)
    with pytest.raises(DataError) as refused:
        read_backbone(path)
    message = str(refused.value)
    assert "blocks.0.attn.qkv.weight (384, 128)" in message
    assert "decoder.weight (1,)" in message
    assert "blocks.1.mlp.fc2.weight expected (128, 512), got (128, 3)" in message
    assert not open_backbone(path).report.is_whole


def test_another_patch_than_expected_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", weights())
    assert read_backbone(path, patch_size=4).stride == 4
    with pytest.raises(DataError, match=r"patches must be 8 px\. Got: 4 px"):
        read_backbone(path, patch_size=8)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"features.0.weight": torch.ones(3)})
    with pytest.raises(DataError, match=r"must hold a vision transformer.*1 tensors: features.0.weight"):
        read_backbone(path)
    state = weights()
    state["pos_embed"] = torch.ones(1, 25, 128)
    with pytest.raises(DataError, match="25 positions"):
        read_backbone(saved(path, state))
    with pytest.raises(ConfigError, match="facet must be one of"):
        read_backbone(saved(path, weights()), facet="cls")


def test_resnets_in_the_forms_of_torchvision_and_detectron2(tmp_path: Path) -> None:
    made = ResNetFeatures(32)
    state = {name: torch.rand_like(value.float()) for name, value in made.network.state_dict().items()}
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    ours = read_backbone(saved(tmp_path / "a.pth", {**state, "fc.weight": torch.ones(1)}), stride=32)
    assert isinstance(ours, ResNetFeatures)
    assert ours.stride == 32
    theirs = {}
    for name, value in state.items():
        block = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        for number in (1, 2, 3):
            block = block.replace(f"bn{number}.", f"conv{number}.norm.")
        for number in (4, 3, 2, 1):
            block = block.replace(f"layer{number}.", f"res{number + 1}.")
        theirs[block if block.startswith("res") else f"stem.{block}"] = value.numpy()
    path = tmp_path / "dino_RN50_pretrain_d2_format.pkl"
    path.write_bytes(pickle.dumps({"model": theirs, "matching_heuristics": True}))
    converted = read_backbone(path, stride=32)
    for name, value in ours.network.state_dict().items():
        assert torch.equal(converted.network.state_dict()[name], value)
    assert converted.card()["source"]["licence"].startswith("Apache-2.0 (DINO)")


def test_architectures_of_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    made = TimmFeatures("vit_small_patch14_reg4_dinov2")
    path = saved(tmp_path / "a.pth", made.network.state_dict())
    read = read_backbone(path)
    assert isinstance(read, TimmFeatures)
    assert read.architecture == made.architecture
    images = torch.rand(1, 3, 30, 30)
    assert torch.equal(read(images), made(images))
    for other, what in (
        ("vit_small_patch14_dinov2", r"pos_embed expected \(1, 1370, 384\), got \(1, 1369, 384\)"),
        ("vit_small_patch16_224", r"proj.weight expected \(384, 3, 16, 16\), got \(384, 3, 14, 14\)"),
    ):
        with pytest.raises(DataError, match=rf"not hold a whole {other}(.|\n)*{what}"):
            read_backbone(path, architecture=other)
