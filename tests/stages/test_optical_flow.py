"""The stage that learns optical flow: from a rendered batch to a network that the motion stage can name."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

import stages.manifest
import stages.optical_flow
import stages.scenes
from gestalt.config import Params
from gestalt.config.presets import compose_params
from gestalt.matching.raft_weights import load_network
from stages.entry import Stage

SMALL = [
    "batches=[day]",
    "fit_batches=[day]",
    "rendered_batches=[day]",
    "optical_flow_batches=[day]",
    "scenes.n_snippets=1",
    "scenes.frames_per_snippet=3",
    "scenes.height=64",
    "scenes.width=128",
    "scenes.exact_frames=0",
    "frames.height=64",
    "frames.width=128",
    "optical_flow.steps=2",
    "optical_flow.updates=1",
    "optical_flow.batch_size=1",
    "optical_flow.log_every=1",
    "optical_flow.crop.height=64",
    "optical_flow.crop.width=64",
    "optical_flow.multi_frame.enabled=true",
    "optical_flow.multi_frame.updates=1",
    "optical_flow.multi_frame.fit_steps=2",
    "optical_flow.multi_frame.steps=1",
    "runtime.device=cpu",
    "runtime.threads=1",
]


@pytest.fixture(scope="module")
def params() -> Params:
    return compose_params(SMALL)


def test_a_batch_becomes_a_network_without_any_truth_and_again_the_same_bytes(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.entry.open_executor", lambda *_: ThreadPoolExecutor(1))
    # Tracking is a side effect with a database of its own.
    monkeypatch.setattr(
        "stages.optical_flow.stage_run", lambda *_, **__: nullcontext(SimpleNamespace(log=None))
    )
    stages.scenes.scenes(Stage("scenes", "day", params))
    shutil.rmtree("data/truth")
    stages.manifest.manifest(Stage("manifest", "day", params))
    outcome = stages.optical_flow.train(Stage("optical_flow", "day", params))
    # Three times: three pairs of views, and two steps in time seen by two cameras.
    assert (outcome.metrics["n_pairs"], outcome.metrics["n_stereo_pairs"]) == (7, 3)
    assert outcome.metrics["census"] >= 0
    assert outcome.status["n_steps"] == 3
    network = Path("models/optical_flow/day")
    assert load_network(network).variant == "small"
    card = json.loads((network / "card.json").read_text())
    assert card["recipe"]["steps"] == 2
    assert list(card["sources"]) == ["manifests/day"]
    with Path("reports/curves/optical_flow-day.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["1", "1", "2"]
    # Each phase has its own losses. What two steps taught is consistent nowhere, so no label is known yet.
    assert float(rows[0]["census"]) > 0 == float(rows[2]["census"])
    before = (network / "network.safetensors").read_bytes()
    shutil.rmtree(network)
    stages.optical_flow.train(Stage("optical_flow", "day", params))
    assert (network / "network.safetensors").read_bytes() == before
    assert not list(Path(".cache/optical_flow/day").rglob("*.pt"))
