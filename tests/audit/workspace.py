"""A small workspace with every artefact that audit and report read, written by the real writers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.config.presets import default_settings
from gestalt.data.ground_truth import find_ground_truth
from gestalt.data.images import write_png
from gestalt.data.kitti_maps import pack_disparity
from gestalt.data.manifest import build_manifest, read_manifest, write_manifest
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.evaluation.details import evaluate_details
from gestalt.evaluation.evaluate import Evaluation, evaluate_folder, intersect_folder
from gestalt.evaluation.label_quality import evaluate_labels, evaluate_proposals
from gestalt.evaluation.protocols import load_protocol
from gestalt.panoptic import VOID, PanopticMap, Vocabulary
from gestalt.pseudo_labels.fuse import Statistics
from gestalt.pseudo_labels.label_table import ProposalRecord, label_records, statistics_of_table

HEIGHT, WIDTH = 96, 192
FRAMES = default_settings("frames", height=0, width=0, scale=1.0)
VOCABULARY = Vocabulary(things=(2,), stuff=(0, 1, 3))
PROTOCOL = load_protocol("cityscapes19_rendered_min64")
BATCH, BENCHMARK = "monday", "cityscapes"
# Road below, building above, sky on top: pseudo-class -> raw id of Cityscapes; the car is pseudo-class 2.
RAW_IDS = {0: 7, 1: 11, 2: 26, 3: 23}


@dataclass(frozen=True)
class Item:
    """A frame to be written."""

    frame_id: str
    number: int


def street(number: int) -> tuple[npt.NDArray[np.uint8], PanopticMap]:
    """An image and its exact pseudo-label: a car that moves right over a road before a building."""
    generator = np.random.default_rng(number)
    semantic = np.zeros((HEIGHT, WIDTH), np.uint8)
    semantic[: HEIGHT // 2] = 1
    semantic[: HEIGHT // 5] = 3
    instance = np.zeros((HEIGHT, WIDTH), np.uint16)
    left = 10 + 12 * number
    semantic[45:70, left : left + 40] = 2
    instance[45:70, left : left + 40] = 1
    colours = np.array([[90, 90, 95], [150, 120, 100], [180, 40, 40], [160, 190, 230]], np.float64)
    image = colours[semantic] + generator.normal(0, 8, (HEIGHT, WIDTH, 3))
    return np.clip(image, 0, 255).astype(np.uint8), PanopticMap(semantic, instance)


def write_workspace(root: Path, n_frames: int = 4, *, with_truth: bool = True) -> Path:
    """Write data and reports of one batch and one benchmark below ``root``."""
    data, reports = root / "data", root / "reports"
    _write_video(data / "raw" / BATCH, n_frames + 1)
    settings = default_settings("manifest", content_checks_per_sequence=0, max_broken_share=1.0)
    manifest = data / "manifests" / f"{BATCH}.parquet"
    write_manifest(build_manifest(data / "raw" / BATCH, BATCH, settings), manifest)
    items = [Item(frame.frame_id, number) for number, frame in enumerate(read_manifest(manifest))]
    write_shards(items, _measure, data / "motion" / BATCH)
    write_shards(items, _label, data / "pseudo_labels" / BATCH)
    records = ShardFolder(data / "pseudo_labels" / BATCH).records()
    statistics = statistics_of_table(records, len(items), VOCABULARY.n_pseudo_classes)
    write_vocabulary(data / "vocabulary.json", statistics)
    ids = [item.frame_id for item in items]
    _write_truth(data / "benchmarks" / BENCHMARK, ids, images=True)
    for network in ("guided", "self_trained"):
        write_shards(items, _predict, data / "predictions" / BENCHMARK / network)
    networks = {
        network: _evaluate(data / "predictions" / BENCHMARK / network, data / "benchmarks" / BENCHMARK)
        for network in ("guided", "self_trained")
    }
    protocol = {**PROTOCOL.to_dict(), "hash": PROTOCOL.hash}
    content = {name: evaluation.to_dict() for name, evaluation in networks.items()}
    content["self_trained"] |= _details(
        data / "predictions" / BENCHMARK / "self_trained",
        data / "benchmarks" / BENCHMARK,
        networks["self_trained"],
    )
    write_json(
        reports / "evaluation" / f"{BENCHMARK}.json",
        {"benchmark": BENCHMARK, "protocol": protocol, "networks": content},
    )
    if with_truth:
        _write_truth(data / "truth" / BATCH, ids, images=False)
        truth = find_ground_truth(data / "truth" / BATCH)
        labels = evaluate_labels(
            ShardFolder(data / "pseudo_labels" / BATCH), truth, VOCABULARY, PROTOCOL, label="labels"
        )
        proposals = evaluate_proposals(
            ShardFolder(data / "motion" / BATCH), truth, None, min_object_px=[64], label="proposals"
        )
        write_json(
            reports / "label_quality" / f"{BATCH}.json",
            {
                "batch": BATCH,
                "protocol": protocol,
                "labels": labels.to_dict(),
                "proposals": {"motion": proposals.to_dict()},
            },
        )
    curve = "\n".join(f"{step},{3 / (1 + step / 40):.4f},{1 / (1 + step / 60):.4f}" for step in range(200))
    (reports / "curves").mkdir(parents=True, exist_ok=True)
    (reports / "curves" / "guided.csv").write_text(f"step,loss,semantic\n{curve}\n")
    write_json(
        reports / "status" / "guided.json", {"seconds": 12.5, "cpu_seconds": 20.1, "peak_memory_mib": 700.0}
    )
    write_json(reports / "metrics" / "guided.json", {"loss": 0.5, "n_samples": n_frames})
    return root


def write_vocabulary(path: Path, statistics: Statistics) -> None:
    content = {"things": list(VOCABULARY.things), "stuff": list(VOCABULARY.stuff)}
    write_json(path, {**content, "statistics": statistics.to_json()})


def write_shards(items: Sequence[Item], process: Callable[[Item], FrameResult], out_dir: Path) -> None:
    """A shard folder, made in this process."""
    run_sharded(
        items,
        process,
        out_dir=out_dir,
        cache_dir=out_dir.with_name(f"{out_dir.name}.cache"),
        key={"frames": len(items)},
        shard_size=3,
        open_executor=None,
        max_failed_share=1.0,
        label="test",
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, sort_keys=True))


def _write_video(folder: Path, n_frames: int) -> None:
    for number in range(n_frames):
        for side in ("left", "right"):
            place = folder / f"{side}Img8bit_sequence" / "train" / "city"
            write_png(place / f"city_000000_{number:06d}_{side}Img8bit.png", street(number)[0])
    camera = folder / "camera" / "train" / "city" / "city_000000_000000_camera.json"
    intrinsics = {"fx": 200.0, "fy": 200.0, "u0": 95.5, "v0": 47.5}
    write_json(camera, {"extrinsic": {"baseline": 0.5}, "intrinsic": intrinsics})
    write_json(folder / "source.yaml", {"adapter": "cityscapes", "root": ".", "options": {}})


def _write_truth(folder: Path, frame_ids: Sequence[str], *, images: bool) -> None:
    for number, frame_id in enumerate(frame_ids):
        image, panoptic = street(number)
        raw = np.vectorize(RAW_IDS.get)(panoptic.semantic_map).astype(np.uint16)
        raw[panoptic.instance_map > 0] = raw[panoptic.instance_map > 0] * 1000 + 1
        place = f"train/{frame_id.split('_')[0]}/{frame_id}"
        write_png(folder / "gtFine" / f"{place}_gtFine_instanceIds.png", raw)
        if images:
            write_png(folder / "leftImg8bit" / f"{place}_leftImg8bit.png", image)
    write_json(folder / "source.yaml", {"adapter": "cityscapes", "root": ".", "options": {}})


def _measure(item: Item) -> FrameResult:
    panoptic = street(item.number)[1]
    disparity = np.where(panoptic.instance_map > 0, 10.0, np.linspace(0, 20, HEIGHT)[:, None])
    maps = {"proposals": panoptic.instance_map, "disparity": pack_disparity(disparity)}
    return FrameResult(item.frame_id, "ok", "", maps, [{"instance": 1, "consistency": 0.9}])


def _label(item: Item) -> FrameResult:
    panoptic = street(item.number)[1]
    semantic = panoptic.semantic_map.copy()
    semantic[:, :4] = VOID
    label = PanopticMap(semantic, panoptic.instance_map)
    records = label_records(
        item.frame_id,
        label,
        depth_m=np.full((HEIGHT, WIDTH), 12.0, np.float32),
        confidence=np.full((HEIGHT, WIDTH), 0.8, np.float32),
        source="motion",
        proposals={1: ProposalRecord(0.9, 6.0)},
    )
    counts = {
        "pixels": HEIGHT * WIDTH,
        "void_pixels": int((semantic == VOID).sum()),
        "instances": 1,
        "instance_pixels": int((panoptic.instance_map > 0).sum()),
    }
    maps = {"semantic": semantic, "instance": panoptic.instance_map}
    return FrameResult(item.frame_id, "ok", "", maps, records, counts)


def _predict(item: Item) -> FrameResult:
    panoptic = street(item.number)[1]
    semantic = VOCABULARY.unified_table()[panoptic.semantic_map]
    semantic[:10, :60] = VOCABULARY.unified_table()[0]
    maps = {"semantic": semantic, "instance": panoptic.instance_map}
    return FrameResult(item.frame_id, "ok", "", maps, [{"instance": 1, "score": 0.25 * (item.number + 1)}])


def _details(predictions: Path, benchmark: Path, evaluation: Evaluation) -> dict[str, Any]:
    maps, truth = ShardFolder(predictions), find_ground_truth(benchmark)
    table, _ = intersect_folder(maps, truth, PROTOCOL, n_pseudo_classes=4, label="evaluate")
    return evaluate_details(maps, truth, table, evaluation, label="evaluate")


def _evaluate(predictions: Path, benchmark: Path) -> Evaluation:
    return evaluate_folder(
        ShardFolder(predictions),
        find_ground_truth(benchmark),
        PROTOCOL,
        things=VOCABULARY.unified_things,
        stuff=VOCABULARY.unified_stuff,
        label="evaluate",
        clusters=VOCABULARY.stuff + VOCABULARY.things,
    )
