from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.config.training import GuidedSettings
from gestalt.errors import ConfigError, DataError
from gestalt.network.panoptic_network import build_network
from gestalt.training.guided import train_guided
from gestalt.training.loop import learning_rate, make_optimiser
from gestalt.training.sample import TrainingSample
from tests.training.conftest import VOCABULARY

CPU = torch.device("cpu")


def test_the_step_size_warms_up_and_ends_at_its_share() -> None:
    settings = default_settings("guided").optimiser
    settings = dataclasses.replace(settings, learning_rate=1.0, warmup_steps=10, final_share=0.1)
    assert learning_rate(0, 1000, settings) == pytest.approx(0.1)
    assert learning_rate(9, 1000, settings) == pytest.approx(1.0, abs=1e-3)
    assert learning_rate(999, 1000, settings) == pytest.approx(0.1, abs=1e-3)


def test_the_papers_schedule_is_constant() -> None:
    settings = default_settings("guided", "paper")
    assert {learning_rate(step, settings.steps, settings.optimiser) for step in range(0, 4000, 500)} == {1e-4}


def test_normalisation_and_biases_are_not_decayed(network_settings: NetworkSettings) -> None:
    network = build_network(network_settings, VOCABULARY)
    optimiser = make_optimiser(network, network.parameters(), default_settings("guided").optimiser)
    decayed = {id(weight) for weight in optimiser.param_groups[0]["params"]}
    assert optimiser.param_groups[0]["weight_decay"] > 0
    assert optimiser.param_groups[1]["weight_decay"] == 0
    for name, weight in network.named_parameters():
        assert (id(weight) in decayed) == (weight.ndim > 1), name
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(network.parameters()))


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr("gestalt.network.panoptic_network.semantic_loss", broken)
    with pytest.raises(
        DataError, match=r"not finite at step 0 \(semantic nan.*lower guided\.optimiser"
    ) as error:
        train_guided(
            samples, VOCABULARY, network_settings, guided_settings, seed=0, device=CPU, cache_dir=tmp_path
        )
    (path,) = tmp_path.rglob("not_finite_000000.pt")
    assert str(path) in str(error.value)
    saved = torch.load(path, weights_only=True)
    assert saved["images"].shape == (2, 3, 64, 128)
    assert len(saved["targets"]) == 2


def test_half_precision_trains_with_finite_losses(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    optimiser = dataclasses.replace(guided_settings.optimiser, mixed_precision=True)
    settings = dataclasses.replace(guided_settings, steps=3, optimiser=optimiser)
    result = train_guided(
        samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
    )
    assert len(result.curve) == 3
    assert {weight.dtype for weight in result.network.parameters()} == {torch.float32}


def test_running_out_of_memory_says_what_to_lower(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr("gestalt.network.panoptic_network.semantic_loss", full)
    with pytest.raises(ConfigError, match=r"ran out of memory at step 0.*lower guided\.batch_size"):
        train_guided(
            samples, VOCABULARY, network_settings, guided_settings, seed=0, device=CPU, cache_dir=tmp_path
        )


def test_images_enter_the_network_between_zero_and_one(samples: list[TrainingSample]) -> None:
    from gestalt.training.batch import images_to_tensor

    tensor = images_to_tensor([np.full((4, 6, 3), 255, np.uint8), np.zeros((4, 6, 3), np.uint8)])
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor[0].min() == 1.0
    assert tensor[1].max() == 0.0
