"""Features of an image by a vision transformer with official DINO weights, and what they cost.

Writes tokens (h, w, D) after the final norm, keys (h, w, D) and attention of CLS (heads, h, w) of the last block as
float32. Prints one JSON object: seconds and CPU seconds of the encoding alone (the median of the repeats, after a
first one), peak memory of the process, architecture. Needs torch, NumPy and OpenCV.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gestalt.data.atomic_files import written_aside
from gestalt.data.images import read_image
from gestalt.errors import DataError, GestaltError
from gestalt.features.backbones import read_backbone
from gestalt.features.dense import DenseFeatures, FeatureGrid, image_to_tensor, normalise, pad_to_cells
from gestalt.features.vit_features import VitFeatures
from gestalt.runtime import choose_device, limit_threads, peak_memory_mib


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/features.py", description=__doc__)
    parser.add_argument(
        "--weights", type=Path, required=True, help="state dict or training checkpoint of DINO"
    )
    parser.add_argument("--image", type=Path, required=True, help="PNG or JPEG, any size of at least a patch")
    parser.add_argument("--out", type=Path, required=True, help="NPZ to write")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="as the environment says when not given")
    parser.add_argument("--repeats", type=int, default=1, help="timed encodings, after a first one")
    parser.add_argument(
        "--beside-timm", action="store_true", help="also time timm's network with the same weights, in turns"
    )
    try:
        report = measure(parser.parse_args(arguments))
    except GestaltError as error:
        print(f"benchmarks/features.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(report))


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode the image, write what comes out, and say what it took."""
    if arguments.threads:
        limit_threads(arguments.threads)
    device = choose_device(arguments.device, key="--device")
    features = read_backbone(arguments.weights).to(device)
    if not isinstance(features, VitFeatures):
        raise DataError(f"{arguments.weights} must hold a vision transformer. Got: {features.kind}")
    image = image_to_tensor(read_image(arguments.image), device)
    ways: dict[str, Callable[[], object]] = {"": lambda: features.extract(image)}
    if arguments.beside_timm:
        network = timm_twin(features, image)
        normalised = pad_to_cells(normalise(image), features.stride)
        ways["_timm"] = lambda: network.forward_features(normalised)
    costs = time_in_turns(ways, arguments.repeats, device)
    grid = features.extract(image)
    with written_aside(arguments.out) as aside, aside.open("wb") as file:
        np.savez(file, **to_arrays(grid))
    report: dict[str, Any] = {
        "architecture": features.card()["architecture"],
        "patch_size": features.stride,
        "dimension": features.dimension,
        "size": list(image.shape[2:]),
        "grid": list(grid.tokens.shape[2:]),
        "device": torch.cuda.get_device_name(device) if device.type != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": arguments.repeats,
        "peak_rss_mib": round(peak_memory_mib(), 1),
    }
    for name, (seconds, cpu_seconds) in costs.items():
        report[f"seconds{name}"], report[f"cpu_seconds{name}"] = round(seconds, 5), round(cpu_seconds, 5)
    if arguments.beside_timm:
        report["ratio"] = round(report["seconds_timm"] / report["seconds"], 3)
    return report


def time_in_turns(
    ways: dict[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Median seconds and CPU seconds of each way; ways take turns, so that a busy machine slows them alike."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(max(1, repeats) + 1):
        for name, run in ways.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            run()
            if device.type != "cpu":
                torch.cuda.synchronize(device)
            # The first turn pays for warming up.
            if turn:
                taken[name].append((time.perf_counter() - started, time.process_time() - cpu_started))
    return {name: tuple(map(statistics.median, zip(*costs))) for name, costs in taken.items()}  # type: ignore[misc]


def timm_twin(features: DenseFeatures, image: Tensor) -> Any:
    """The network of timm with the same sizes, weights, and positions for the size of the image."""
    try:
        from timm.models.vision_transformer import VisionTransformer as Twin
    except ImportError as error:
        raise DataError("--beside-timm needs timm: pip install -e '.[timm]'") from error
    assert isinstance(features, VitFeatures)
    layout = features.layout
    twin = Twin(
        img_size=layout.grid * layout.patch_size,
        patch_size=layout.patch_size,
        embed_dim=layout.width,
        depth=layout.depth,
        num_heads=layout.heads,
        mlp_ratio=layout.mlp_ratio,
        num_classes=0,
        dynamic_img_size=True,
    )
    twin.load_state_dict(features.network.state_dict())
    return twin.to(image.device).eval()


def to_arrays(grid: FeatureGrid) -> dict[str, np.ndarray]:
    """The arrays of the contract."""
    assert grid.keys is not None
    assert grid.cls_attention is not None
    return {
        "tokens": grid.tokens[0].permute(1, 2, 0).float().cpu().numpy(),
        "keys": grid.keys[0].permute(1, 2, 0).float().cpu().numpy(),
        "cls_attention": grid.cls_attention[0].float().cpu().numpy(),
    }


if __name__ == "__main__":
    main()
