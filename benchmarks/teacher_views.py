"""How long the teacher of the self-training takes for a batch: views in batches, or one view of one image at a time.

The CUPS reference runs each view of each image alone. Ours runs all images of a scale, mirrored ones too, at once.
Weights and images are random; both are asked for the same, and how far their answers differ is printed. Rounds of the
two alternate, and the ratio is the median over rounds. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gestalt.config.presets import default_settings
from gestalt.errors import GestaltError
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.records import Detections, Prediction
from gestalt.network.test_time import predict_views
from gestalt.panoptic import Vocabulary
from gestalt.runtime import choose_device, peak_memory_mib

DIGITS = 3
VOCABULARY = Vocabulary(things=(1, 3), stuff=(0, 2, 4))


class OneAtATime:
    """A network that takes the images of a batch one by one."""

    def __init__(self, network: PanopticModel) -> None:
        self._network = network
        self.suppress = network.suppress

    def detect(self, images: Tensor, score_threshold: float) -> tuple[list[Tensor], list[Detections], Tensor]:
        """See ``PanopticModel.detect``."""
        found = [self._network.detect(images[n : n + 1], score_threshold) for n in range(len(images))]
        pyramid = [torch.cat(levels) for levels in zip(*(own[0] for own in found), strict=True)]
        return pyramid, [own[1][0] for own in found], torch.cat([own[2] for own in found])

    def mask_probs(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], classes: Sequence[Tensor]
    ) -> list[Tensor]:
        """See ``PanopticModel.mask_probs``."""
        return [
            self._network.mask_probs(
                [level[n : n + 1] for level in pyramid], boxes[n : n + 1], classes[n : n + 1]
            )[0]
            for n in range(len(boxes))
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/teacher_views.py", description=__doc__)
    parser.add_argument("--network", default="small", help="file of conf/network (default: %(default)s)")
    parser.add_argument("--size", default="192x384", help="rows x columns (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images (default: %(default)s)")
    parser.add_argument("--scales", default="0.5,0.75,1.0", help="of the views (default: %(default)s)")
    parser.add_argument(
        "--score-threshold", type=float, default=0.3, help="of detections (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="numeric threads (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(parsed.threads)
    try:
        print(json.dumps(measure(parsed)))
    except GestaltError as error:
        print(f"benchmarks/teacher_views.py: {error}", file=sys.stderr)
        sys.exit(1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds per batch of both, their ratio, and how far the answers differ."""
    height, width = (int(side) for side in arguments.size.split("x"))
    scales = [float(scale) for scale in arguments.scales.split(",")]
    device = choose_device(arguments.device, key="--device")
    torch.manual_seed(0)
    network = build_network(default_settings("network", arguments.network), VOCABULARY).to(device).eval()
    network = network.to(memory_format=torch.channels_last)
    images = torch.rand(arguments.batch, 3, height, width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    kinds: dict[str, Any] = {"batched": network, "single": OneAtATime(network)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in kinds}
    answers: dict[str, list[Prediction]] = {}
    for number in range(arguments.rounds + 1):
        for name in sorted(kinds, reverse=number % 2 == 1):
            synchronise(device)
            start, cpu_start = time.perf_counter(), time.process_time()
            answers[name] = predict_views(
                kinds[name], images, scales=scales, flip=True, score_threshold=arguments.score_threshold
            )
            synchronise(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
                cpu_seconds[name].append(time.process_time() - cpu_start)
    on_gpu = device.type != "cpu"
    return {
        "seconds": round(statistics.median(seconds["batched"]), DIGITS),
        "single_seconds": round(statistics.median(seconds["single"]), DIGITS),
        "ratio": median_ratio(seconds),
        "cpu_ratio": median_ratio(cpu_seconds),
        "largest_difference": largest_difference(answers["batched"], answers["single"]),
        "detections": sum(len(found.detections.boxes) for found in answers["batched"]),
        "peak_memory_mib": round(
            torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_memory_mib()
        ),
        "views": 2 * len(scales),
        "batch_size": arguments.batch,
        "size": [height, width],
        "network": arguments.network,
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu, {arguments.threads} threads",
        "torch": torch.__version__,
    }


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def median_ratio(seconds: dict[str, list[float]]) -> float:
    """Median over rounds of one at a time over batched."""
    pairs = zip(seconds["batched"], seconds["single"], strict=True)
    return round(statistics.median(single / batched for batched, single in pairs), DIGITS)


def largest_difference(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    """Largest difference of semantic probabilities."""
    pairs = zip(first, second, strict=True)
    return max(float((a.semantic_probs - b.semantic_probs).abs().max()) for a, b in pairs)


if __name__ == "__main__":
    main()
