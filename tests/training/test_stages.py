"""The stages around both trainings and prediction, in an empty folder with hand-made artefacts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import stages.guided
import stages.predict
import stages.self_training
import stages.training
from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.config.training import GuidedSettings, SelfTrainingSettings
from gestalt.data.images import write_png
from gestalt.data.records import GroundTruthFrame, StereoFrame
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.panoptic import VOID, PanopticMap
from stages.entry import Stage
from tests.training.conftest import SIZE, VOCABULARY, make_scene


def make_frames(folder: Path, n_frames: int) -> list[StereoFrame]:
    frames = []
    for number in range(n_frames):
        path = folder / f"{number}.png"
        write_png(path, make_scene(number)[0])
        frames.append(
            StereoFrame(
                batch="day",
                sequence="s",
                frame_id=f"f{number}",
                left=path,
                right=None,
                left_next=path,
                right_next=None,
                height=SIZE[0],
                width=SIZE[1],
                intrinsics=np.eye(3),
                stereo_baseline=0.5,
                time_step_s=0.1,
            )
        )
    return frames


def label_frame(frame: StereoFrame) -> FrameResult:
    _, semantic, instance = make_scene(int(frame.frame_id[1:]))
    records = [
        {"pseudo_class": int(semantic[instance == number][0]), "instance": int(number)}
        for number in np.unique(instance[instance > 0])
    ]
    return FrameResult(frame.frame_id, maps={"semantic": semantic, "instance": instance}, records=records)


@contextlib.contextmanager
def quiet_run(*_: object, **__: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(log=lambda *_: None, log_file=lambda *_: None)


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[StereoFrame]:
    """An empty repository with video, labels and a vocabulary."""
    monkeypatch.chdir(tmp_path)
    found = make_frames(tmp_path / "video", 4)
    run_sharded(
        found, label_frame, out_dir=Path("data/pseudo_labels/day"), cache_dir=Path(".cache"), key={},
        shard_size=3, open_executor=None, max_failed_share=0.0, label="labels",
    )  # fmt: skip
    Path("data/manifests").mkdir(parents=True)
    Path("data/manifests/day.parquet").write_bytes(b"stands for the manifest")
    VOCABULARY.save(Path("data/vocabulary.json"))
    for module in (stages.guided, stages.self_training):
        monkeypatch.setattr(module, "read_manifest", lambda _: found)
    monkeypatch.setattr(stages.training, "stage_run", quiet_run)
    return found


@pytest.fixture
def stage(
    network_settings: NetworkSettings,
    guided_settings: GuidedSettings,
    self_training_settings: SelfTrainingSettings,
) -> Stage:
    # Only the sections that these stages may look at.
    params = SimpleNamespace(
        seed=0,
        batches=["day"],
        frames=default_settings("frames", scale=1.0, height=0, width=0),
        predict=default_settings("predict"),
        network=network_settings,
        guided=dataclasses.replace(guided_settings, steps=2, picture_every=1),
        self_training=dataclasses.replace(self_training_settings, steps=2, picture_every=2),
        runtime=default_settings("runtime", device="cpu", threads=1),
    )
    return Stage("guided", "", params)


def unreadable() -> PanopticMap:
    raise AssertionError("prediction must not read the truth")


def test_labels_become_two_networks_and_their_predictions(
    frames: list[StereoFrame], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided = stages.guided.train(stage)
    assert guided.metrics["n_samples"] == len(frames)
    assert guided.metrics["total"] > 0
    assert len(Path("reports/curves/guided.csv").read_text().splitlines()) == 3
    stages.self_training.train(dataclasses.replace(stage, name="self_training"))
    first, second = (
        json.loads(Path(f"models/{n}/card.json").read_text()) for n in ("guided", "self_trained")
    )
    assert first["vocabulary"] == second["vocabulary"] == {"things": [3, 1], "stuff": [0, 2, 4]}
    assert first["image_size"] == list(SIZE)
    assert set(first["sources"]) == {"pseudo_labels/day"}
    assert set(second["sources"]) == {"guided"}
    assert not list(Path(".cache").rglob("state.pt"))
    pictures = sorted(
        path.relative_to("reports/training").as_posix() for path in Path("reports/training").rglob("*")
    )
    assert [name for name in pictures if name.endswith(".png")] == [
        "guided/000001.png", "guided/000002.png", "self_training/000002.png",
    ]  # fmt: skip

    truth = [GroundTruthFrame(frame.frame_id, frame.left, frame.left, unreadable) for frame in frames]
    monkeypatch.setattr(stages.predict, "find_ground_truth", lambda _: truth)
    outcome = stages.predict.predict(dataclasses.replace(stage, name="predict", item="city"))
    assert outcome.metrics["guided"]["n_frames"] == len(frames)
    for network in ("guided", "self_trained"):
        stored = ShardFolder(Path("data/predictions/city") / network)
        semantic = stored.read_map("f0", "semantic")
        assert semantic.shape == SIZE
        assert set(np.unique(semantic)) <= {0, 1, 2, 3, 4, VOID}


def test_the_same_inputs_give_the_same_bytes(frames: list[StereoFrame], stage: Stage) -> None:
    files = [Path("models/guided/network.safetensors"), Path("models/guided/card.json")]
    stages.guided.train(stage)
    before = [path.read_bytes() for path in files]
    stages.guided.train(stage)
    assert [path.read_bytes() for path in files] == before
