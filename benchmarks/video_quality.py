"""CPU seconds of STQ and VPQ for a video of 100 frames of 375 x 1242 pixels: ours and the public STQ when installed.

``--reference MODULE`` names an importable module with the class ``STQuality`` of the public NumPy evaluation
(google-research/deeplab2). Nothing is fetched here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.video_quality import evaluate_video
from gestalt.panoptic import VOID, PanopticMap
from gestalt.runtime import limit_threads, numpy_generator, peak_memory_mib

SIZE = (375, 1242)
N_CLASSES = 19
THINGS = (11, 13)
N_BANDS = 11
REFERENCE = "deeplab2.evaluation.numpy.segmentation_and_tracking_quality"
# Bits of an instance in the ids that the public evaluation takes.
INSTANCE_BITS = 16

Frame = tuple[PanopticMap, PanopticMap]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100, help="frames of the video")
    parser.add_argument("--objects", type=int, default=25, help="objects that move through it")
    parser.add_argument("--reference", default=REFERENCE, metavar="MODULE", help="public NumPy STQ")
    given = parser.parse_args()
    limit_threads(1)
    frames = paint(given.frames, given.objects)
    table, reading = cpu_seconds(lambda: read(frames))
    sequence_of = {name: ("drive", int(name)) for name in table.image_ids}
    quality, counting = cpu_seconds(lambda: evaluate_video(table, sequence_of, N_CLASSES, THINGS))
    headline = {name: float(value) for name, value in quality.headline().items()}
    result: dict[str, Any] = {
        "size": SIZE,
        "n_frames": given.frames,
        "n_rows": len(table),
        "n_tubes": int(quality.counts.n_tubes.sum()),
        "ours": headline,
        "cpu_seconds": {"pixels_to_tables": reading, "tables_to_stq_and_vpq": counting},
        "peak_memory_mib": peak_memory_mib(),
    }
    try:
        public = importlib.import_module(given.reference).STQuality
    except ImportError as error:
        result["public"] = f"not installed: {error}"
    else:
        scores, seconds = cpu_seconds(lambda: evaluate_publicly(public, frames))
        result["public"] = {name: 100 * float(scores[name]) for name in ("STQ", "AQ", "IoU")}
        result["cpu_seconds"]["public_stq"] = seconds
        result["public_to_ours"] = seconds / (reading + counting)
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def paint(n_frames: int, n_objects: int) -> list[Frame]:
    """Boxes that move before bands of stuff, each frame with a prediction that is a little off and swaps ids."""
    generator = numpy_generator(0, "speed", "video")
    height, width = SIZE
    top, left = generator.uniform(0, height, n_objects), generator.uniform(0, width, n_objects)
    tall, wide = generator.uniform(15, 120, n_objects), generator.uniform(15, 160, n_objects)
    speed = generator.uniform(-8, 8, n_objects)
    kinds = generator.choice(THINGS, n_objects)
    # Ragged borders, as real ones: a straight one would be a single run of pixels per row.
    border = np.cumsum(generator.normal(size=width)).astype(int)
    rows = np.clip(np.arange(height)[:, None] + border, 0, height - 1)
    bands = (rows * N_BANDS // height).astype(np.uint8)
    frames = []
    for number in range(n_frames):
        semantic, instance = bands.copy(), np.zeros(SIZE, np.uint16)
        semantic[:20] = VOID
        columns = np.mod(left + number * speed, width).astype(int)
        for index in range(n_objects):
            box = (
                slice(int(top[index]), int(top[index] + tall[index])),
                slice(columns[index], int(columns[index] + wide[index])),
            )
            semantic[box], instance[box] = kinds[index], index + 1
        ids = np.arange(n_objects + 1, dtype=np.uint16)
        swapped = generator.integers(1, n_objects + 1, 2)
        ids[swapped] = ids[swapped[::-1]]
        prediction = PanopticMap(np.roll(semantic, 3, axis=1), np.roll(ids[instance], 3, axis=1))
        frames.append((prediction, PanopticMap(semantic, instance)))
    return frames


def read(frames: list[Frame]) -> IntersectionTable:
    """The table of all frames."""
    return merge_tables(intersect(f"{number:06d}", *frame) for number, frame in enumerate(frames))


def evaluate_publicly(reference: Any, frames: list[Frame]) -> dict[str, Any]:
    """The public numbers, as fractions."""
    quality = reference(N_CLASSES, list(THINGS), VOID, INSTANCE_BITS, 2 ** (8 + INSTANCE_BITS))
    for prediction, truth in frames:
        ours, theirs = (
            (side.semantic_map.astype(np.int64) << INSTANCE_BITS) + side.instance_map
            for side in (prediction, truth)
        )
        quality.update_state(theirs, ours, "drive")
    scores: dict[str, Any] = quality.result()
    return scores


def cpu_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and the CPU seconds of this process: the smallest of three calls."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return result, min(seconds)


if __name__ == "__main__":
    main()
