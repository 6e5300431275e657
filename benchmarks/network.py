"""A panoptic network with the weights of a published checkpoint on one image, and what it costs.

Writes boxes (N, 4), scores (N,), classes (N,) (thing index), masks (N, H, W), semantic_logits (S + 1, H, W) and
panoptic (H, W, 2): the unified class, 255 where void, and the instance, 0 where there is none. The image keeps its
size. Prints one JSON object: how the checkpoint fits the network (counts, and the first names of each kind), seconds
and CPU seconds of a prediction from the image's tensor to the panoptic map (the median of the repeats, after a first
one where there are several), peak memory of the process.

The limit of stuff is in pixels here, 4096 at any size, as the published code has it; `gestalt predict` scales it with
the image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gestalt.config.presets import default_settings
from gestalt.data.atomic_files import written_aside
from gestalt.data.images import read_image
from gestalt.errors import GestaltError
from gestalt.network.checkpoint_files import (
    PARTS,
    NetworkCheckpoint,
    load_checkpoint,
    read_network_checkpoint,
    unified_vocabulary,
)
from gestalt.network.instance_heads import paste_mask
from gestalt.network.merge import MASK_THRESHOLD, merge_panoptic
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.records import Detections, Prediction
from gestalt.runtime import choose_device, limit_threads, peak_memory_mib

# Of the panoptic merge, as published.
MIN_STUFF_PX, OVERLAP_SHARE = 4096, 0.5
# Names of a kind of weights that are printed.
SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/network.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="Lightning's or detectron2's file")
    parser.add_argument("--part", choices=PARTS, default=PARTS[0], help="of a checkpoint of self-training")
    parser.add_argument("--image", type=Path, required=True, help="PNG or JPEG, any size")
    parser.add_argument("--score-threshold", type=float, default=0.5, help="detections must score above")
    parser.add_argument(
        "--min-stuff-px", type=int, default=MIN_STUFF_PX, help="smaller stuff segments are void"
    )
    parser.add_argument("--out", type=Path, required=True, help="NPZ to write")
    parser.add_argument("--backend", choices=("torchvision", "detectron2"), default="torchvision")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="as the environment says when not given")
    parser.add_argument("--repeats", type=int, default=1, help="timed predictions")
    try:
        report = measure(parser.parse_args(arguments))
    except GestaltError as error:
        print(f"benchmarks/network.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(report))


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the checkpoint, predict the image, write what comes out, and say what it took."""
    if arguments.threads:
        limit_threads(arguments.threads)
    device = choose_device(arguments.device, key="--device")
    started = time.perf_counter()
    checkpoint = read_network_checkpoint(
        arguments.checkpoint, default_settings("network", "paper"), part=arguments.part
    )
    # A checkpoint without one of the heads still runs; the report says what is missing.
    vocabulary = unified_vocabulary(max(checkpoint.n_things, 1), max(checkpoint.n_stuff, 1))
    network = load_checkpoint(checkpoint, vocabulary, backend=arguments.backend).to(device)
    load_seconds = time.perf_counter() - started
    image = torch.from_numpy(read_image(arguments.image)).to(device).permute(2, 0, 1)[None] / 255
    arrays: dict[str, Any] = {}
    costs = []
    for turn in range(arguments.repeats + (arguments.repeats > 1)):
        started, cpu_started = time.perf_counter(), time.process_time()
        arrays = predict(network, image, arguments.score_threshold, arguments.min_stuff_px)
        # Arrays are on the CPU, so that nothing is still running. The first of several turns pays for warming up.
        if turn or arguments.repeats == 1:
            costs.append((time.perf_counter() - started, time.process_time() - cpu_started))
    with written_aside(arguments.out) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)
    seconds, cpu_seconds = (statistics.median(values) for values in zip(*costs, strict=True))
    return {
        **describe(checkpoint),
        "backend": arguments.backend,
        "detections": len(arrays["boxes"]),
        "size": list(image.shape[-2:]),
        "device": torch.cuda.get_device_name(device) if device.type != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": arguments.repeats,
        "load_seconds": round(load_seconds, 4),
        "seconds": round(seconds, 5),
        "cpu_seconds": round(cpu_seconds, 5),
        "peak_rss_mib": round(peak_memory_mib(), 1),
    }


def describe(checkpoint: NetworkCheckpoint) -> dict[str, Any]:
    """How the checkpoint fits the network."""
    report = checkpoint.report
    kinds = {"missing": report.missing, "unexpected": report.unexpected, "misshapen": report.misshapen}
    return {
        "n_things": checkpoint.n_things,
        "n_stuff": checkpoint.n_stuff,
        "matched": report.fitting,
        **{kind: len(names) for kind, names in kinds.items()},
        **{f"{kind}_names": names[:SHOWN] for kind, names in kinds.items()},
        "left_out": list(checkpoint.left_out),
        "sha256": checkpoint.sha256,
    }


def predict(
    network: PanopticModel, image: Tensor, score_threshold: float, min_stuff_px: int
) -> dict[str, np.ndarray]:
    """The arrays of the contract.

    Args:
        network: In evaluation mode.
        image: (1, 3, H, W) float32 RGB in [0, 1], on the network's device.
        score_threshold: Detections must score above.
        min_stuff_px: Stuff segments with fewer pixels are void.
    """
    height, width = image.shape[-2:]
    pyramid, found, logits = network.detect(image, score_threshold)
    # Clipping leaves nothing of a box outside the image.
    solid = ((found[0].boxes[:, 2:] - found[0].boxes[:, :2]) > 0).all(1)
    boxes, scores, classes = found[0].boxes[solid], found[0].scores[solid], found[0].classes[solid]
    (mask_probs,) = network.mask_probs(pyramid, [boxes], [classes])
    # Softmax keeps the order of classes, so logits decide as probabilities do, and as the published code lets them.
    prediction = Prediction(Detections(boxes, scores, classes, mask_probs), logits[0])
    panoptic, _ = merge_panoptic(
        prediction,
        score_threshold=score_threshold,
        overlap_share=OVERLAP_SHARE,
        # Half a pixel less, so that rounding cannot drop a segment of exactly the limit.
        min_stuff_share=max(min_stuff_px - 0.5, 0) / (height * width),
    )
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, probs, box in zip(masks, mask_probs.cpu(), boxes.cpu(), strict=True):
        pasted, (top, bottom, left, right) = paste_mask(probs, box, (height, width))
        mask[top:bottom, left:right] = pasted.numpy() >= MASK_THRESHOLD
    return {
        "boxes": boxes.cpu().numpy(),
        "scores": scores.cpu().numpy(),
        "classes": classes.cpu().numpy(),
        "masks": masks,
        "semantic_logits": logits[0].cpu().numpy(),
        "panoptic": np.stack([panoptic.semantic_map, panoptic.instance_map], -1).astype(np.int32),
    }


if __name__ == "__main__":
    main()
