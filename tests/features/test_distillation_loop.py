"""The training: same steps same bits, across interruptions, parts of a batch and processes; and it learns."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing, nn

from gestalt.config.distillation import DistillationSettings
from gestalt.data.ranks import joined
from gestalt.data.training_state import STATE_FILE
from gestalt.errors import ConfigError, DataError
from gestalt.features import distillation_loop
from gestalt.features.distillation_loop import (
    DistillationTraining,
    TrainedBackbone,
    check_settings,
    train_features,
)
from gestalt.features.multi_crop import crop_frames
from gestalt.features.training_images import TrainingImages, make_images
from tests.features.small_distillation import SIZE, noisy_frames, noisy_images, quick_settings

CPU = torch.device("cpu")


class PowerCut(Exception):
    """Stands for one."""


@pytest.fixture(scope="module")
def images() -> TrainingImages:
    return noisy_images()


def train(images: TrainingImages, folder: Path, *overrides: str, **values: Any) -> TrainedBackbone:
    values = {"seed": 0, "device": CPU, "cache_dir": folder, **values}
    return train_features(images, quick_settings(*overrides), **values)


def same(first: nn.Module, second: nn.Module) -> bool:
    others = second.state_dict()
    return all(torch.equal(value, others[name]) for name, value in first.state_dict().items())


def close(first: nn.Module, second: nn.Module, atol: float = 2e-6) -> None:
    others = second.state_dict()
    for name, value in first.state_dict().items():
        torch.testing.assert_close(
            value, others[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name} {text}"
        )


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(images: TrainingImages, tmp_path: Path) -> None:
    whole = train(images, tmp_path / "whole")
    assert whole.is_finished
    assert whole.images_per_second > 0
    assert [row["step"] for row in whole.curve] == [2, 4, 6]

    def cut(step: int, row: dict[str, float]) -> None:
        if step >= 6:
            raise PowerCut

    with pytest.raises(PowerCut):
        train(images, tmp_path / "cut", log=cut)
    resumed = train(images, tmp_path / "cut")
    assert same(resumed.backbone, whole.backbone)
    assert resumed.curve == whole.curve
    assert not same(train(images, tmp_path / "other", seed=1).backbone, whole.backbone)


def test_when_time_runs_out_the_same_call_goes_on(images: TrainingImages, tmp_path: Path) -> None:
    whole = train(images, tmp_path / "whole")
    parts = [train(images, tmp_path / "parts", max_seconds=1e-6) for _ in range(2)]
    assert [part.is_finished for part in parts] == [False, False]
    assert [len(part.curve) for part in parts] == [1, 2]
    finished = train(images, tmp_path / "parts")
    assert finished.is_finished
    assert same(finished.backbone, whole.backbone)


def test_a_step_in_parts_is_the_step_at_once(images: TrainingImages, tmp_path: Path) -> None:
    # Without random paths, which are drawn per pass; four images in parts of three and one.
    whole = train(images, tmp_path / "1", "vit.drop_path=0")
    parts = train(images, tmp_path / "2", "vit.drop_path=0", "images_at_once=3")
    close(whole.backbone, parts.backbone)
    for first, second in zip(whole.curve, parts.curve, strict=True):
        assert first["total"] == pytest.approx(second["total"], abs=2e-4)
        assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-3)


def test_frames_on_the_device_or_sent_are_the_same(images: TrainingImages, tmp_path: Path) -> None:
    kept = train(images, tmp_path / "1", "steps=2")
    sent = train(images, tmp_path / "2", "steps=2", "images_on_device=false")
    assert same(kept.backbone, sent.backbone)


def work(rank: int, size: int, folder: Path, file: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": file}
    with joined("cpu") as (ranks, device):
        settings = ("vit.drop_path=0", "images_at_once=1", "steps=3", "log_every=1")
        result = train(noisy_images(), folder, *settings, ranks=ranks, device=device)
        if ranks.is_first:
            torch.save([result.backbone.state_dict(), result.curve], folder / "result.pt")


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(images: TrainingImages, tmp_path: Path) -> None:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    multiprocessing.spawn(work, (2, tmp_path, port), nprocs=2)
    state, curve = torch.load(tmp_path / "result.pt", weights_only=True)
    alone = train(images, tmp_path / "one", "vit.drop_path=0", "steps=3", "log_every=1")
    for name, value in alone.backbone.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=2e-6, rtol=0)
    for first, second in zip(alone.curve, curve, strict=True):
        assert first["total"] == pytest.approx(second["total"], abs=2e-4)


def test_crops_are_drawn_by_seed_and_step_and_every_frame_comes_once_per_epoch(
    images: TrainingImages, tmp_path: Path
) -> None:
    training = DistillationTraining(images, quick_settings(), seed=0, device=CPU, folder=tmp_path)
    again = DistillationTraining(images, quick_settings(), seed=0, device=CPU, folder=tmp_path)
    training.draw(3)
    ours, theirs = training.draw(7), again.draw(7)
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    np.testing.assert_array_equal(ours.global_views.boxes, theirs.global_views.boxes)
    for first, second in zip(training.make_views(ours), again.make_views(theirs), strict=True):
        assert torch.equal(first, second)
    assert not np.array_equal(ours.global_views.boxes, training.draw(8).global_views.boxes)
    # Five steps of four are two epochs of ten.
    seen = np.concatenate([training.draw(step).frames for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])
    assert ours.counts.sum() == pytest.approx(1)


def test_parts_of_a_draw_are_its_images(images: TrainingImages, tmp_path: Path) -> None:
    training = DistillationTraining(images, quick_settings(), seed=0, device=CPU, folder=tmp_path)
    draw = training.draw(0)
    whole = training.make_views(draw)
    part = training.make_views(draw.of(slice(1, 3)))
    for all_images, own in zip(whole, part, strict=True):
        torch.testing.assert_close(all_images[:, 1:3], own)


def test_crops_without_changes_are_normalised_pixels(images: TrainingImages, tmp_path: Path) -> None:
    plain = (
        "jitter_prob",
        "grey_prob",
        "first_blur_prob",
        "second_blur_prob",
        "local_blur_prob",
        "solarise_prob",
    )
    settings = quick_settings(*(f"colour.{name}=0" for name in plain))
    training = DistillationTraining(images, settings, seed=0, device=CPU, folder=tmp_path)
    draw = training.draw(0)
    views, _ = training.make_views(draw)
    frames = torch.from_numpy(images.frames[draw.frames]).permute(0, 3, 1, 2)
    boxes = torch.from_numpy(draw.global_views.boxes).float()
    cropped = crop_frames(frames, boxes, torch.from_numpy(draw.global_views.mirrored), 24)
    back = (
        views * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    )
    torch.testing.assert_close(back, cropped, atol=1e-5, rtol=0)


def test_directions_stay_in_the_frozen_steps_and_rates_follow_their_schedules(
    images: TrainingImages, tmp_path: Path
) -> None:
    settings = quick_settings("steps=4", "optimiser.frozen_steps=2", "checkpoint_every=10")
    training = DistillationTraining(images, settings, seed=0, device=CPU, folder=tmp_path)
    network, teacher = training._network, training._teacher
    before = network.head.directions.detach().clone()
    weights = network.head.layers[0].weight.detach().clone()
    training.take_step(0, training.draw(0))
    training.take_step(1, training.draw(1))
    assert torch.equal(network.head.directions, before)
    assert not torch.equal(network.head.layers[0].weight, weights)
    training.take_step(2, training.draw(2))
    assert not torch.equal(network.head.directions, before)
    decaying, staying = training._optimiser.param_groups
    # Two warm-up steps to 0.004 * 4 / 256, then a cosine of two steps, at its start.
    assert decaying["lr"] == staying["lr"] == pytest.approx(0.004 * 4 / 256)
    assert decaying["weight_decay"] == pytest.approx(0.04 + 0.36 * 0.5)
    assert staying["weight_decay"] == 0
    assert not any(value.requires_grad for value in teacher.parameters())
    assert float(training._centre.abs().sum()) > 0


def test_the_teacher_and_the_centre_move_as_derived(images: TrainingImages, tmp_path: Path) -> None:
    training = DistillationTraining(
        images, quick_settings("vit.drop_path=0"), seed=0, device=CPU, folder=tmp_path
    )
    views, _ = training.make_views(training.draw(1))
    with torch.no_grad():
        mean_logits = training._teacher(views, None, None).logits.mean((0, 1))
    before = [value.clone() for value in training._teacher.parameters()]
    training.take_step(1, training.draw(1))
    momentum = 1 - (1 - 0.99) * (1 + math.cos(math.pi / 6)) / 2
    for old, student, new in zip(
        before, training._network.parameters(), training._teacher.parameters(), strict=True
    ):
        torch.testing.assert_close(new, momentum * old + (1 - momentum) * student, atol=1e-7, rtol=0)
    torch.testing.assert_close(training._centre, 0.1 * mean_logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_it_learns_without_collapse_and_places_are_optional(
    images: TrainingImages, tmp_path: Path, weight: float
) -> None:
    easy = (
        f"dense.weight={weight}", "steps=60", "batch_size=8", "log_every=10", "checkpoint_every=60",
        "optimiser.learning_rate=0.1", "optimiser.warm_up_steps=10", "optimiser.teacher_momentum=0.97",
        "projection.hidden=64", "projection.bottleneck=16", "vit.width=32", "vit.depth=1", "vit.drop_path=0",
        "colour.jitter_prob=0", "colour.grey_prob=0", "colour.solarise_prob=0", "colour.first_blur_prob=0",
        "colour.local_blur_prob=0", "views.window_low=0.9", "views.global_low=0.7", "views.local_low=0.4",
        "views.local_high=0.8", "monitors.start_step=60",
    )  # fmt: skip
    curve = train(images, tmp_path, *easy).curve
    assert ("places" in curve[0]) == ("place_spread" in curve[0]) == (weight > 0)
    for row in curve:
        assert row["total"] == pytest.approx(row["views"] + weight * row.get("places", 0), abs=2e-5)
    # What there is to learn is what is above the teacher's own entropy, and answers must still tell images apart.
    excess = [row["views"] - row["teacher_entropy"] * math.log(32) for row in curve]
    assert excess[-1] < 0.75 * excess[0]
    assert curve[-1]["mean_entropy"] - curve[-1]["teacher_entropy"] > 0.05
    if weight:
        assert curve[-1]["places"] < 0.85 * curve[0]["places"]
        assert curve[-1]["place_mean_entropy"] - curve[-1]["place_entropy"] > 0.4


def test_no_local_crops_are_allowed(images: TrainingImages, tmp_path: Path) -> None:
    assert train(images, tmp_path, "views.local_count=0", "steps=2").is_finished


def test_half_precision_is_close_to_full(images: TrainingImages, tmp_path: Path) -> None:
    full = train(images, tmp_path / "1", "steps=2", "precision=fp32")
    half = train(images, tmp_path / "2", "steps=2", "precision=bf16")
    assert half.curve[-1]["views"] == pytest.approx(full.curve[-1]["views"], abs=0.05)
    assert half.curve != full.curve


def test_a_loss_that_is_not_finite_stops_with_the_last_state_kept(
    images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = distillation_loop.cross_view_loss, []

    def broken(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return plain(*arguments) * (torch.nan if len(calls) > 4 else 1)

    monkeypatch.setattr(distillation_loop, "cross_view_loss", broken)
    with pytest.raises(DataError, match=r"not finite before step 6 .*learning_rate"):
        train(images, tmp_path)
    (state,) = tmp_path.glob(f"*/{STATE_FILE}")
    assert torch.load(state, weights_only=True)["step"] == 4


def test_a_monitor_stops_the_training_with_its_reason_and_keeps_the_state(
    images: TrainingImages, tmp_path: Path
) -> None:
    limits = ("monitors.start_step=0", "monitors.patience=2", "monitors.min_rank=1000")
    with pytest.raises(DataError, match=r"stopped after step 4.*too few directions.*limit 1000"):
        train(images, tmp_path, *limits)
    (state,) = tmp_path.glob(f"*/{STATE_FILE}")
    assert torch.load(state, weights_only=True)["step"] == 4


def test_a_damaged_state_is_named(images: TrainingImages, tmp_path: Path) -> None:
    result = train(images, tmp_path, "steps=2")
    os.truncate(result.folder / STATE_FILE, 100)
    with pytest.raises(DataError, match=rf"{STATE_FILE} is damaged .*delete it"):
        train(images, tmp_path, "steps=2")


def changed(settings: DistillationSettings, section: str, **values: Any) -> DistillationSettings:
    own: Any = dataclasses.replace(getattr(settings, section), **values)
    return dataclasses.replace(settings, **{section: own})


def test_settings_that_cannot_work_are_refused() -> None:
    plain = quick_settings()
    check_settings(plain, SIZE, 2)
    with pytest.raises(ConfigError, match=r"views.global_px must be a multiple of .*patch_px \(8\). Got: 20"):
        check_settings(changed(plain, "views", global_px=20), SIZE)
    with pytest.raises(ConfigError, match=r"views.local_px"):
        check_settings(changed(plain, "views", local_px=12), SIZE)
    with pytest.raises(ConfigError, match=r"at least a patch, 8 px.*Got: 7 x 64"):
        check_settings(plain, (7, 64))
    with pytest.raises(ConfigError, match=r"multiple of the number of processes \(3\). Got: 4"):
        check_settings(plain, SIZE, 3)
    with pytest.raises(ConfigError, match="heads divide width"):
        check_settings(changed(plain, "vit", heads=5), SIZE)


def test_frames_of_one_colour_are_never_drawn(tmp_path: Path) -> None:
    frames = noisy_frames(4)
    frames[2] = 7
    training = DistillationTraining(
        make_images(frames, origin="test"), quick_settings(), seed=0, device=CPU, folder=tmp_path
    )
    assert set(np.concatenate([training.draw(step).frames for step in range(6)])) == {0, 1, 3}
