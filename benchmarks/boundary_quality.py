"""CPU milliseconds of Boundary PQ per 1024 x 2048 image with 40 segments, ours and the authors', and the same numbers.

The authors' package (``boundary_iou``, with ``panopticapi``) is measured when it can be imported.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gestalt.data.images import write_png
from gestalt.evaluation.boundary import DILATION_SHARE, boundary_counts, boundary_statistics
from gestalt.evaluation.intersections import intersect
from gestalt.evaluation.panoptic_quality import STANDARD, panoptic_counts
from gestalt.panoptic import PanopticMap, ids_to_rgb, segment_ids, segments_info
from gestalt.runtime import limit_threads, numpy_generator

SIZE = (1024, 2048)
N_CLASSES = 19
THINGS = range(11, 19)
SHIFT_PX = 7


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=40, help="segments per image")
    parser.add_argument("--repeats", type=int, default=10, help="repetitions; the median counts")
    given = parser.parse_args()
    limit_threads(1)
    truth = paint(given.segments)
    prediction = PanopticMap(
        np.roll(truth.semantic_map, SHIFT_PX, 1), np.roll(truth.instance_map, SHIFT_PX, 1)
    )

    def ours(prediction: PanopticMap = prediction, truth: PanopticMap = truth) -> Any:
        return boundary_counts(boundary_statistics(prediction, truth), N_CLASSES, STANDARD).total()

    with tempfile.TemporaryDirectory() as folder:
        files = [
            write_coco(Path(folder) / name, side) for name, side in (("truth", truth), ("ours", prediction))
        ]
        milliseconds = {
            "panoptic_quality_in_memory": median_ms(
                lambda: panoptic_counts(intersect("image", prediction, truth), N_CLASSES), given.repeats
            ),
            "boundary_in_memory": median_ms(ours, given.repeats),
            "boundary_from_png": median_ms(
                lambda: ours(*(read_map(picture) for picture, _ in reversed(files))), given.repeats
            ),
        }
        result: dict[str, Any] = {
            "size": SIZE,
            "n_segments": len(segments_info(truth)),
            "cpu_ms": milliseconds,
            "boundary_PQ": ours().mean(range(N_CLASSES))["PQ"],
            "public": "not installed: boundary_iou and panopticapi",
        }
        with contextlib.suppress(ImportError):
            result["public"] = measure_public(files, milliseconds["boundary_from_png"], given.repeats)
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def measure_public(
    files: list[tuple[Path, list[dict[str, Any]]]], ours_ms: float, repeats: int
) -> dict[str, Any]:
    """The authors' evaluation of the same files, one process.

    Raises:
        ImportError: Their packages are not installed.
    """
    from boundary_iou.coco_panoptic_api import evaluation

    annotations = [
        {"file_name": picture.name, "image_id": "image", "segments_info": segments}
        for picture, segments in files
    ]
    categories = {number: {"id": number, "isthing": int(number in THINGS)} for number in range(N_CLASSES)}

    def evaluate() -> Any:
        pair = json.loads(json.dumps(annotations))  # it writes into its arguments
        with contextlib.redirect_stdout(io.StringIO()):
            return evaluation.pq_compute_single_core(
                0,
                [tuple(pair)],
                str(files[0][0].parent),
                str(files[1][0].parent),
                categories,
                "boundary",
                DILATION_SHARE,
            )

    found, _ = evaluate().pq_average(categories, isthing=None)
    cpu_ms = median_ms(evaluate, min(repeats, 3))
    return {"cpu_ms_from_png": cpu_ms, "public_to_ours": cpu_ms / ours_ms, "boundary_PQ": 100 * found["pq"]}


def paint(n_segments: int) -> PanopticMap:
    """Ellipses of random size before bands of stuff."""
    chance = numpy_generator(0, "boundary")
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    semantic = (rows * len(range(THINGS.start)) // SIZE[0]).astype(np.uint8)
    instance = np.zeros(SIZE, np.uint16)
    for number in range(1, n_segments - THINGS.start + 1):
        centre, radius = chance.uniform((0, 0), SIZE), chance.uniform((20, 20), (120, 200))
        inside = ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 < 1
        semantic[inside], instance[inside] = chance.choice(THINGS), number
    return PanopticMap(semantic, instance)


def write_coco(folder: Path, panoptic: PanopticMap) -> tuple[Path, list[dict[str, Any]]]:
    """The PNG of a map, and its ``segments_info``."""
    folder.mkdir()
    write_png(folder / "image.png", ids_to_rgb(segment_ids(panoptic)))
    return folder / "image.png", segments_info(panoptic, THINGS)


def read_map(picture: Path) -> PanopticMap:
    """The map that ``write_coco`` wrote, its ids 1 + class + 256 * instance."""
    blue, green, red = cv2.split(cv2.imread(str(picture), cv2.IMREAD_COLOR))
    return PanopticMap(red - np.uint8(1), cv2.merge([green, blue]).view(np.uint16)[..., 0])


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    """Median CPU time of a call, milliseconds, after one for practice."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
