"""The training: same steps same bits, also across an interruption; and it learns."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gestalt.config.optical_flow import OpticalFlowSettings
from gestalt.data.training_state import STATE_FILE
from gestalt.errors import ConfigError, DataError
from gestalt.matching.smurf_loop import (
    Phase,
    SmurfTraining,
    TrainedNetwork,
    check_settings,
    train_optical_flow,
)
from gestalt.matching.smurf_records import LABEL_FOLDER, CurveRow, forget_training
from gestalt.matching.training_pairs import TrainingPairs
from tests.matching.small_training import (
    DISPARITY,
    SHIFT,
    TinyNetwork,
    moving_pairs,
    quick_settings,
    tiny_network,
    unordered,
)

CPU = torch.device("cpu")


class InterruptedError(Exception):
    """Stands for a power cut."""


@pytest.fixture(scope="module")
def pairs() -> TrainingPairs:
    return moving_pairs()


def train(
    pairs: TrainingPairs, folder: Path, settings: OpticalFlowSettings | None = None, **values: object
) -> TrainedNetwork:
    settings = settings or quick_settings()
    return train_optical_flow(
        pairs, settings, seed=0, device=CPU, cache_dir=folder, make_network=tiny_network, **values
    )


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(pairs: TrainingPairs, tmp_path: Path) -> None:
    whole = train(pairs, tmp_path / "whole")
    assert whole.is_finished
    for stop in (5, 11):  # in the first phase and in the second one, behind a state

        def cut(step: int, losses: dict[str, float], stop: int = stop) -> None:
            if step >= stop:
                raise InterruptedError

        folder = tmp_path / f"cut {stop}"
        with pytest.raises(InterruptedError):
            train(pairs, folder, log=cut)
        resumed = train(pairs, folder)
        assert same(weights(resumed.network), weights(whole.network))
        assert resumed.curve == whole.curve


def test_when_time_runs_out_the_same_call_goes_on(pairs: TrainingPairs, tmp_path: Path) -> None:
    whole = train(pairs, tmp_path / "whole")
    parts = [train(pairs, tmp_path / "parts", max_seconds=1e-6) for _ in range(3)]
    assert [part.is_finished for part in parts] == [False, False, False]
    assert [len(part.curve) for part in parts] == [1, 2, 3]
    finished = train(pairs, tmp_path / "parts")
    assert finished.is_finished
    assert finished.curve == whole.curve
    assert same(weights(finished.network), weights(whole.network))


def test_threads_that_read_change_nothing_and_seeds_do(pairs: TrainingPairs, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        quick_settings(), multi_frame=dataclasses.replace(quick_settings().multi_frame, enabled=False)
    )
    one = train(pairs, tmp_path / "1", dataclasses.replace(settings, loader_threads=1))
    many = train(pairs, tmp_path / "4", dataclasses.replace(settings, loader_threads=4))
    assert same(weights(one.network), weights(many.network))
    other = train_optical_flow(
        pairs, settings, seed=1, device=CPU, cache_dir=tmp_path / "seed", make_network=tiny_network
    )
    assert not same(weights(one.network), weights(other.network))


def test_the_loss_and_the_error_fall_without_any_truth(pairs: TrainingPairs, tmp_path: Path) -> None:
    plain = quick_settings()
    settings = dataclasses.replace(
        plain,
        updates=1,
        steps=60,
        learning_rate=0.01,
        decay_start=60,
        log_every=10,
        checkpoint_every=60,
        crop=dataclasses.replace(plain.crop, scale_prob=0.0, stretch_prob=0.0),
        self_supervision=dataclasses.replace(plain.self_supervision, weight=0.0),
        multi_frame=dataclasses.replace(plain.multi_frame, enabled=False),
    )

    def error(network: nn.Module) -> float:
        errors = []
        for index in range(len(pairs)):
            images = torch.from_numpy(pairs.load(index)).permute(0, 3, 1, 2).float() / 255
            truth = -DISPARITY if pairs.is_stereo[index] else SHIFT
            with torch.no_grad():
                found = network(images[:1], images[1:], 1)[-1]
            errors.append(float((found[0, 0, :, 6:-6] - truth).abs().mean()))
        return float(np.mean(errors))

    torch.manual_seed(0)
    before = error(TinyNetwork())
    result = train(pairs, tmp_path, settings)
    assert result.curve[-1]["census"] < 0.7 * result.curve[0]["census"]
    assert error(result.network) < 0.5 < 1 < before


def test_the_second_phase_makes_labels_and_learns_from_them(pairs: TrainingPairs, tmp_path: Path) -> None:
    rows: list[tuple[int, dict[str, float]]] = []
    result = train(pairs, tmp_path, log=lambda step, losses: rows.append((step, losses)))
    labels = sorted((result.folder / LABEL_FOLDER).glob("*.npz"))
    assert len(labels) == len(pairs.middles()) == 3
    second = [row for row in result.curve if row["phase"] == 2]
    assert [row["step"] for row in second] == [10, 12, 14]
    assert all(row["supervised"] > 0 and row["census"] == 0 for row in second)
    assert [row["learning_rate"] for row in second] == pytest.approx([2e-4, 2e-4, 1e-4])
    first: list[CurveRow] = [row for row in result.curve if row["phase"] == 1]
    assert first[-1]["self_supervision"] > 0 == first[0]["self_supervision"]
    assert [step for step, _ in rows] == [int(row["step"]) for row in result.curve]
    forget_training(result.folder)
    assert not result.folder.exists()


def test_the_step_size_stays_and_then_halves() -> None:
    phase = Phase(1, 75000, 62500, 2500)
    found = [phase.learning_rate(step, 2e-4) for step in (0, 62500, 63750, 65000, 70000)]
    assert found == pytest.approx([2e-4, 2e-4, 2e-4 / 2**0.5, 1e-4, 2.5e-5])


def test_draws_depend_on_seed_phase_and_step_alone(pairs: TrainingPairs, tmp_path: Path) -> None:
    training = SmurfTraining(
        pairs, quick_settings(), seed=0, device=CPU, folder=tmp_path, make_network=tiny_network
    )
    training.draw(1, 3)
    again = SmurfTraining(
        pairs, quick_settings(), seed=0, device=CPU, folder=tmp_path, make_network=tiny_network
    )
    ours, theirs = training.draw(1, 7), again.draw(1, 7)
    assert torch.equal(ours.images, theirs.images)
    assert ours.augmentations == theirs.augmentations
    assert ours.augmentations != training.draw(1, 8).augmentations


def test_a_loss_that_is_not_finite_stops_with_the_last_state_kept(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    class Broken(TinyNetwork):
        steps = 0

        def forward(self, first: torch.Tensor, second: torch.Tensor, updates: int) -> list[torch.Tensor]:
            Broken.steps += 1
            factor = torch.nan if Broken.steps > 10 else 1.0
            return [factor * found for found in super().forward(first, second, updates)]

    with pytest.raises(DataError, match=r"not finite before step \d of phase 1.*learning_rate"):
        train_optical_flow(
            pairs, quick_settings(), seed=0, device=CPU, cache_dir=tmp_path, make_network=Broken
        )
    (state,) = tmp_path.glob(f"*/{STATE_FILE}")
    assert torch.load(state, weights_only=True)["step"] == 4


def test_displacements_that_all_leave_the_image_are_an_error_and_no_perfect_loss(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    class Lost(TinyNetwork):
        def forward(self, first: torch.Tensor, second: torch.Tensor, updates: int) -> list[torch.Tensor]:
            return [found + 1000 for found in super().forward(first, second, updates)]

    with pytest.raises(DataError, match=r"lead out of the images.*learning_rate.*context_rows_px"):
        train_optical_flow(pairs, quick_settings(), seed=0, device=CPU, cache_dir=tmp_path, make_network=Lost)


def test_a_damaged_state_is_named(pairs: TrainingPairs, tmp_path: Path) -> None:
    result = train(pairs, tmp_path)
    state = result.folder / STATE_FILE
    os.truncate(state, 100)
    with pytest.raises(DataError, match=rf"{STATE_FILE} is damaged .*delete it"):
        train(pairs, tmp_path)


def test_settings_that_cannot_work_are_refused(pairs: TrainingPairs, tmp_path: Path) -> None:
    plain = quick_settings()
    with pytest.raises(ConfigError, match="multiples of 8"):
        check_settings(dataclasses.replace(plain, crop=dataclasses.replace(plain.crop, width=50)))
    with pytest.raises(ConfigError, match="margin_px"):
        check_settings(
            dataclasses.replace(
                plain, self_supervision=dataclasses.replace(plain.self_supervision, margin_px=16)
            )
        )
    with pytest.raises(ConfigError, match="scale_low_log2"):
        check_settings(dataclasses.replace(plain, crop=dataclasses.replace(plain.crop, scale_low_log2=1.0)))
    with pytest.raises(ConfigError, match=r"coarse_start.levels.*32 x 48. Got: 3, which leave 4"):
        check_settings(
            dataclasses.replace(plain, coarse_start=dataclasses.replace(plain.coarse_start, levels=3))
        )
    with pytest.raises(DataError, match="frame before"):
        train(unordered(pairs), tmp_path)
