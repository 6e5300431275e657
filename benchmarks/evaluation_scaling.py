"""Evaluation of many images: seconds, speed-up and memory by number of images and of worker processes.

    python -m benchmarks.evaluation_scaling --images 10000 --size 96x192 --workers 2
    python -m benchmarks.evaluation_scaling --images 300 --size 1024x2048 --workers 1 2

Each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

from gestalt.data.coco_files import read_coco_panoptic
from gestalt.data.images import encode_png
from gestalt.evaluation.evaluate import evaluate_table
from gestalt.evaluation.image_pairs import intersect_to_files
from gestalt.evaluation.pairing import pair_sides
from gestalt.evaluation.predicted_side import PredictedSide, coco_predicted
from gestalt.evaluation.table_files import TableFiles
from gestalt.evaluation.truth_side import TruthSide, coco_truth
from gestalt.panoptic import PanopticMap, ids_to_rgb, segment_ids, segments_info
from gestalt.runtime import numpy_generator, start

N_CLASSES = 19
THINGS = range(11, 19)
# Different pictures; the others are copies of them under another name.
N_PAINTED = 16
KIB_PER_MIB = 1024
# Between two looks at the memory of workers.
WATCH_S = 0.2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", default="96x192", help="HEIGHTxWIDTH")
    parser.add_argument("--segments", type=int, default=40, help="segments per image")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="measure one evaluation of what lies there")
    given = parser.parse_args()
    if given.folder is not None:
        json.dump(measure(given.folder, given.workers[0]), sys.stdout)
        return
    height, width = (int(side) for side in given.size.split("x"))
    with tempfile.TemporaryDirectory() as place:
        write_set(Path(place), given.images, (height, width), given.segments)
        found = []
        for workers in given.workers:
            command = [sys.executable, "-m", "benchmarks.evaluation_scaling", "--folder", place]
            finished = subprocess.run(
                [*command, "--workers", str(workers)], check=True, capture_output=True, text=True
            )
            found.append(json.loads(finished.stdout))
    json.dump({"n_images": given.images, "size": [height, width], "runs": found}, sys.stdout, indent=2)
    sys.stdout.write("\n")


def measure(folder: Path, workers: int) -> dict[str, Any]:
    """One evaluation with both conventions and their intervals; seconds of its parts, memory of all processes."""
    start()
    started = time.perf_counter()
    truth = coco_truth(read_coco_panoptic(folder / "truth.json", folder / "truth"), None)
    predicted = coco_predicted(
        read_coco_panoptic(folder / "prediction.json", folder / "prediction"), truth, "known"
    )
    paired = pair_sides(truth, predicted)
    read, read_mib, read_cpu = time.perf_counter(), memory_mib(), cpu_seconds()
    with tempfile.TemporaryDirectory() as place, WorkerMemory() as of_workers:
        tables = intersect_to_files(paired.pairs, Path(place), protocol=truth.protocol, workers=workers)
        intersected, intersected_mib = time.perf_counter(), memory_mib()
        intersect_cpu = cpu_seconds() - read_cpu
        quality = evaluate(tables, truth, predicted)
        n_rows, n_bytes = sum(map(len, tables)), sum(path.stat().st_size for path in tables.paths)
    return {
        "workers": workers,
        "seconds": {
            "read_json": read - started,
            "intersect": intersected - read,
            "evaluate": time.perf_counter() - intersected,
        },
        "intersect_cpu_seconds": intersect_cpu,
        "images_per_s": len(paired.pairs) / (intersected - read),
        "n_rows": n_rows,
        "table_mib": n_bytes / KIB_PER_MIB**2,
        "peak_mib": {
            "after_json": read_mib,
            "after_intersecting": intersected_mib,
            "parent": memory_mib(),
            "largest_worker": of_workers.peak_mib,
        },
        "PQ": quality,
    }


def evaluate(tables: TableFiles, truth: TruthSide, predicted: PredictedSide) -> float:
    """PQ; all conventions and their intervals are computed with it."""
    evaluation = evaluate_table(
        tables,
        truth.protocol,
        things=predicted.things,
        stuff=predicted.stuff,
        classes=predicted.classes,
        space=truth.space,
    )
    return float(evaluation.to_dict()["standard"]["PQ"])


class WorkerMemory:
    """Watches the resident memory of the processes that this one starts."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            for child in multiprocessing.active_children():
                with contextlib.suppress(OSError):
                    self.peak_mib = max(self.peak_mib, memory_mib(str(child.pid)))


def memory_mib(process: str = "self") -> float:
    """Largest resident memory of a process so far."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / KIB_PER_MIB if found else 0.0


def cpu_seconds() -> float:
    """Of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write_set(folder: Path, n_images: int, size: tuple[int, int], n_segments: int) -> None:
    """Ground truth and predictions of ``n_images`` images as COCO panoptic files."""
    generator = numpy_generator(0, "scaling", n_segments)
    truths = [paint(size, n_segments, generator) for _ in range(N_PAINTED)]
    moved = [
        PanopticMap(np.roll(side.semantic_map, 3, 1), np.roll(side.instance_map, 3, 1)) for side in truths
    ]
    categories = [
        {"id": index, "name": f"class {index}", "isthing": int(index in THINGS)} for index in range(N_CLASSES)
    ]
    for name, sides in (("truth", truths), ("prediction", moved)):
        (folder / name).mkdir()
        pictures = [encode_png(ids_to_rgb(segment_ids(side))) for side in sides]
        segments = [segments_info(side) for side in sides]
        annotations = []
        for number in range(n_images):
            file_name = f"{number:06}.png"
            (folder / name / file_name).write_bytes(pictures[number % N_PAINTED])
            annotations.append(
                {"image_id": number, "file_name": file_name, "segments_info": segments[number % N_PAINTED]}
            )
        content = {"categories": categories, "annotations": annotations}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def paint(size: tuple[int, int], n_segments: int, generator: np.random.Generator) -> PanopticMap:
    """Ellipses of random size before bands of stuff."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    semantic = (rows * THINGS.start // size[0]).astype(np.uint8)
    instance = np.zeros(size, np.uint16)
    for number in range(1, n_segments - THINGS.start + 1):
        centre_y, centre_x = generator.uniform(0, size[0]), generator.uniform(0, size[1])
        radius = generator.uniform(0.02, 0.15) * size[0]
        inside = ((rows - centre_y) / radius) ** 2 + ((columns - centre_x) / (2 * radius)) ** 2 < 1
        semantic[inside], instance[inside] = generator.choice(THINGS), number
    return PanopticMap(semantic, instance)


if __name__ == "__main__":
    main()
