from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.finetune import FinetuneSettings
from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.data.label_spaces import load_label_space
from gestalt.data.training_state import STATE_FILE
from gestalt.errors import ConfigError, DataError
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import load_network, save_network
from gestalt.network.panoptic_model import PanopticModel, is_normalisation
from gestalt.panoptic import VOID
from gestalt.training.finetuning import (
    FinetunedNetwork,
    LabelledBatches,
    finetune,
    finetuned_card,
    n_steps,
    window_size,
)
from gestalt.training.named_classes import class_names, vocabulary_of
from gestalt.training.parts import Parts
from gestalt.training.sample import TrainingSample
from tests.test_architecture import PACKAGE, ROOT, files_of, imported_modules, python_files
from tests.training.conftest import SIZE, VOCABULARY

CPU = torch.device("cpu")


@pytest.fixture
def settings() -> FinetuneSettings:
    """Four quick steps."""
    embedded: FinetuneSettings = default_settings(
        "finetune", budgets=[1.0], budget_steps=[4], checkpoint_every=2, min_object_px=5
    )
    return embedded


@pytest.fixture
def other(network_settings: NetworkSettings) -> PanopticModel:
    torch.manual_seed(5)
    network = build_network(network_settings, VOCABULARY)
    # Statistics that differ from those of a fresh network.
    network.train()
    with torch.no_grad():
        network.detect(torch.rand(2, 3, *SIZE), 0.9)
    return network.eval()


def quick(
    samples: list[TrainingSample],
    other: PanopticModel | None,
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    cache: Path,
) -> FinetunedNetwork:
    return finetune(
        samples, VOCABULARY, other, network_settings, SIZE, settings, seed=0, device=CPU, cache_dir=cache
    )


def test_a_share_takes_the_steps_of_the_next_larger_budget(settings: FinetuneSettings) -> None:
    table = dataclasses.replace(settings, budgets=[0.01, 0.02, 0.05], budget_steps=[10, 20, 50])
    found = {
        share: n_steps(dataclasses.replace(table, share=share)) for share in (0.001, 0.01, 0.015, 0.05, 0.5)
    }
    assert found == {0.001: 10, 0.01: 10, 0.015: 20, 0.05: 50, 0.5: 50}


@pytest.mark.parametrize(("budgets", "steps"), [([], []), ([0.02, 0.01], [1, 2]), ([0.01], [1, 2])])
def test_budgets_that_say_nothing_are_refused(
    settings: FinetuneSettings, budgets: list[float], steps: list[int]
) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.budgets must ascend"):
        n_steps(dataclasses.replace(settings, budgets=budgets, budget_steps=steps))


@pytest.mark.parametrize("variant", ["embedded", "paper"])
def test_presets_have_steps_for_one_two_and_five_percent(variant: str) -> None:
    preset: FinetuneSettings = default_settings("finetune", variant)
    assert preset.budgets == [0.01, 0.02, 0.05]
    assert n_steps(preset) == preset.budget_steps[0]
    assert (preset.flip_prob, preset.scale_low, preset.scale_high) == (0.5, 0.5, 2.0)
    assert preset.trained == "heads"


def test_windows_keep_the_aspect_of_the_training_images(settings: FinetuneSettings) -> None:
    assert window_size(settings, (192, 384)) == (192, 384)
    assert window_size(dataclasses.replace(settings, height_px=100), (192, 384)) == (100, 192)


def test_a_part_is_the_same_whenever_it_is_asked(
    samples: list[TrainingSample], settings: FinetuneSettings
) -> None:
    first = LabelledBatches(samples, settings, SIZE, 0, CPU)
    second = LabelledBatches(samples, settings, SIZE, 0, CPU)
    second.draw(0)
    ours, theirs = first.draw(5), second.draw(5)
    assert torch.equal(ours.images, theirs.images)
    assert all(torch.equal(a.masks, b.masks) for a, b in zip(ours.targets, theirs.targets, strict=True))
    assert not torch.equal(ours.images, first.draw(6).images)
    # Dealing the images out to two passes changes no image.
    halves = LabelledBatches(samples, settings, SIZE, 0, CPU, Parts(settings.batch_size, per_rank=2))
    assert torch.allclose(torch.cat([halves.draw(5, part).images for part in range(2)]), ours.images)


def test_one_image_fills_a_batch_in_windows_of_its_own(
    samples: list[TrainingSample], settings: FinetuneSettings
) -> None:
    batch = LabelledBatches(samples[:1], settings, (96, 64), 0, CPU).draw(0)
    assert batch.images.shape == (settings.batch_size, 3, 96, 64)
    assert not torch.equal(batch.images[0], batch.images[1])


def test_small_windows_are_padded_and_large_ones_are_not(
    samples: list[TrainingSample], settings: FinetuneSettings
) -> None:
    small = dataclasses.replace(settings, scale_low=0.5, scale_high=0.5)
    large = dataclasses.replace(settings, scale_low=2.0, scale_high=2.0, min_object_px=1)
    void = [
        float(torch.stack([(target.semantic == VOID).float() for target in batch.targets]).mean())
        for batch in (
            LabelledBatches(samples, chosen, SIZE, 0, CPU).draw(0)
            for chosen in (dataclasses.replace(small, min_object_px=1), large)
        )
    ]
    assert void == [0.75, 0.0]


def test_backbone_and_normalisation_stay_bit_for_bit(
    samples: list[TrainingSample],
    other: PanopticModel,
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
) -> None:
    fresh = dataclasses.replace(settings, class_start="fresh")
    result = quick(samples[:2], other, network_settings, fresh, tmp_path)
    before, after = other.weights(), result.network.weights()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith("backbone.") or "running" in name]
    norms = {name for name, module in other.named_modules() if is_normalisation(module)}
    assert norms
    assert not [name for name in changed if name.rpartition(".")[0] in norms]
    for head in ("proposal_network", "instance_heads", "semantic_head"):
        assert [name for name in changed if name.startswith(head)]
    assert result.n_trained == sum(weight.numel() for weight in other.head_parameters())
    assert [row["step"] for row in result.curve] == [0, 1, 2, 3]


def test_the_starting_network_stays_as_it_was(
    samples: list[TrainingSample],
    other: PanopticModel,
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
) -> None:
    before = {name: weight.clone() for name, weight in other.weights().items()}
    everything = dataclasses.replace(settings, trained="all")
    result = quick(samples[:2], other, network_settings, everything, tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in other.weights().items())
    assert not torch.equal(
        result.network.weights()["backbone.trunk.conv1.weight"], before["backbone.trunk.conv1.weight"]
    )


@pytest.mark.parametrize("start", ["network", "scratch"])
def test_interrupted_and_resumed_gives_the_bits_of_an_uninterrupted_run(
    samples: list[TrainingSample],
    other: PanopticModel,
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: str,
) -> None:
    chosen = dataclasses.replace(settings, start=start)
    whole = quick(samples[:2], other, network_settings, chosen, tmp_path / "whole")
    draw = LabelledBatches.draw

    def stop_at_the_last_step(
        own: LabelledBatches, step: int, *arguments: object, **values: object
    ) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return draw(own, step, *arguments, **values)

    monkeypatch.setattr(LabelledBatches, "draw", stop_at_the_last_step)
    with pytest.raises(KeyboardInterrupt):
        quick(samples[:2], other, network_settings, chosen, tmp_path / "parts")
    assert len(list((tmp_path / "parts").rglob(STATE_FILE))) == 1
    monkeypatch.undo()
    resumed = quick(samples[:2], other, network_settings, chosen, tmp_path / "parts")
    ours, theirs = resumed.network.weights(), whole.network.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert resumed.curve == whole.curve


def test_few_labels_are_learnt(
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
) -> None:
    longer = dataclasses.replace(
        settings,
        start="scratch",
        budget_steps=[40],
        scale_low=1.0,
        scale_high=1.0,
        optimiser=dataclasses.replace(settings.optimiser, learning_rate=0.003),
    )
    curve = quick(samples[:2], None, network_settings, longer, tmp_path).curve
    first, last = (
        {name: float(np.mean([row[name] for row in rows])) for name in ("total", "semantic")}
        for rows in (curve[:3], curve[-3:])
    )
    assert last["semantic"] < 0.5 * first["semantic"]
    assert last["total"] < 0.75 * first["total"]


def test_the_card_has_the_names_of_the_classes(
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
) -> None:
    space = load_label_space("cityscapes19")
    torch.manual_seed(0)
    network = build_network(network_settings, vocabulary_of(space))
    result = FinetunedNetwork(network, None, (64, 128), 7, [])
    card = finetuned_card(
        result, network_settings, space, sources={"label/a": "123"}, metrics={"n_images": 1.0}
    )
    save_network(tmp_path, network, card)
    _, read = load_network(tmp_path, CPU)
    assert read == card
    assert read.class_names == class_names(space)
    assert len(read.class_colours) == read.vocabulary.n_pseudo_classes == 19
    assert read.sources == {"label/a": "123"}


def test_contradicting_scales_are_refused(
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
) -> None:
    wrong = dataclasses.replace(settings, scale_low=2.0, scale_high=1.0)
    with pytest.raises(ConfigError, match=r"finetune\.scale_low must not be above"):
        quick(samples[:2], None, network_settings, wrong, tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(
    samples: list[TrainingSample],
    other: PanopticModel,
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
) -> None:
    with torch.no_grad():
        other.weights()["semantic_head.classify.bias"].fill_(float("nan"))
    with pytest.raises(DataError, match=r"finetune: .* not finite at step 0"):
        quick(samples[:2], other, network_settings, settings, tmp_path)
    assert list(tmp_path.rglob("not_finite_*.pt"))


def test_too_little_memory_says_what_to_lower(
    samples: list[TrainingSample],
    other: PanopticModel,
    network_settings: NetworkSettings,
    settings: FinetuneSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(type(other), "forward", fail)
    with pytest.raises(ConfigError, match=r"lower finetune\.batch_size or finetune\.height_px"):
        quick(samples[:2], other, network_settings, settings, tmp_path)


LEARNS_FROM_LABELS = {
    PACKAGE / "training" / f"{name}.py" for name in ("finetuning", "labelled_frames", "starting_point")
}


def reached_files(script: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    waiting = {script}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= {file for name in imported_modules(path) for file in files_of(name)} - seen
    yield from seen


@pytest.mark.parametrize(
    "script",
    python_files(ROOT / "stages", ROOT / "flows"),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_no_stage_and_no_flow_learns_from_labels(script: Path) -> None:
    assert not LEARNS_FROM_LABELS & set(reached_files(script))


def test_the_command_does() -> None:
    assert set(reached_files(PACKAGE / "commands" / "finetune.py")) >= LEARNS_FROM_LABELS
