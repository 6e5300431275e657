"""CPU seconds of panoptic quality per 1024 x 2048 image with 40 segments: ours, torchmetrics, the panoptic API.

One thread. The panoptic API (cocodataset/panopticapi) is measured where it can be imported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.detection import PanopticQuality as Reference

from gestalt.data.coco_files import read_coco_panoptic
from gestalt.data.images import write_png
from gestalt.evaluation.coco import intersect_coco
from gestalt.evaluation.intersections import intersect
from gestalt.evaluation.panoptic_quality import CONVENTIONS, VOID_NEUTRAL, panoptic_quality
from gestalt.panoptic import PanopticMap, ids_to_rgb, segment_ids, segments_info
from gestalt.runtime import limit_threads, numpy_generator, peak_memory_mib

SIZE = (1024, 2048)
N_CLASSES = 19
THINGS = range(11, 19)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=40, help="segments per image")
    parser.add_argument("--repeats", type=int, default=20, help="repetitions; the median counts")
    given = parser.parse_args()
    limit_threads(1)
    truth = paint(given.segments, numpy_generator(0, "speed", "truth"))
    prediction = PanopticMap(np.roll(truth.semantic_map, 7, 1), np.roll(truth.instance_map, 7, 1))
    reference = Reference(things=set(THINGS), stuffs=set(range(11)), allow_unknown_preds_category=True)
    channels = [
        torch.from_numpy(np.stack([side.semantic_map, side.instance_map], -1).astype(np.int64))[None]
        for side in (prediction, truth)
    ]

    def ours() -> Any:
        table = intersect("image", prediction, truth)
        return [panoptic_quality(table, N_CLASSES, convention) for convention in CONVENTIONS]

    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: write_coco(Path(folder), name, side)
            for name, side in (("truth", truth), ("prediction", prediction))
        }
        sides = [read_coco_panoptic(*files[name]) for name in ("truth", "prediction")]
        seconds = {
            "ours_in_memory": median_cpu_seconds(ours, given.repeats),
            "ours_from_coco_files": median_cpu_seconds(
                lambda: panoptic_quality(intersect_coco(sides[0], sides[1]), N_CLASSES), given.repeats
            ),
            "torchmetrics_in_memory": median_cpu_seconds(lambda: reference.update(*channels), 3),
        }
        official = panoptic_api(files, given.repeats)
    found = panoptic_quality(intersect("image", prediction, truth), N_CLASSES, VOID_NEUTRAL)
    result = {
        "size": SIZE,
        "n_segments": len(segments_info(truth)),
        "cpu_seconds": seconds,
        "torchmetrics_to_ours": seconds["torchmetrics_in_memory"] / seconds["ours_in_memory"],
        **official_ratio(official, seconds["ours_from_coco_files"]),
        "PQ_ours": found.mean(range(N_CLASSES))["PQ"],
        "PQ_torchmetrics": 100 * float(reference.compute()),
        "peak_memory_mib": peak_memory_mib(),
    }
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def panoptic_api(files: dict[str, tuple[Path, Path]], repeats: int) -> dict[str, float] | None:
    """CPU seconds and PQ of the official evaluation; None where it is not installed."""
    try:
        compute = importlib.import_module("panopticapi.evaluation").pq_compute_single_core
    except ImportError:
        return None
    sides = {name: json.loads(path.read_text(encoding="utf-8")) for name, (path, _) in files.items()}
    categories = {entry["id"]: entry for entry in sides["truth"]["categories"]}
    pairs = [(sides["truth"]["annotations"][0], sides["prediction"]["annotations"][0])]
    folders = str(files["truth"][1]), str(files["prediction"][1])

    def work() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            return compute(0, pairs, *folders, categories)

    quality = work().pq_average(categories, isthing=None)[0]["pq"]
    return {"cpu_seconds": median_cpu_seconds(work, repeats), "PQ": 100 * quality}


def official_ratio(official: dict[str, float] | None, ours: float) -> dict[str, Any]:
    """What is printed of the panoptic API."""
    if official is None:
        return {"panopticapi": "not installed, so not measured"}
    return {
        "panopticapi": official,
        "panopticapi_to_ours_from_files": official["cpu_seconds"] / ours,
    }


def paint(n_segments: int, generator: np.random.Generator) -> PanopticMap:
    """Ellipses of random size before bands of stuff."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    semantic = (rows * 11 // SIZE[0]).astype(np.uint8)
    instance = np.zeros(SIZE, np.uint16)
    for number in range(1, n_segments - 10):
        centre_y, centre_x = generator.uniform(0, SIZE[0]), generator.uniform(0, SIZE[1])
        radius = generator.uniform(20, 150)
        inside = ((rows - centre_y) / radius) ** 2 + ((columns - centre_x) / (2 * radius)) ** 2 < 1
        semantic[inside], instance[inside] = generator.choice(THINGS), number
    return PanopticMap(semantic, instance)


def write_coco(folder: Path, name: str, side: PanopticMap) -> tuple[Path, Path]:
    """The map as COCO panoptic files: the JSON and the folder of its picture."""
    (folder / name).mkdir()
    write_png(folder / name / "image.png", ids_to_rgb(segment_ids(side)))
    annotation = {"image_id": "image", "file_name": "image.png", "segments_info": segments_info(side)}
    categories = [{"id": index, "name": str(index), "isthing": index in THINGS} for index in range(N_CLASSES)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"annotations": [annotation], "categories": categories}), encoding="utf-8")
    return path, folder / name


def median_cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of this process for one call, the median of ``repeats`` after one warm-up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
