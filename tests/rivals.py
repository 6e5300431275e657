"""A small project with one benchmark and predictions that differ, in folders, in DVC's cache and in recorded runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.data.ground_truth import find_ground_truth
from gestalt.data.images import write_png
from gestalt.data.sharded_run import FrameResult
from gestalt.data.shards import ShardFolder
from gestalt.evaluation.evaluate import evaluate_folder
from gestalt.evaluation.protocols import load_protocol
from gestalt.tracking.recorded_runs import RecordedRun
from tests.audit.workspace import RAW_IDS, VOCABULARY, Item, street, write_json, write_shards
from tests.tracking.dvc_cache import store_folder

PROTOCOL = load_protocol("cityscapes19_rendered_min64")
BENCHMARK = "cityscapes"
N_FRAMES = 4
CACHE = ".dvc/cache"
BENCHMARK_STATE = "0123456789abcdef.dir"


def frame_id(number: int) -> str:
    return f"city_000000_{number:06d}"


def write_project(root: Path) -> Path:
    """Benchmark with images, its hash in ``dvc.lock``, and predictions of two networks with their cards."""
    folder = root / "data/benchmarks" / BENCHMARK
    for number in range(N_FRAMES):
        image, panoptic = street(number)
        raw = np.vectorize(RAW_IDS.get)(panoptic.semantic_map).astype(np.uint16)
        raw[panoptic.instance_map > 0] = raw[panoptic.instance_map > 0] * 1000 + 1
        write_png(folder / f"gtFine/val/city/{frame_id(number)}_gtFine_instanceIds.png", raw)
        write_png(folder / f"leftImg8bit/val/city/{frame_id(number)}_leftImg8bit.png", image)
    write_json(folder / "source.yaml", {"adapter": "cityscapes", "root": ".", "options": {}})
    lock = {"stages": {"s": {"outs": [{"path": f"data/benchmarks/{BENCHMARK}", "md5": BENCHMARK_STATE}]}}}
    write_json(root / "dvc.lock", lock)
    for network, error_px in (("guided", 12), ("self_trained", 4)):
        write_predictions(root / "data/predictions" / BENCHMARK / network, error_px)
        vocabulary = {"things": list(VOCABULARY.things), "stuff": list(VOCABULARY.stuff)}
        write_json(root / "models" / network / "card.json", {"vocabulary": vocabulary})
    return root


def write_predictions(folder: Path, error_px: int) -> Path:
    """The truth in pseudo-classes, but with a bar of road on the left that is wider in each image."""

    def predict(item: Item) -> FrameResult:
        panoptic = street(item.number)[1]
        semantic = VOCABULARY.unified_table()[panoptic.semantic_map]
        instance = panoptic.instance_map.copy()
        wrong = error_px * (1 + item.number)
        semantic[:, :wrong] = VOCABULARY.unified_table()[0]
        instance[:, :wrong] = 0
        return FrameResult(item.frame_id, maps={"semantic": semantic, "instance": instance})

    write_shards([Item(frame_id(number), number) for number in range(N_FRAMES)], predict, folder)
    return folder


def record_run(
    root: Path,
    name: str,
    error_px: int,
    *,
    parameters: Mapping[str, str] | None = None,
    code: Mapping[str, str] | None = None,
    benchmark_state: str = BENCHMARK_STATE,
    is_cached: bool = True,
) -> RecordedRun:
    """A finished run whose predictions lie in DVC's cache, or are gone."""
    place = root / "made" / name
    write_predictions(place / "self_trained", error_px)
    content = evaluation_of(place / "self_trained", root / "data/benchmarks" / BENCHMARK)
    md5 = store_folder(root / CACHE, place) if is_cached else f"{name.encode().hex()}.dir"
    return RecordedRun(
        run_id=name.encode().hex().ljust(32, "0"),
        name=f"preset | monday | {name}",
        started="2026-01-01 00:00",
        parameters=parameters or {"seed": "0"},
        tags={"seed": (parameters or {}).get("seed", "0"), "git.commit": "c0ffee" * 5, "device": "cpu"},
        outputs={
            f"data/predictions/{BENCHMARK}": md5,
            f"data/benchmarks/{BENCHMARK}": benchmark_state,
        },
        code=code or {"src/gestalt/training": "aaaaaaaaaaaa"},
        evaluations={BENCHMARK: content},
    )


def evaluation_of(predictions: Path, benchmark: Path) -> dict[str, Any]:
    """What the stage ``evaluate`` writes."""
    evaluation = evaluate_folder(
        ShardFolder(predictions),
        find_ground_truth(benchmark),
        PROTOCOL,
        things=VOCABULARY.unified_things,
        stuff=VOCABULARY.unified_stuff,
        clusters=VOCABULARY.stuff + VOCABULARY.things,
        label="test",
    )
    protocol = {**PROTOCOL.to_dict(), "hash": PROTOCOL.hash}
    content = {"protocol": protocol, "networks": {"self_trained": evaluation.to_dict()}}
    return dict(json.loads(json.dumps(content)))
