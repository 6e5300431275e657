"""One image through a network in PyTorch, through its exported program, and through onnxruntime: time and differences.

NETWORK is a network folder; without one, an untrained network of a preset is made, whose boxes have opinions because
its classifiers are scaled up. All ways take turns on the same image with the same number of threads, so that other work
on the machine hits each alike; `ratio` is the median over turns of PyTorch's CPU seconds by theirs, above 1 where they
are cheaper. Times are from an image in [0, 1] to boxes, masks inside them and semantic logits, without the merge.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.errors import ConfigError, GestaltError
from gestalt.runtime import available_cores, peak_memory_mib, start

if TYPE_CHECKING:
    from torch import Tensor

N_THINGS, N_STUFF = 8, 11
CLASSIFIER_SCALE = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments, export, measure, print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/onnx_speed.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--network", type=Path, help="network folder; default: an untrained network")
    parser.add_argument("--preset", default="small", help="of the untrained network: small or paper")
    parser.add_argument("--size", default="192x384", metavar="HxW")
    parser.add_argument("--score-threshold", type=float, default=0.3)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: one per core")
    parser.add_argument("--formats", nargs="+", default=["onnx", "torch"], choices=["onnx", "torch"])
    given = parser.parse_args(arguments)
    # Before torch is imported: its threads wait as the environment says at that time.
    start(threads=given.threads)
    try:
        height, width = (int(side) for side in given.size.split("x"))
    except ValueError:
        parser.error(f"--size must be HxW, such as 512x1024. Got: {given.size!r}")
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = given.network or write_untrained(Path(place) / "network", given.preset, (height, width))
            report = compare(folder, Path(place), (height, width), given)
    except GestaltError as error:
        print(f"benchmarks/onnx_speed.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=1))
    return 0


def write_untrained(folder: Path, preset: str, size: tuple[int, int]) -> Path:
    """A network folder with random weights and confident classifiers."""
    import torch

    from gestalt.config.presets import default_settings
    from gestalt.network.architecture import build_panoptic_network
    from gestalt.network.checkpoint import NetworkCard, save_network
    from gestalt.panoptic import Vocabulary

    settings = default_settings("network", preset)
    torch.manual_seed(0)
    network = build_panoptic_network(settings, n_things=N_THINGS, n_stuff=N_STUFF).eval()
    with torch.no_grad():
        for stage in network.instance_heads.stages:
            stage.classify.weight.mul_(CLASSIFIER_SCALE)
    n_classes = N_THINGS + N_STUFF
    vocabulary = Vocabulary(tuple(range(N_THINGS)), tuple(range(N_THINGS, n_classes)))
    save_network(folder, network, NetworkCard(settings, vocabulary, size))
    return folder


def compare(folder: Path, place: Path, size: tuple[int, int], given: argparse.Namespace) -> dict[str, Any]:
    """Export, run all ways in turn, and say what each took and gave."""
    import torch

    from gestalt.inference.deployment import SUFFIXES, export_network, largest_differences, open_deployment
    from gestalt.network.checkpoint import load_network

    if given.turns < 1:
        raise ConfigError(f"--turns must be at least 1. Got: {given.turns}")
    network, _ = load_network(folder, torch.device("cpu"))
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    threshold = torch.tensor(given.score_threshold)

    @torch.no_grad()
    def in_pytorch() -> tuple[Tensor, ...]:
        pyramid, detections, logits = network.detect(image, given.score_threshold)
        found = detections[0]
        masks = network.mask_probs(pyramid, [found.boxes], [found.classes])[0]
        return found.boxes, found.scores, found.classes, masks, logits

    ways: dict[str, Callable[[], tuple[Tensor, ...]]] = {"pytorch": in_pytorch}
    report: dict[str, Any] = {"size": list(size), "threads": given.threads, "turns": given.turns}
    for form in given.formats:
        path = place / f"graph{SUFFIXES[form]}"
        began = time.process_time()
        export_network(folder, path, form=form, size=size)
        engine, _ = open_deployment(path)
        ways[form] = lambda engine=engine: engine(image, threshold)  # type: ignore[misc]
        report[form] = {
            "export_cpu_seconds": round(time.process_time() - began, 1),
            "file_mib": round(path.stat().st_size / 2**20, 1),
        }
    outputs = {name: run() for name, run in ways.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(given.turns):
        for name, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    for name in ways:
        entry = report.setdefault(name, {})
        entry["wall_ms"] = round(1000 * statistics.median(wall for wall, _ in spent[name]), 1)
        entry["cpu_ms"] = round(1000 * statistics.median(cpu for _, cpu in spent[name]), 1)
        if name != "pytorch":
            ratios = [ours[1] / theirs[1] for ours, theirs in zip(spent["pytorch"], spent[name], strict=True)]
            entry["ratio"] = round(statistics.median(ratios), 3)
            entry["largest_differences"] = largest_differences(outputs["pytorch"], outputs[name])
    report["peak_rss_mib"] = round(peak_memory_mib())
    return report


if __name__ == "__main__":
    sys.exit(main())
