"""Several processes that train together, and processes that are killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from gestalt.config.network import NetworkSettings
from gestalt.config.training import GuidedSettings, SelfTrainingSettings
from gestalt.data.ranks import Ranks, joined
from gestalt.data.training_state import STATE_FILE
from gestalt.network.architecture import build_network
from gestalt.runtime import limit_threads
from gestalt.training.guided import train_guided
from gestalt.training.guided_batches import GuidedBatches
from gestalt.training.loop import TrainingResult
from gestalt.training.parts import Parts
from gestalt.training.sample import TrainingSample
from gestalt.training.self_training import train_self
from tests.training.conftest import VOCABULARY

CPU = torch.device("cpu")
STEPS, STOP = 6, 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As in the processes that are started: the threads that another test left would change the last bits."""
    limit_threads(1)


World = tuple[list[TrainingSample], NetworkSettings, GuidedSettings, SelfTrainingSettings]


def guide(
    world: World, folder: Path, *, ranks: Ranks | None = None, accumulate: int = 1, **values: object
) -> TrainingResult:
    samples, network_settings, guided, _ = world
    optimiser = dataclasses.replace(guided.optimiser, accumulate=accumulate)
    settings = dataclasses.replace(guided, optimiser=optimiser, **values)
    return train_guided(
        samples, VOCABULARY, network_settings, settings, seed=0, device=CPU, cache_dir=folder, ranks=ranks
    )


def self_train(
    world: World, folder: Path, *, ranks: Ranks | None = None, accumulate: int = 1
) -> TrainingResult:
    samples, network_settings, _, settings = world
    torch.manual_seed(3)
    network = build_network(network_settings, VOCABULARY)
    optimiser = dataclasses.replace(settings.optimiser, accumulate=accumulate)
    settings = dataclasses.replace(settings, optimiser=optimiser)
    images = [sample.image for sample in samples]
    return train_self(images, network, settings, seed=0, device=CPU, cache_dir=folder, ranks=ranks)


def labels_only(world: World) -> dict[str, object]:
    """Without own predictions: they look through running statistics, which on the CPU are the first process's."""
    return {"copy_paste": dataclasses.replace(world[2].copy_paste, start_up_steps=1000)}


def interrupted(world: World, folder: Path, ranks: Ranks) -> None:
    """A training of which every process stops at the start of one step."""
    from gestalt.training import loop

    original = loop.learning_rate

    def stop(step: int, *rest: object) -> float:
        if step == STOP:
            raise KeyboardInterrupt
        return original(step, *rest)

    loop.learning_rate = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            guide(world, folder, ranks=ranks)
    finally:
        loop.learning_rate = original


def work(rank: int, port: str, folder: Path, world: World) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with joined("cpu") as (ranks, _):
        results = {
            "labels": guide(world, folder / "labels", ranks=ranks, **labels_only(world)),
            "self": self_train(world, folder / "self", ranks=ranks),
            "whole": guide(world, folder / "whole", ranks=ranks),
        }
        interrupted(world, folder / "resumed", ranks)
        results["resumed"] = guide(world, folder / "resumed", ranks=ranks)

        batches = GuidedBatches(
            world[0], results["whole"].network, world[2], 0, CPU, Parts(world[2].batch_size, 1, ranks)
        )
        batches.draw(STEPS, rank)
        batches.predict(STEPS - 1)
        content = {
            name: {"state": result.network.state_dict(), "curve": result.curve}
            for name, result in results.items()
        }
        torch.save({**content, "queue": batches.queue.state_dict()}, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def world(
    samples: list[TrainingSample],
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    self_training_settings: SelfTrainingSettings,
) -> World:
    return samples, network_settings, guided_settings, self_training_settings


@pytest.fixture(scope="module")
def pair(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What two processes made, each as it saw it."""
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    multiprocessing.spawn(work, (port, folder, world), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_same(ours: dict[str, object], theirs: dict[str, object], *, only: set[str] | None = None) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if only is None or name in only:
            assert torch.equal(value, theirs[name]), name


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_in_two_passes(
    world: World, pair: list[dict[str, object]], tmp_path: Path
) -> None:
    alone = guide(world, tmp_path, accumulate=2, **labels_only(world))
    together = pair[0]["labels"]
    for name, weight in alone.network.named_parameters():
        torch.testing.assert_close(together["state"][name], weight, atol=1e-6, rtol=1e-5, msg=name)
    for ours, theirs in zip(together["curve"], alone.curve, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5)


@pytest.mark.slow
def test_self_training_of_two_processes_is_that_of_one_in_two_passes(
    world: World, pair: list[dict[str, object]], tmp_path: Path
) -> None:
    alone = self_train(world, tmp_path, accumulate=2)
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(pair[0]["self"]["state"][name], value, atol=1e-7, rtol=1e-5, msg=name)


@pytest.mark.slow
def test_both_processes_have_the_same_weights_curves_and_queue(
    world: World, pair: list[dict[str, object]]
) -> None:
    first, second = pair
    trained = {name for name, _ in build_network(world[1], VOCABULARY).named_parameters()}
    for name in ("labels", "self", "whole"):
        assert_same(first[name]["state"], second[name]["state"], only=trained)
        assert first[name]["curve"] == second[name]["curve"]
    assert len(first["queue"]) == len(second["queue"]) > 0
    for ours, theirs in zip(first["queue"], second["queue"], strict=True):
        assert torch.equal(ours["image"], theirs["image"])


@pytest.mark.slow
def test_two_processes_that_stop_and_go_on_are_two_that_never_stopped(pair: list[dict[str, object]]) -> None:
    assert len(pair[0]["whole"]["curve"]) == STEPS
    assert pair[0]["resumed"]["curve"] == pair[0]["whole"]["curve"]
    assert_same(pair[0]["resumed"]["state"], pair[0]["whole"]["state"])


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
world = torch.load(sys.argv[1], weights_only=False)
from gestalt.training import loop
from tests.training import test_processes as own
original = loop.learning_rate
def wait(step, *rest):
    if step == {stop}:
        time.sleep(600)
    return original(step, *rest)
loop.learning_rate = wait
getattr(own, sys.argv[2])(world, Path(sys.argv[3]))
"""


def killed(world: World, training: str, folder: Path) -> None:
    """Train in another process and kill it, without any warning, once it has left a state and gone on."""
    torch.save(world, folder / "world.pt")
    command = [
        sys.executable,
        "-c",
        SCRIPT.format(stop=STOP),
        str(folder / "world.pt"),
        training,
        str(folder),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while not list(folder.rglob(STATE_FILE)):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("training", [guide, self_train])
def test_a_training_that_was_killed_goes_on_as_if_nothing_had_happened(
    world: World, tmp_path: Path, training: object
) -> None:
    killed(world, training.__name__, tmp_path)
    (state,) = tmp_path.rglob(STATE_FILE)
    resumed, whole = training(world, tmp_path), training(world, tmp_path / "whole")
    assert resumed.folder == state.parent
    assert len(resumed.curve) == len(whole.curve) >= 5
    assert resumed.curve == whole.curve
    assert_same(resumed.network.state_dict(), whole.network.state_dict())


def test_a_batch_that_cannot_be_dealt_out_is_refused(world: World, tmp_path: Path) -> None:
    from gestalt.errors import ConfigError

    with pytest.raises(ConfigError, match=r"guided\.batch_size must be a multiple of 3"):
        guide(world, tmp_path, accumulate=3)


@pytest.mark.slow
def test_a_machine_that_only_trains_needs_torch_and_numpy_alone() -> None:
    missing = (
        "cv2",
        "omegaconf",
        "pandas",
        "pyarrow",
        "typer",
        "hydra",
        "scipy",
        "safetensors",
        "mlflow",
        "tqdm",
    )
    code = (
        f"import sys; sys.modules |= dict.fromkeys({missing!r}); "
        "import gestalt.training.guided, gestalt.training.self_training, gestalt.training.dataset"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
