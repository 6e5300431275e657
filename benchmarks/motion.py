"""Moving-object masks from measured optical flow and disparity: time, memory and the masks themselves.

Prints one JSON object: `seconds` and `cpu_seconds` from loaded inputs to masks in the first call,
`seconds_warm` and `cpu_seconds_warm` in a second call, `peak_rss_mib` of the process, `n_objects`; `iou` of each
true object with its best mask where the scene has `instances`. `benchmarks/boxes.py` makes such a scene.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.config.presets import default_settings
from gestalt.errors import DataError, GestaltError
from gestalt.matching.measurement import Measurement
from gestalt.motion.proposals import camera_of
from gestalt.motion.rigid_objects import RigidObjects, find_rigid_objects
from gestalt.runtime import choose_device, limit_threads

MAPS = (
    "optical_flow_forward",
    "optical_flow_backward",
    "disparity",
    "disparity_next",
    "disparity_right",
    "disparity_right_next",
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/motion.py", description=__doc__)
    parser.add_argument(
        "--scene",
        type=Path,
        required=True,
        help="NPZ with optical_flow_forward and optical_flow_backward (2, H, W); disparity, disparity_next, "
        "disparity_right, disparity_right_next (H, W), positive, *_next on their own frame's grid, *_right on "
        "the right image's; intrinsics (3, 3); stereo_baseline (metres)",
    )
    parser.add_argument("--out", type=Path, required=True, help="NPZ to write: instance_map (H, W) uint16")
    parser.add_argument(
        "--variant",
        default="embedded",
        choices=("embedded", "paper"),
        help="settings; `embedded` measures the noise and fits every size, `paper` has the published numbers",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="numeric threads")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    try:
        report, found = measure(arguments)
    except GestaltError as error:
        print(f"benchmarks/motion.py: {error}", file=sys.stderr)
        sys.exit(1)
    np.savez_compressed(arguments.out, instance_map=found.instance_map)
    if found.reason:
        print(f"no objects: {found.reason}", file=sys.stderr)
    print(json.dumps(report))


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], RigidObjects]:
    """Find the objects twice; the first call pays for warming up."""
    scene = read_scene(arguments.scene)
    settings = default_settings("motion", arguments.variant)
    device = choose_device(arguments.device)
    seconds, cpu_seconds = [], []
    for _ in range(2):
        started, cpu_started = time.perf_counter(), time.process_time()
        found = find_rigid_objects(
            Measurement(**{name: scene[name] for name in MAPS}),
            camera_of(scene["intrinsics"], float(scene["stereo_baseline"])),
            settings,
            seed=arguments.seed,
            frame_id="scene",
            device=device,
        )
        seconds.append(round(time.perf_counter() - started, 4))
        cpu_seconds.append(round(time.process_time() - cpu_started, 4))
    report = {
        "seconds": seconds[0],
        "seconds_warm": seconds[1],
        "cpu_seconds": cpu_seconds[0],
        "cpu_seconds_warm": cpu_seconds[1],
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "n_objects": len(found.proposals),
    }
    if "instances" in scene:
        report["iou"] = [round(value, 4) for value in best_ious(scene["instances"], found.instance_map)]
    return report, found


def best_ious(true_map: np.ndarray, found_map: np.ndarray) -> list[float]:
    """Intersection over union of each true object, 1..N, with the mask that fits it best."""
    pairs = np.zeros((int(true_map.max()) + 1, int(found_map.max()) + 1))
    np.add.at(pairs, (true_map.astype(int), found_map.astype(int)), 1)
    union = pairs.sum(1, keepdims=True) + pairs.sum(0) - pairs
    iou = pairs / np.maximum(union, 1)
    return [float(row[1:].max(initial=0.0)) for row in iou[1:]]


def read_scene(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the scene, float32, and ``instances`` where it has them.

    Raises:
        DataError: The file or an array is missing.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; --scene names an NPZ file")
    with np.load(path) as stored:
        missing = sorted({*MAPS, "intrinsics", "stereo_baseline"} - set(stored.files))
        if missing:
            raise DataError(f"{path} lacks {', '.join(missing)}; see --help for the arrays")
        scene = {name: np.asarray(stored[name], np.float32) for name in MAPS}
        scene["intrinsics"] = np.asarray(stored["intrinsics"], np.float64)
        scene["stereo_baseline"] = np.asarray(stored["stereo_baseline"], np.float64)
        if "instances" in stored.files:
            scene["instances"] = np.asarray(stored["instances"])
    return scene


if __name__ == "__main__":
    main()
