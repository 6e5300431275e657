from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.training import GuidedSettings, SelfTrainingSettings
from gestalt.data.training_state import STATE_FILE, forget_state, load_state, save_state
from gestalt.errors import DataError
from gestalt.network.architecture import build_network
from gestalt.training.guided import train_guided
from gestalt.training.loop import TrainingResult
from gestalt.training.resume import state_folder
from gestalt.training.sample import TrainingSample
from gestalt.training.self_training import train_self
from tests.training.conftest import VOCABULARY

CPU = torch.device("cpu")


def stop_at(step: int) -> object:
    def log(now: int, _: dict[str, float]) -> None:
        if now == step:
            raise KeyboardInterrupt

    return log


def assert_same(ours: TrainingResult, theirs: TrainingResult) -> None:
    assert ours.curve == theirs.curve
    for (name, mine), other in zip(ours.network.state_dict().items(), theirs.network.state_dict().values()):
        assert torch.equal(mine, other), name


Train = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def guide(
    samples: list[TrainingSample], network_settings: NetworkSettings, guided_settings: GuidedSettings
) -> Train:
    def train(folder: Path, log: object = None) -> TrainingResult:
        return train_guided(
            samples, VOCABULARY, network_settings, guided_settings,
            seed=0, device=CPU, cache_dir=folder, log=log,
        )  # fmt: skip

    return train


@pytest.fixture(scope="module")
def train_on(
    images: list[np.ndarray], network_settings: NetworkSettings, self_training_settings: SelfTrainingSettings
) -> Train:
    def train(folder: Path, log: object = None) -> TrainingResult:
        torch.manual_seed(3)
        network = build_network(network_settings, VOCABULARY)
        return train_self(
            images, network, self_training_settings, seed=0, device=CPU, cache_dir=folder, log=log
        )

    return train


@pytest.fixture(scope="module")
def guided_whole(guide: Train, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return guide(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def self_trained_whole(train_on: Train, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_on(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("step", [1, 4])
def test_guided_interrupted_and_resumed_is_guided_uninterrupted(
    tmp_path: Path, guide: Train, guided_whole: TrainingResult, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        guide(tmp_path, stop_at(step))
    assert len(list(tmp_path.rglob(STATE_FILE))) == (step > 2)
    assert_same(guide(tmp_path), guided_whole)


def test_self_training_interrupted_and_resumed_is_self_training_uninterrupted(
    tmp_path: Path, train_on: Train, self_trained_whole: TrainingResult
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_on(tmp_path, stop_at(3))
    assert_same(train_on(tmp_path), self_trained_whole)


def test_another_seed_setting_or_input_is_another_training(tmp_path: Path) -> None:
    keys = [{"seed": 0, "inputs": "a"}, {"seed": 1, "inputs": "a"}, {"seed": 0, "inputs": "b"}]
    assert len({state_folder(tmp_path, key) for key in keys}) == 3
    assert state_folder(tmp_path, keys[0]) == state_folder(tmp_path, dict(reversed(keys[0].items())))


def test_no_state_is_none_and_a_forgotten_one_too(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    assert load_state(folder) is None
    save_state(folder, {"step": 3})
    assert load_state(folder) == {"step": 3}
    forget_state(folder)
    assert load_state(folder) is None
    assert not folder.exists()


def test_a_damaged_state_says_what_to_delete(tmp_path: Path) -> None:
    save_state(tmp_path, {"weights": torch.zeros(100)})
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"state\.pt is damaged .*delete it to train from the start"):
        load_state(tmp_path)


def test_a_state_with_foreign_code_is_refused(tmp_path: Path) -> None:
    torch.save({"bad": Path("x")}, tmp_path / STATE_FILE)
    with pytest.raises(DataError, match="is damaged"):
        load_state(tmp_path)


def test_other_code_does_not_continue_the_training_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_folder(tmp_path, {"seed": 0})
    assert state_folder(tmp_path, {"seed": 0}) == before
    monkeypatch.setattr("gestalt.training.resume.code_version", lambda: "another loss")
    assert state_folder(tmp_path, {"seed": 0}) != before


def test_a_training_that_starts_anew_tells_of_the_states_it_does_not_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_state(tmp_path / "own") is None
    assert caplog.text == ""
    save_state(tmp_path / "other", {"step": 3})
    assert load_state(tmp_path / "own") is None
    assert "starting anew" in caplog.text
    assert str(tmp_path) in caplog.text
