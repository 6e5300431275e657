"""Every way to features and pseudo-classes, from rendered streets to labels, on next to nothing."""

from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import stages.features
import stages.manifest
import stages.motion
import stages.pseudo_labels
import stages.scenes
import stages.semantics
from gestalt.config import Params
from gestalt.config.presets import compose_params
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.features.loading import load_features
from gestalt.runtime import limit_threads
from stages.entry import Stage

SMALL = [
    "batches=[day]",
    "fit_batches=[day]",
    "rendered_batches=[day]",
    "truth_batches=[day]",
    "scenes.n_snippets=3",
    "scenes.height=64",
    "scenes.width=128",
    "scenes.exact_frames=0",
    "frames.height=64",
    "frames.width=128",
    "motion.runs=1",
    "pseudo_labels.min_area_px=16",
    "semantics.n_images=3",
    "semantics.n_pseudo_classes=4",
    "semantics.n_vectors=600",
    "semantics.restarts=1",
    "runtime.shard_size=2",
    "runtime.threads=1",
]
DISTILLED = [
    "features=distilled",
    "distillation.vit.width=64",
    "distillation.vit.depth=1",
    "distillation.vit.heads=1",
    "distillation.vit.position_grid=4",
    "distillation.views.global_px=32",
    "distillation.views.local_px=16",
    "distillation.views.local_count=1",
    "distillation.projection.hidden=16",
    "distillation.projection.bottleneck=8",
    "distillation.projection.outputs=32",
    "distillation.steps=2",
    "distillation.batch_size=2",
    "semantics.geometry=false",
]
CODES = [
    "semantics.method=codes",
    "codes=depthg",
    "codes.dimension=6",
    "codes.steps=4",
    "codes.batch_size=2",
    "codes.refit_vectors=200",
    "codes.refit_restarts=1",
    "codes.correspondence.positions=3",
    "codes.selection.n_vectors=200",
    "codes.selection.restarts=1",
    "codes.selection.checkpoints=2",
    "codes.selection.held_out=0.4",
]
CRF = ["semantics.crf.iterations=2", "semantics.windows=true"]


@pytest.fixture(autouse=True)
def work_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_thread(kind: str, workers: int) -> Executor:
        return ThreadPoolExecutor(1)

    monkeypatch.setattr("stages.entry.open_executor", one_thread)
    limit_threads(1)
    for stage in ("features", "semantics"):
        monkeypatch.setattr(
            f"stages.{stage}.stage_run", lambda *_, **__: nullcontext(SimpleNamespace(log=None))
        )


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with video, manifest and motion of one small batch."""
    folder = tmp_path_factory.mktemp("street")
    params = compose_params(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("stages.entry.open_executor", lambda *_: ThreadPoolExecutor(1))
        limit_threads(1)
        stages.scenes.scenes(Stage("scenes", "day", params))
        stages.manifest.manifest(Stage("manifest", "day", params))
        stages.motion.propose(Stage("motion", "day", params))
    return folder


def label(params: Params) -> ShardFolder:
    stages.semantics.fit(Stage("semantics", "", params))
    stages.pseudo_labels.label_batch(Stage("pseudo_labels", "day", params))
    return ShardFolder(Path("data/pseudo_labels/day"))


def test_a_trained_backbone_codes_windows_and_crf_make_labels_and_so_does_its_file(
    street: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(street)
    params = compose_params([*SMALL, *DISTILLED, *CODES, *CRF])
    outcome = stages.features.make_features(Stage("features", "", params))
    assert (outcome.metrics["dimension"], outcome.metrics["stride"]) == (64, 8)
    assert not list(Path(".cache/features").glob("*/state.pt"))
    labels = label(params)
    assert set(labels.frames()["status"]) <= {"ok", "empty"}
    first = {path.name: path.read_bytes() for path in Path("models/semantics").iterdir()}

    # The same weights, brought from elsewhere.
    trained = load_features(Path("models/features"))
    file = tmp_path / "backbone.pth"
    torch.save(
        {"teacher": {f"module.backbone.{k}": v for k, v in trained.network.state_dict().items()}}, file
    )
    brought = compose_params(
        [*SMALL, *CODES, *CRF, "features=dino", f"features.file.path={file}", DISTILLED[-1]]
    )
    assert stages.features.make_features(Stage("features", "", brought)).metrics["dimension"] == 64
    image = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    adopted = load_features(Path("models/features"))
    assert adopted.extract(image).tokens.shape == trained.extract(image).tokens.shape
    # A second fit of codes finds nothing of the first in its way.
    again = label(brought)
    assert again.frames()["frame_id"].tolist() == labels.frames()["frame_id"].tolist()
    assert set(first) == {path.name for path in Path("models/semantics").iterdir()}


def test_codes_of_dictionary_features_with_geometry_are_the_same_bytes_twice(
    street: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(street)
    small = [
        "features.dictionary.n_patches=500",
        "features.dictionary.n_filters=8",
        "features.dictionary.components=4",
    ]
    params = compose_params([*SMALL, *small, *CODES])
    stages.features.make_features(Stage("features", "", params))
    labels = label(params)
    maps = [labels.read_map(frame_id, "semantic") for frame_id in labels.frames()["frame_id"]]
    assert max(int(found.max()) for found in maps) < 4 or np.any(maps[0] == 255)
    before = {path.name: path.read_bytes() for path in Path("models/semantics").iterdir()}
    label(params)
    assert {path.name: path.read_bytes() for path in Path("models/semantics").iterdir()} == before


def test_a_missing_backbone_is_named_with_the_command_that_brings_it(
    street: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(street)
    params = compose_params([*SMALL, "features=dino"])
    with pytest.raises(DataError, match=r"features\.file\.path must name .*gestalt weights fetch"):
        stages.features.make_features(Stage("features", "", params))
