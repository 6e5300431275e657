"""ResNet-50 features against torchvision, and detectron2's tensor names."""

from pathlib import Path

import pytest
import torch

from gestalt.errors import ConfigError, ShapeError
from gestalt.features.dense import normalise, save_features
from gestalt.features.loading import load_features
from gestalt.features.resnet import ResNetFeatures, to_torchvision_names


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    """The network of torchvision with random weights and batch statistics."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return network


def features_of(reference: torch.nn.Module, stride: int) -> ResNetFeatures:
    made = ResNetFeatures(stride)
    state = {name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")}
    made.network.load_state_dict(state)
    return made


def test_features_are_the_last_stage_of_torchvision(reference: torch.nn.Module) -> None:
    made, images = features_of(reference, 32), torch.rand(2, 3, 64, 96)
    seen = []
    hook = reference.layer4.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        reference(normalise(images))
    hook.remove()
    grid = made.extract(images)
    torch.testing.assert_close(grid.tokens, seen[0], atol=1e-5, rtol=1e-5)
    assert grid.tokens.shape == (2, 2048, 2, 3)
    assert grid.keys is None
    assert grid.cls is None
    assert bool(grid.valid.all())


def test_the_dilated_stage_has_twice_the_cells_and_the_same_weights(reference: torch.nn.Module) -> None:
    grid = features_of(reference, 16)(torch.rand(1, 3, 70, 90))
    assert grid.shape == (1, 2048, 5, 6)
    assert torch.isfinite(grid).all()


def test_images_of_a_padded_batch_are_encoded_alone(reference: torch.nn.Module) -> None:
    made, images = features_of(reference, 32), torch.rand(2, 3, 64, 64)
    together = made.extract(images, torch.tensor([[40, 64], [64, 32]]))
    torch.testing.assert_close(together.tokens[0, :, :2], made(images[:1, :, :40])[0])
    torch.testing.assert_close(together.tokens[1, :, :, :1], made(images[1:, :, :, :32])[0])
    assert together.valid.tolist() == [[[True, True], [True, True]], [[True, False], [True, False]]]
    assert not together.tokens[1, :, :, 1:].any()


def test_training_mode_does_not_reach_the_batch_statistics(reference: torch.nn.Module) -> None:
    made, images = features_of(reference, 32), torch.rand(1, 3, 32, 32)
    before = made(images)
    assert torch.equal(made.train()(images), before)
    assert not made.network.training


def test_names_of_detectron2_are_renamed_one_to_one(reference: torch.nn.Module) -> None:
    own = [name for name in reference.state_dict() if "num_batches" not in name and "fc." not in name]

    def as_detectron2(name: str) -> str:
        """The other direction, word by word."""
        words = name.split(".")
        stem = [] if words[0].startswith("layer") else ["stem"]
        for place, word in enumerate(words):
            if word.startswith("layer"):
                words[place] = f"res{int(word[5:]) + 1}"
            elif word.startswith("bn"):
                words[place] = f"conv{word[2:]}.norm"
        joined = ".".join([*stem, *words])
        return joined.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")

    theirs = {as_detectron2(name): torch.tensor(float(number)) for number, name in enumerate(own)}
    assert "res2.0.shortcut.norm.running_var" in theirs
    assert "stem.conv1.norm.weight" in theirs
    found = to_torchvision_names(theirs)
    assert list(found) == own
    assert to_torchvision_names(found) == found


def test_saved_equals_loaded(tmp_path: Path, reference: torch.nn.Module) -> None:
    made, images = features_of(reference, 16), torch.rand(1, 3, 32, 32)
    save_features(made, tmp_path)
    loaded = load_features(tmp_path, facet="tokens")
    assert (loaded.stride, loaded.dimension, loaded.uses_position) == (16, 2048, False)
    assert torch.equal(loaded(images), made(images))
    with pytest.raises(ConfigError, match="'resnet' features have no keys"):
        load_features(tmp_path, facet="keys")


def test_wrong_strides_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be 16 or 32\. Got: 8"):
        ResNetFeatures(8)
    with pytest.raises(ShapeError, match="at least 16 x 16"):
        ResNetFeatures(16)(torch.rand(1, 3, 15, 20))
