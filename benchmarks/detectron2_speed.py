"""Time and memory of the CUPS network and of the merge: ours and Detectron2's, same weights, in turns, in one run.

Prints one JSON object. Per part the medians of CPU and wall seconds of both, the median over the turns of Detectron2's
CPU seconds divided by ours (above 1 ours is faster), and the peak memory of a process that does this part alone. Parts:
``inference`` (image to boxes, scores, mask probabilities and semantic logits; nothing is found),
``inference_with_detections``, ``training``
(losses and gradients of one image), ``merge`` (detections and semantic probabilities at 1024x2048 to a panoptic map).
Says so and stops where Detectron2 is not installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gestalt.config.presets import default_settings
from gestalt.errors import MissingDependencyError
from gestalt.network.architecture import build_network
from gestalt.network.instance_heads import MASK_SIDE
from gestalt.network.merge import merge_panoptic
from gestalt.network.records import Detections, ImageTarget, Prediction
from gestalt.panoptic import Vocabulary
from gestalt.runtime import limit_threads, peak_memory_mib, torch_generator

LIBRARIES = ("ours", "detectron2")
# As many pseudo-classes as CUPS has.
VOCABULARY = Vocabulary(things=tuple(range(12, 27)), stuff=tuple(range(12)))
MERGE_SIZE = (1024, 2048)
SCORE_THRESHOLD, OVERLAP_SHARE, MIN_STUFF_PX = 0.5, 0.5, 4096
# Boxes that score high for one that is left by suppression.
BOXES_PER_DETECTION = 3
N_OBJECTS = 10
DIGITS = 4

Work = Callable[[], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    parser.add_argument("--height", type=int, default=512, help="of the network's image, px")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument(
        "--detections", type=int, default=100, help="of the inference with detections; instances to merge"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns, after one to warm up; medians count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the processes that measure memory"
    )
    given = parser.parse_args()
    limit_threads(given.threads)
    result: dict[str, Any] = {
        "size": [given.height, given.width],
        "detections": given.detections,
        "threads": given.threads,
    }
    try:
        # First, as a process starts with the peak of the one that starts it.
        memory = {} if given.no_memory else {part: measure_memory(part, given) for part in given.parts}
        for part in given.parts:
            works = {library: prepare(part, library, given) for library in LIBRARIES}
            result[part] = {**compare(works, given.repeats), "peak_memory_mib": memory.get(part)}
    except MissingDependencyError as error:
        print(f"nothing measured: {error}", file=sys.stderr)
        return
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def compare(works: dict[str, Work], repeats: int) -> dict[str, Any]:
    """Seconds of both libraries, which take turns so that a busy machine slows both."""
    cpu: dict[str, list[float]] = {library: [] for library in works}
    wall: dict[str, list[float]] = {library: [] for library in works}
    for turn in range(repeats + 1):
        for library, work in works.items():
            started = time.process_time(), time.perf_counter()
            work()
            if turn:
                cpu[library].append(time.process_time() - started[0])
                wall[library].append(time.perf_counter() - started[1])
    return {
        "cpu_seconds": {library: _median(seconds) for library, seconds in cpu.items()},
        "wall_seconds": {library: _median(seconds) for library, seconds in wall.items()},
        "detectron2_to_ours_cpu": _median(np.divide(cpu["detectron2"], cpu["ours"])),
        "detectron2_to_ours_wall": _median(np.divide(wall["detectron2"], wall["ours"])),
    }


def measure_memory(part: str, given: argparse.Namespace) -> dict[str, float]:
    """Per library the peak memory of a fresh process that does one part once, MiB."""
    spawn = multiprocessing.get_context("spawn")
    peaks = {}
    for library in LIBRARIES:
        with ProcessPoolExecutor(1, mp_context=spawn) as executor:
            peaks[library] = executor.submit(_run_alone, part, library, given).result()
    return peaks


def _run_alone(part: str, library: str, given: argparse.Namespace) -> float:
    limit_threads(given.threads)
    prepare(part, library, given)()
    return round(peak_memory_mib(), 1)


def prepare(part: str, library: str, given: argparse.Namespace) -> Work:
    """The work of a part as one library does it."""
    return PARTS[part](library, given)


def prepare_quiet_inference(library: str, given: argparse.Namespace) -> Work:
    """Inference in which nothing scores high enough."""
    return _prepare_inference(library, _network(library, given), given)


def prepare_busy_inference(library: str, given: argparse.Namespace) -> Work:
    """Inference with as many detections as were asked for, or nearly."""
    return _prepare_inference(library, _network(library, given, bold=True), given)


def _prepare_inference(library: str, network: Any, given: argparse.Namespace) -> Work:
    network.eval()
    image = _image(given)
    if library == "ours":

        @torch.no_grad()
        def run() -> object:
            pyramid, found, logits = network.detect(image, SCORE_THRESHOLD)
            masks = network.mask_probs(pyramid, [own.boxes for own in found], [own.classes for own in found])
            return found, masks, logits

        return run
    model = network.as_panoptic_fpn(
        score_threshold=SCORE_THRESHOLD, overlap_share=OVERLAP_SHARE, min_stuff_px=MIN_STUFF_PX
    )
    return torch.no_grad()(lambda: model.inference([{"image": image[0]}], do_postprocess=False))


def prepare_training(library: str, given: argparse.Namespace) -> Work:
    """Losses and gradients of one image with objects."""
    network, image, target = _network(library, given).train(), _image(given), _target(given)

    def step() -> None:
        network.zero_grad()
        sum(network(image, [target]).values()).backward()

    return step


def prepare_merge(library: str, given: argparse.Namespace) -> Work:
    """Detections and semantics to a panoptic map, masks pasted."""
    prediction = _prediction(given.detections)
    if library == "ours":
        share = MIN_STUFF_PX / (MERGE_SIZE[0] * MERGE_SIZE[1])
        return lambda: merge_panoptic(
            prediction, score_threshold=SCORE_THRESHOLD, overlap_share=OVERLAP_SHARE, min_stuff_share=share
        )
    from gestalt.network.detectron2_backend import merge_by_detectron2

    return lambda: merge_by_detectron2(
        prediction, score_threshold=SCORE_THRESHOLD, overlap_share=OVERLAP_SHARE, min_stuff_px=MIN_STUFF_PX
    )


def _network(library: str, given: argparse.Namespace, *, bold: bool = False) -> Any:
    """The paper's network with the same random weights in either library, whose batch statistics fit the image.

    Args:
        library: Whose parts.
        given: Size of the image, number of detections.
        bold: Let boxes score high, some more than the detections wanted, which suppress each other; as in a trained
            network the stages agree and most boxes are background.
    """
    settings = default_settings("network", "paper")
    torch.manual_seed(0)
    ours: Any = build_network(settings, VOCABULARY)
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        ours.train().backbone(ours.normalise(_image(given)))
        if bold:
            _embolden(ours.eval(), given)
    if library == "ours":
        return ours
    network = build_network(dataclasses.replace(settings, backend="detectron2"), VOCABULARY)
    network.load_weights(ours.weights())
    return network


def _embolden(network: Any, given: argparse.Namespace) -> None:
    first, *others = network.instance_heads.stages
    torch.nn.init.normal_(first.classify.weight, std=3.0)
    seen: list[Tensor] = []
    hook = first.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    network.detect(_image(given), 1.0)
    hook.remove()
    # The background's logit is what only so many boxes exceed.
    best = seen[0][:, :-1].amax(1).sort(descending=True).values
    first.classify.weight[-1] = 0
    first.classify.bias[-1] = best[min(BOXES_PER_DETECTION * given.detections, len(best) - 1)]
    for stage in others:
        stage.load_state_dict(first.state_dict())


def _image(given: argparse.Namespace) -> Tensor:
    return torch.rand(
        1, 3, given.height, given.width, generator=torch_generator(0, "detectron2_speed", "image")
    )


def _target(given: argparse.Namespace) -> ImageTarget:
    """Rectangles of a tenth to a third of the image's height before one stuff class."""
    size = torch.tensor([given.width, given.height])
    random = torch.rand(N_OBJECTS, 4, generator=torch_generator(0, "detectron2_speed", "objects"))
    sides = (0.1 + 0.23 * random[:, 2:]) * given.height
    corners = (random[:, :2] * (size - sides)).round()
    boxes = torch.cat([corners, (corners + sides).round()], dim=1)
    masks = _inside(boxes, (given.height, given.width))
    semantic = torch.where(masks.any(0), 0, 1).to(torch.uint8)
    return ImageTarget(boxes, torch.arange(N_OBJECTS) % len(VOCABULARY.things), masks, semantic)


def _prediction(n_instances: int) -> Prediction:
    """Discs of 20 to 300 px all over the image, before smooth semantics."""
    generator = torch_generator(0, "detectron2_speed", "prediction")
    height, width = MERGE_SIZE
    sides = 20 + 280 * torch.rand(n_instances, 2, generator=generator)
    corners = torch.rand(n_instances, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    grid = torch.linspace(-1, 1, MASK_SIDE)
    disc = torch.sigmoid(10 * (1 - (grid**2 + grid[:, None] ** 2).sqrt()))
    coarse = torch.randn(1, len(VOCABULARY.stuff) + 1, 8, 16, generator=generator)
    logits = torch.nn.functional.interpolate(4 * coarse, MERGE_SIZE, mode="bilinear", align_corners=False)[0]
    detections = Detections(
        torch.cat([corners, corners + sides], dim=1),
        0.5 + 0.5 * torch.rand(n_instances, generator=generator),
        torch.randint(len(VOCABULARY.things), (n_instances,), generator=generator),
        disc.expand(n_instances, MASK_SIDE, MASK_SIDE).contiguous(),
    )
    return Prediction(detections, logits.softmax(0))


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) bool: the pixels of each box."""
    rows, columns = torch.arange(size[0])[None, :, None], torch.arange(size[1])[None, None, :]
    x0, y0, x1, y1 = (side[:, None, None] for side in boxes.unbind(1))
    return (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)


def _median(values: Any) -> float:
    return round(float(np.median(values)), DIGITS)


PARTS: dict[str, Callable[[str, argparse.Namespace], Work]] = {
    "inference": prepare_quiet_inference,
    "inference_with_detections": prepare_busy_inference,
    "training": prepare_training,
    "merge": prepare_merge,
}


if __name__ == "__main__":
    main()
