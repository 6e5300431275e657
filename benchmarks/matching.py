"""Optical flow and disparity by RAFT: our matcher against six separate calls per frame.

Both measure the same consecutive frames with the same network. The six calls are the way of the CUPS authors: each
pair alone, in fp32, both images encoded anew, every update brought to full size. Prints one JSON object: frames per
second of both and CPU seconds per frame, their ratios, peak memory of both on a GPU (MiB), and by how much the results
differ (px, mean over pixels). Without --weights the network has random ones, which takes the same time. Needs torch,
torchvision, NumPy and tqdm, nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gestalt.errors import GestaltError
from gestalt.matching.measurement import Measurement
from gestalt.matching.raft import LAYOUTS, Raft
from gestalt.matching.raft_matcher import RaftMatcher, to_network
from gestalt.matching.raft_weights import load_network
from gestalt.runtime import choose_device

UInt8Array = npt.NDArray[np.uint8]
# The shift of the made-up texture between frames and between views, px.
MOVED, DISPARITY = 4, 12


@dataclass(frozen=True, eq=False)
class Views:
    """The four images of a frame."""

    left: UInt8Array
    right: UInt8Array
    left_next: UInt8Array
    right_next: UInt8Array


@dataclass(frozen=True)
class Passes:
    """What the matcher reads of the section ``motion.raft``."""

    flow_iterations: int
    stereo_iterations: int
    precision: str
    max_vertical_px: float = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/matching.py", description=__doc__)
    parser.add_argument("--height", type=int, default=640)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument(
        "--frames", type=at_least_one, default=6, help="timed consecutive frames, after a first one"
    )
    parser.add_argument("--variant", choices=list(LAYOUTS), default="large")
    parser.add_argument("--weights", type=Path, help="folder of a network; its variant counts then")
    parser.add_argument("--flow-iterations", type=int, default=16)
    parser.add_argument("--stereo-iterations", type=int, default=16)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0)
    try:
        report = measure(parser.parse_args(arguments))
    except GestaltError as error:
        print(f"benchmarks/matching.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(report))


def at_least_one(text: str) -> int:
    """A whole number above 0."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Got: {number}")
    return number


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time both ways; the first frame of each pays for warming up and is not counted."""
    device = choose_device(arguments.device, key="--device")
    torch.manual_seed(arguments.seed)
    network = load_network(arguments.weights) if arguments.weights else Raft(arguments.variant)
    passes = Passes(arguments.flow_iterations, arguments.stereo_iterations, arguments.precision)
    matcher = RaftMatcher(network, passes, device)
    frames = consecutive_frames(arguments.frames + 1, arguments.height, arguments.width, arguments.seed)

    ours, ours_cost = timed(matcher.measure, frames, device)
    six, six_cost = timed(lambda frame: six_calls(network, frame, passes, device), frames, device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "variant": network.variant,
        "size": [arguments.height, arguments.width],
        "iterations": [passes.flow_iterations, passes.stereo_iterations],
        "precision": passes.precision,
        "frames": arguments.frames,
        "frames_per_second": round(1 / ours_cost.seconds, 4),
        "frames_per_second_six_calls": round(1 / six_cost.seconds, 4),
        "ratio": round(six_cost.seconds / ours_cost.seconds, 3),
        "cpu_seconds": round(ours_cost.cpu_seconds, 4),
        "cpu_seconds_six_calls": round(six_cost.cpu_seconds, 4),
        "cpu_ratio": round(six_cost.cpu_seconds / ours_cost.cpu_seconds, 3),
        "peak_device_memory_mib": ours_cost.peak_device_memory_mib,
        "peak_device_memory_mib_six_calls": six_cost.peak_device_memory_mib,
        "mean_difference_px": {
            name: round(float(np.abs(getattr(ours, name) - getattr(six, name)).mean()), 6)
            for name in ("optical_flow_forward", "optical_flow_backward", "disparity", "disparity_right")
        },
    }


@dataclass(frozen=True)
class Cost:
    """What a frame takes; memory is None where the device has none of its own."""

    seconds: float
    cpu_seconds: float
    peak_device_memory_mib: float | None


def timed(
    measure_frame: Callable[[Views], Measurement], frames: Sequence[Views], device: torch.device
) -> tuple[Measurement, Cost]:
    """The last measurement, and what a frame costs on average; the first frame is not counted."""
    is_gpu = device.type != "cpu"
    measure_frame(frames[0])
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    # Measurements lie in main memory when they are returned, so nothing is left running at the end.
    started, cpu_started = time.perf_counter(), time.process_time()
    for frame in frames[1:]:
        measurement = measure_frame(frame)
    n_timed = len(frames) - 1
    return measurement, Cost(
        seconds=(time.perf_counter() - started) / n_timed,
        cpu_seconds=(time.process_time() - cpu_started) / n_timed,
        peak_device_memory_mib=round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if is_gpu else None,
    )


def six_calls(network: Raft, frame: Views, passes: Passes, device: torch.device) -> Measurement:
    """Every pair of a frame by itself, as the CUPS authors do."""
    left, right, left_next, right_next = (
        to_network(image, device) for image in (frame.left, frame.right, frame.left_next, frame.right_next)
    )
    height, width = frame.left.shape[:2]

    def call(first: torch.Tensor, second: torch.Tensor, iterations: int) -> npt.NDArray[np.float32]:
        return network(first, second, iterations)[-1][0, :, :height, :width].cpu().numpy()

    flow, stereo = passes.flow_iterations, passes.stereo_iterations
    return Measurement(
        optical_flow_forward=call(left, left_next, flow),
        optical_flow_backward=call(left_next, left, flow),
        disparity=np.maximum(-call(left, right, stereo)[0], 0),
        disparity_next=np.maximum(-call(left_next, right_next, stereo)[0], 0),
        disparity_right=np.maximum(call(right, left, stereo)[0], 0),
        disparity_right_next=np.maximum(call(right_next, left_next, stereo)[0], 0),
    )


def consecutive_frames(n_frames: int, height: int, width: int, seed: int) -> list[Views]:
    """Frames of which each one's t+1 is the next one's t: a texture that moves."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 4 + 2, (width + DISPARITY + MOVED * n_frames) // 4 + 3, 3))
    texture = coarse.astype(np.uint8).repeat(4, 0).repeat(4, 1)
    lefts = [texture[:height, MOVED * t : MOVED * t + width] for t in range(n_frames + 1)]
    rights = [
        texture[:height, MOVED * t + DISPARITY : MOVED * t + DISPARITY + width] for t in range(n_frames + 1)
    ]
    return [Views(lefts[t], rights[t], lefts[t + 1], rights[t + 1]) for t in range(n_frames)]


if __name__ == "__main__":
    main()
