"""Depth-guided inference of one frame: batched windows beside one window at a time.

A probe of random codes on a vision transformer with random weights (ViT-B/8 by default) labels one image of
random streets from sliding windows and the halved view, fused by depth. Prints one JSON object: milliseconds of both
ways, their ratio, the largest difference of a probability, the largest memory. On a GPU the batched way runs in bf16.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence

import numpy as np
import torch

from gestalt.config.semantics import SemanticsSettings
from gestalt.features.vit import VitLayout
from gestalt.features.vit_features import VitFeatures
from gestalt.runtime import available_cores, choose_device, peak_memory_mib, start, torch_generator
from gestalt.semantics.code_head import CodeHead
from gestalt.semantics.probe import CODES, FloatArray, ProbeCard, SemanticProbe, SemanticViews, UInt8Array

BATCHED, ONE_BY_ONE = "batched", "one_by_one"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depth_guided", description=__doc__)
    parser.add_argument("--height", type=int, default=640, help="of the image (default: %(default)s)")
    parser.add_argument("--width", type=int, default=1280, help="of the image (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=12, help="blocks of the network (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=768, help="width of a token (default: %(default)s)")
    parser.add_argument("--patch", type=int, default=8, help="side of a patch, px (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=21, help="windows at once (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    options = parser.parse_args(arguments)
    start(threads=available_cores())
    device = choose_device(options.device, key="--device")
    probe = random_probe(options, device)
    image, disparity = random_street(options.height, options.width)
    views: dict[str, SemanticViews] = {}
    milliseconds: dict[str, float] = {}
    for name, batch, precision in ((ONE_BY_ONE, 1, "fp32"), (BATCHED, options.batch, "auto")):
        settings = inference_settings(batch, precision)
        times = []
        for _ in range(options.repeats):
            synchronise(device)
            started = time.perf_counter()
            views[name] = probe.views(image, disparity, options.width / 2.0, 0.22, settings)
            synchronise(device)
            times.append(time.perf_counter() - started)
        milliseconds[name] = round(1000 * min(times), 2)
    difference = (views[BATCHED].fused.exp() - views[ONE_BY_ONE].fused.exp()).abs().max()
    report = {
        "image": [options.height, options.width],
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "milliseconds": milliseconds,
        "ratio": round(milliseconds[ONE_BY_ONE] / milliseconds[BATCHED], 2),
        "largest_difference": float(difference),
        "peak_rss_mib": round(peak_memory_mib(), 1),
    }
    if device.type != "cpu":
        report["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    print(json.dumps(report))


def random_probe(options: argparse.Namespace, device: torch.device) -> SemanticProbe:
    """27 pseudo-classes of random codes; the work is that of trained ones."""
    torch.manual_seed(0)
    layout = VitLayout(options.patch, options.tokens, options.depth, options.tokens // 64)
    features = VitFeatures(layout).to(device).eval()
    card = ProbeCard(
        n_pseudo_classes=27,
        feature_dimension=features.dimension,
        geometry=False,
        method=CODES,
        unit_features=False,
        code_dimension=100,
        temperature=0.0,
        sharpness=2.0,
        inertia=0.0,
        cluster_shares=[],
        mean_rows=[],
        training={},
    )
    prototypes = torch.nn.functional.normalize(torch.randn(27, 100, generator=torch_generator(0)), dim=1)
    nothing = torch.zeros(0, device=device)
    head = CodeHead(features.dimension, 100).to(device).eval()
    return SemanticProbe(features, card, prototypes.to(device), nothing, nothing, head)


def inference_settings(batch: int, precision: str) -> SemanticsSettings:
    """Windows and fusion as CUPS, without the CRF."""
    from gestalt.config.crf import CrfSettings

    crf = CrfSettings(
        iterations=0,
        gaussian_weight=3.0,
        gaussian_sigma_px=1.0,
        bilateral_weight=4.0,
        bilateral_sigma_px=67.0,
        bilateral_sigma_rgb=3.0,
    )
    # Only what inference reads matters; machines that lend a GPU compose no presets.
    settings = SemanticsSettings()
    return dataclasses.replace(
        settings,
        method=CODES,
        n_pseudo_classes=27,
        sharpness=2.0,
        geometry=False,
        windows=True,
        window_batch=batch,
        precision=precision,
        fusion=True,
        depth_scale_m=1.0,
        max_depth_m=200.0,
        crf=crf,
    )


def random_street(height: int, width: int) -> tuple[UInt8Array, FloatArray]:
    """(H, W, 3) uint8 noise, and (H, W) float32 disparity that grows below the horizon."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    rows = np.arange(height, dtype=np.float32)[:, None] - 0.4 * height
    disparity = np.broadcast_to((0.15 * rows).clip(0), (height, width)).astype(np.float32)
    return image, disparity


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
