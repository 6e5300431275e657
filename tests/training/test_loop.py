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
from gestalt.network import panoptic_network
from gestalt.network.architecture import build_network
from gestalt.training.batch import TrainingBatch, collate
from gestalt.training.guided import train_guided
from gestalt.training.loop import Training, learning_rate, make_optimiser, run_training
from gestalt.training.parts import Parts
from gestalt.training.resume import TrainingState
from gestalt.training.sample import TrainingSample
from gestalt.training.step_batches import StepBatches
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
        DataError, match=r"the loss is not finite at step 0 \(.*semantic nan.*lower guided\.optimiser"
    ) as error:
        train_guided(
            samples, VOCABULARY, network_settings, guided_settings, seed=0, device=CPU, cache_dir=tmp_path
        )
    (path,) = tmp_path.rglob("not_finite_000000_0.pt")
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


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError("Unable to allocate 3 GiB"),
    ],
    ids=["gpu", "cpu", "numpy"],
)
def test_running_out_of_memory_says_what_to_change(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def full(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr("gestalt.network.panoptic_network.semantic_loss", full)
    message = (
        r"cpu ran out of memory at step 0 with 2 images at once; raise guided\.optimiser\.accumulate.* lower"
    )
    with pytest.raises(ConfigError, match=message):
        train_guided(
            samples, VOCABULARY, network_settings, guided_settings, seed=0, device=CPU, cache_dir=tmp_path
        )


def test_any_other_error_of_the_network_is_not_taken_for_a_lack_of_memory(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("gestalt.network.panoptic_network.semantic_loss", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train_guided(
            samples, VOCABULARY, network_settings, guided_settings, seed=0, device=CPU, cache_dir=tmp_path
        )


class _Explode(torch.autograd.Function):
    """A loss that is finite and whose gradient is not."""

    @staticmethod
    def forward(_: object, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(_: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_a_weight(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = panoptic_network.semantic_loss
    monkeypatch.setattr(
        "gestalt.network.panoptic_network.semantic_loss", lambda *a: _Explode.apply(original(*a))
    )
    steps = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: steps.append(1))
    with pytest.raises(DataError, match=r"gradients are not finite at step 0 \(.*gradient_norm (inf|nan)\)"):
        train_guided(
            samples, VOCABULARY, network_settings, guided_settings, seed=0, device=CPU, cache_dir=tmp_path
        )
    assert steps == []
    assert len(list(tmp_path.rglob("not_finite_000000_0.pt"))) == 1


def test_half_precision_learns_nearly_what_full_precision_learns(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    curves = {}
    for mixed in (False, True):
        optimiser = dataclasses.replace(guided_settings.optimiser, mixed_precision=mixed)
        settings = dataclasses.replace(guided_settings, steps=3, optimiser=optimiser)
        curves[mixed] = train_guided(
            samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
        ).curve
    for full, half in zip(curves[False], curves[True], strict=True):
        assert half["total"] == pytest.approx(full["total"], rel=0.05)
    assert curves[True] != curves[False]


class Repeated(StepBatches[None]):
    """Images that come twice, so that both halves of a batch have the means of the whole."""

    def __init__(self, samples: list[TrainingSample], n_images: int, accumulate: int) -> None:
        self.batch = collate(samples[:n_images] * 2, 1)
        super().__init__("guided", 2 * n_images, 0, CPU, Parts(2 * n_images, accumulate))

    def load(self, step: int, part: int = 0) -> list[None]:
        return []

    def draw(self, step: int, part: int = 0, *, loaded: object = None) -> TrainingBatch:
        places = self._parts.places(part)
        return TrainingBatch(self.batch.images[list(places)], [self.batch.targets[n] for n in places])


def repeated(samples: list[TrainingSample], accumulate: int, folder: Path) -> Training:
    """One step over two images that come twice."""
    return Training(
        name="guided", steps=1, seed=0, device=CPU,
        settings=dataclasses.replace(default_settings("guided").optimiser, clip_norm=1e9),
        drop=None, parts=Parts(4, accumulate), batches=Repeated(samples, 2, accumulate),
        after_step=lambda _: None, state=TrainingState(folder, {"accumulate": accumulate}, {}), checkpoint_every=10,
    )  # fmt: skip


def test_a_step_in_two_passes_has_the_gradients_of_the_whole_batch(
    tmp_path: Path, samples: list[TrainingSample], network_settings: NetworkSettings
) -> None:
    # Samplers that take everything there is leave nothing to chance.
    everything = 10**6
    settings = dataclasses.replace(
        network_settings,
        proposals=dataclasses.replace(network_settings.proposals, samples=everything),
        instances=dataclasses.replace(network_settings.instances, samples=everything),
    )
    gradients, rows = [], []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        network = build_network(settings, VOCABULARY).train()
        network.freeze_normalisation()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
        training = repeated(samples, accumulate, tmp_path)
        run_training(training, network, optimiser)
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
        rows += training.state.curve
    for name, whole in gradients[0].items():
        assert whole is not None, name
        torch.testing.assert_close(gradients[1][name], whole, atol=1e-6, rtol=1e-4, msg=name)
    assert rows[0] == pytest.approx(rows[1], abs=2e-5)


def test_a_batch_without_any_object_is_a_step_like_any_other(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    empty = [
        TrainingSample(
            s.image, np.where(s.semantic == 0, 255, s.semantic).astype(np.uint8), s.instance * 0, ()
        )
        for s in samples
    ]
    settings = dataclasses.replace(guided_settings, steps=2)
    result = train_guided(
        empty, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path
    )
    for row in result.curve:
        assert row["mask"] == row["box"] == row["proposal_box"] == 0
        assert row["class"] == pytest.approx(0, abs=2)
        assert row["semantic"] > 0
        assert np.isfinite(row["gradient_norm"])


def test_pictures_come_every_so_many_steps(
    tmp_path: Path,
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
) -> None:
    seen = {}
    settings = dataclasses.replace(guided_settings, steps=5, picture_every=2)
    shown = train_guided(
        samples, VOCABULARY, network_settings, settings,
        seed=0, device=CPU, cache_dir=tmp_path / "a", show=seen.__setitem__,
    )  # fmt: skip
    assert list(seen) == [1, 3]
    assert all(picture.dtype == np.uint8 and picture.shape[0] == 2 * 64 + 4 for picture in seen.values())
    plain = train_guided(
        samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=tmp_path / "b"
    )
    assert shown.curve == plain.curve
