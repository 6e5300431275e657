"""The stages that make labels and networks, on a few small streets: truth changes nothing, reruns give equal bytes."""

import dataclasses
import shutil
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

import stages.features
import stages.guided
import stages.manifest
import stages.motion
import stages.pseudo_labels
import stages.scenes
import stages.self_training
import stages.semantics
import stages.thing_stuff
from gestalt.config import Params
from gestalt.config.presets import compose_params
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.runtime import limit_threads
from stages.entry import Stage

SMALL = [
    "batches=[day]",
    "fit_batches=[day]",
    "rendered_batches=[day]",
    "truth_batches=[day]",
    "scenes.n_snippets=5",
    "scenes.height=96",
    "scenes.width=192",
    "scenes.exact_frames=0",
    "frames.height=96",
    "frames.width=192",
    "features.dictionary.n_images=5",
    "features.dictionary.n_patches=2000",
    "features.dictionary.n_filters=24",
    "features.dictionary.components=8",
    "semantics.n_images=5",
    "semantics.n_pseudo_classes=8",
    "semantics.n_vectors=2000",
    "semantics.restarts=2",
    "motion.runs=4",
    "motion.filters.min_area_px=24",
    "motion.filters.min_surface_m2=0.1",
    "pseudo_labels.min_area_px=16",
    "thing_stuff.psi=0.01",
    "guided.steps=2",
    "guided.batch_size=2",
    "guided.augmentation.jitter_heights_px=[96]",
    "self_training.steps=2",
    "self_training.batch_size=2",
    "self_training.augmentation.jitter_heights_px=[96]",
    "runtime.shard_size=2",
    "runtime.threads=1",
]
# Everything up to the network that is reported.
MADE = (
    "data/manifests", "data/motion", "models/features", "models/semantics", "data/pseudo_labels",
    "data/vocabulary.json", "models/guided", "models/self_trained",
)  # fmt: skip


@pytest.fixture(autouse=True)
def work_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_thread(kind: str, workers: int) -> Executor:
        return ThreadPoolExecutor(1)

    monkeypatch.setattr("stages.entry.open_executor", one_thread)
    # As ``run_stage`` does: the threads that another test left would change the last bits of the first pass.
    limit_threads(1)
    # Tracking is a side effect with a database of its own.
    monkeypatch.setattr("stages.training.stage_run", lambda *_, **__: nullcontext())


@pytest.fixture(scope="module")
def params() -> Params:
    return compose_params(SMALL)


def make_network(params: Params) -> None:
    stages.manifest.manifest(Stage("manifest", "day", params))
    stages.motion.propose(Stage("motion", "day", params))
    stages.features.make_features(Stage("features", "", params))
    stages.semantics.fit(Stage("semantics", "", params))
    stages.pseudo_labels.label_batch(Stage("pseudo_labels", "day", params))
    stages.thing_stuff.split_vocabulary(Stage("thing_stuff", "", params))
    stages.guided.train(Stage("guided", "", params))
    stages.self_training.train(Stage("self_training", "", params))


def contents() -> dict[str, bytes]:
    files = [path for made in MADE for path in (Path(made), *Path(made).rglob("*")) if path.is_file()]
    return {str(path): path.read_bytes() for path in sorted(files)}


def test_labels_and_networks_are_the_same_bytes_without_any_truth_and_in_other_shards(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages.scenes.scenes(Stage("scenes", "day", params))
    make_network(params)
    with_truth = contents()
    assert {"models/guided/network.safetensors", "models/self_trained/network.safetensors"} < set(with_truth)
    assert set(ShardFolder(Path("data/pseudo_labels/day")).frames()["status"]) <= {"ok", "empty"}

    shutil.rmtree("data/truth")
    for path in with_truth:
        Path(path).unlink()
    make_network(params)
    assert contents() == with_truth

    # Shards are how files are cut, not what is in them.
    runtime = dataclasses.replace(params.runtime, shard_size=3)
    stages.motion.propose(Stage("motion", "day", dataclasses.replace(params, runtime=runtime)))
    again = ShardFolder(Path("data/motion/day"))
    stages.motion.propose(Stage("motion", "day", params))
    before = ShardFolder(Path("data/motion/day"))
    assert again.frame_ids == before.frame_ids
    assert again.records().equals(before.records())


def test_missing_input_names_the_stage_that_makes_it(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="manifest"):
        stages.motion.propose(Stage("motion", "day", params))
