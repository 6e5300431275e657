"""How fast self-distillation trains: images per second, and where the time of a step goes.

Needs torch, NumPy and settings as JSON or YAML; frames are random colours, which cost what video costs. Prints one
JSON object: images per second of whole steps, seconds of a step (also those of the processor alone, which other work
on the machine does not change), of drawing and making crops, peak memory of the device, and what was run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gestalt.errors import GestaltError
from gestalt.features.distillation_loop import DistillationTraining, check_settings
from gestalt.features.distillation_training import SETTINGS, read_settings
from gestalt.features.training_images import make_images
from gestalt.runtime import choose_device, numpy_generator, peak_memory_mib

DIGITS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/feature_training.py", description=__doc__)
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="YAML or JSON (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="numeric threads (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=64, help="random frames (default: %(default)s)")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as batch_size=256")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(parsed.threads)
    try:
        print(json.dumps(measure(parsed)))
    except GestaltError as error:
        print(f"benchmarks/feature_training.py: {error}", file=sys.stderr)
        sys.exit(1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step after one step that warms up."""
    settings = read_settings(arguments.settings, arguments.overrides)
    device = choose_device(arguments.device, key="--device")
    shape = (arguments.frames, arguments.height, arguments.width, 3)
    noise = numpy_generator(0, "feature_training").integers(0, 256, shape, np.uint8)
    images = make_images(noise, origin="random frames")
    check_settings(settings, images.size)
    with tempfile.TemporaryDirectory() as folder:
        training = DistillationTraining(images, settings, seed=0, device=device, folder=Path(folder))
        training.take_step(0, training.draw(0))
        steps = arguments.steps
        seconds, cpu_seconds = timed(
            lambda step: training.take_step(step, training.draw(step)), steps, device
        )
        views, _ = timed(lambda step: training.make_views(training.draw(step)), steps, device)
    on_gpu = device.type != "cpu"
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_memory_mib()
    return {
        "images_per_second": round(settings.batch_size / seconds, DIGITS),
        "seconds_per_step": round(seconds, DIGITS),
        "cpu_seconds_per_step": round(cpu_seconds, DIGITS),
        "seconds_for_crops": round(views, DIGITS),
        "peak_memory_mib": round(memory),
        "batch_size": settings.batch_size,
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu, {arguments.threads} threads",
        "torch": torch.__version__,
    }


def timed(work: Callable[[int], object], n: int, device: torch.device) -> tuple[float, float]:
    """Mean seconds of ``work`` over steps 1 to ``n``, the device's work included, and those of the processor alone."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    for step in range(1, n + 1):
        work(step)
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / n, (time.process_time() - cpu_start) / n


if __name__ == "__main__":
    main()
