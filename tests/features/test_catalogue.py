"""The catalogue of published backbones: complete, and its numbers those of the architectures."""

import hashlib
import sys

import pytest
import torch

from gestalt.errors import ConfigError
from gestalt.features import catalogue
from gestalt.features.catalogue import PublishedBackbone, licence_of, published_backbone, read_catalogue
from gestalt.features.resnet import build_resnet
from gestalt.features.vit import VisionTransformer, VitLayout


def test_entries_are_whole_and_distinct() -> None:
    entries = read_catalogue().values()
    assert {"dino_vits16", "dino_vits8", "dino_vitb16", "dino_vitb8", "dino_resnet50"} <= set(
        read_catalogue()
    )
    assert len({entry.file for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.licence
        assert entry.architecture
        assert entry.url is None or entry.url.endswith(f"/{entry.file}")


@pytest.mark.parametrize(
    ("name", "patch", "width", "heads"),
    [("dino_vits16", 16, 384, 6), ("dino_vits8", 8, 384, 6), ("dino_vitb16", 16, 768, 12), ("dino_vitb8", 8, 768, 12)],
)  # fmt: skip
def test_sizes_are_those_of_the_networks(name: str, patch: int, width: int, heads: int) -> None:
    with torch.device("meta"):
        state = VisionTransformer(VitLayout(patch, width, 12, heads, grid=224 // patch)).state_dict()
    entry = published_backbone(name)
    assert entry.tensors == sum(value.numel() for value in state.values())
    assert entry.megabytes == pytest.approx(entry.tensors * 4e-6)


def test_size_of_the_resnet_is_that_of_the_network() -> None:
    with torch.device("meta"):
        state = build_resnet(dilated=False).state_dict()
    n_numbers = sum(value.numel() for name, value in state.items() if "num_batches" not in name)
    assert published_backbone("dino_resnet50").tensors == n_numbers


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg", "dinov2_vitb14_reg"])
def test_sizes_of_dinov2_are_those_of_timm_and_what_only_the_authors_keep(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    entry = published_backbone(name)
    with torch.device("meta"):
        network = timm.create_model(entry.architecture, num_classes=0)
    width = network.num_features
    # A token for hidden patches; with registers also a position of CLS, which timm adds to CLS itself.
    extra = width * (2 if "_reg" in name else 1)
    assert entry.tensors == extra + sum(value.numel() for value in network.state_dict().values())


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match="called 'dino_vitx'; known: dino_vits16, dino_vits8"):
        published_backbone("dino_vitx")


def test_the_hash_in_a_file_name_is_expected_of_the_file() -> None:
    assert published_backbone("dinov3_vits16").expected_hash == "08c60483"
    assert published_backbone("dino_vits8").expected_hash is None


def test_licence_by_hash_goes_before_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    entry = PublishedBackbone("mine", "ViT-S/8", "mine.pth", None, "MIT", None, digest)
    monkeypatch.setattr(catalogue, "read_catalogue", lambda: {"mine": entry})
    assert licence_of("other.pth", digest) == "MIT"
    assert licence_of("mine.pth", "0" * 64) == "MIT (by the file's name)"
    assert licence_of("other.pth", "0" * 64) == "unknown"


def test_without_a_reader_of_yaml_no_licence_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    read_catalogue.cache_clear()
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    assert licence_of("dino_deitsmall8_pretrain.pth", "0" * 64) == "unknown"
