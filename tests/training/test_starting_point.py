from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gestalt.config.finetune import FinetuneSettings
from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.errors import ConfigError
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_model import PanopticModel, is_normalisation
from gestalt.training.sample import TrainingSample
from gestalt.training.starting_point import StartingPoint, find_start
from tests.training.conftest import SIZE, VOCABULARY

CPU = torch.device("cpu")


@pytest.fixture
def other(network_settings: NetworkSettings) -> PanopticModel:
    torch.manual_seed(5)
    return build_network(network_settings, VOCABULARY).eval()


def start_of(
    other: PanopticModel | None,
    network_settings: NetworkSettings,
    samples: list[TrainingSample],
    seed: int = 0,
    **values: object,
) -> StartingPoint:
    settings: FinetuneSettings = default_settings("finetune", **values)
    return find_start(
        other,
        network_settings,
        VOCABULARY,
        samples[:2],
        settings,
        seed=seed,
        purpose="test",
        rows=SIZE[0],
        device=CPU,
    )


def trained_names(start: StartingPoint, trained: str) -> set[str]:
    chosen = {id(weight) for weight in start.trained_parameters(trained)}
    return {name for name, weight in start.network.named_parameters() if id(weight) in chosen}


def normalisation_names(network: PanopticModel) -> set[str]:
    return {
        f"{name}.{weight}"
        for name, module in network.named_modules()
        if is_normalisation(module)
        for weight, _ in module.named_parameters(recurse=False)
    }


def test_a_network_keeps_everything_but_outputs_of_classes(
    other: PanopticModel, network_settings: NetworkSettings, samples: list[TrainingSample]
) -> None:
    start = start_of(other, network_settings, samples, class_start="fresh")
    before, after = other.weights(), start.network.weights()
    differing = {name for name in after if not torch.equal(before[name], after[name])}
    assert differing
    assert all(".classify." in name for name in differing)
    names = trained_names(start, "heads")
    assert not [name for name in names if name.startswith("backbone.")]
    everything = {name for name, _ in start.network.named_parameters()}
    frozen = normalisation_names(start.network)
    assert names == {name for name in everything if not name.startswith("backbone.")} - frozen
    assert trained_names(start, "all") == everything - frozen


def test_heads_only_are_what_self_training_trains_too(
    other: PanopticModel, network_settings: NetworkSettings, samples: list[TrainingSample]
) -> None:
    start = start_of(other, network_settings, samples)
    heads = {id(weight) for weight in start.network.head_parameters()}
    assert {id(weight) for weight in start.trained_parameters("heads")} == heads


def test_a_backbone_has_fresh_heads_whose_normalisation_learns(
    other: PanopticModel, network_settings: NetworkSettings, samples: list[TrainingSample]
) -> None:
    start = start_of(other, network_settings, samples, start="backbone")
    before, after = other.weights(), start.network.weights()
    assert all(torch.equal(before[name], after[name]) for name in after if name.startswith("backbone."))
    name = "instance_heads.stages.0.first.weight"
    assert not torch.equal(before[name], after[name])
    # Fresh heads depend on the seed alone.
    fresh = start_of(None, network_settings, samples, start="scratch").network.weights()
    assert torch.equal(fresh[name], after[name])
    assert not torch.equal(
        fresh[name], start_of(other, network_settings, samples, 1, start="backbone").network.weights()[name]
    )
    assert trained_names(start, "heads") == {
        name for name, _ in start.network.named_parameters() if not name.startswith("backbone.")
    }
    start.network.train()
    start.freeze_normalisation()
    is_learning = {
        name: module.training for name, module in start.network.named_modules() if is_normalisation(module)
    }
    assert is_learning
    assert all(flag != name.startswith("backbone.") for name, flag in is_learning.items())


def test_from_scratch_everything_learns(
    network_settings: NetworkSettings, samples: list[TrainingSample]
) -> None:
    start = start_of(None, network_settings, samples, start="scratch")
    assert trained_names(start, "heads") == {name for name, _ in start.network.named_parameters()}


def test_a_trunk_from_a_file_stays_and_the_pyramid_learns(
    other: PanopticModel, network_settings: NetworkSettings, samples: list[TrainingSample], tmp_path: Path
) -> None:
    prefix = "backbone.trunk."
    trunk = {
        name.removeprefix(prefix): weight
        for name, weight in other.weights().items()
        if name.startswith(prefix)
    }
    torch.save(trunk, tmp_path / "trunk.pth")
    start = start_of(
        None, network_settings, samples, start="scratch", initial_backbone=str(tmp_path / "trunk.pth")
    )
    after = start.network.weights()
    assert all(torch.equal(after[prefix + name], weight) for name, weight in trunk.items())
    names = trained_names(start, "heads")
    assert not [name for name in names if name.startswith(prefix)]
    assert [name for name in names if name.startswith("backbone.pyramid.")]


def test_without_a_network_only_scratch_can_start(
    network_settings: NetworkSettings, samples: list[TrainingSample]
) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.start 'backbone' needs a network"):
        start_of(None, network_settings, samples, start="backbone")
