"""How long a step of the guided training takes, beside one that also does what the CUPS reference does in every step.

The reference predicts the batch before in evaluation mode in every step, as source of copy-paste, and copies the batch
three times. Ours predicts every few steps and copies nothing. Both start from the same weights and see the same images,
random colours with rectangles as objects: what they cost is what video costs. Rounds of the two alternate, and the
ratio is the median over rounds. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gestalt.config.presets import default_settings
from gestalt.config.training import GuidedSettings
from gestalt.data.ranks import Ranks
from gestalt.errors import GestaltError
from gestalt.network.architecture import build_network
from gestalt.network.drop_loss import drop_rule
from gestalt.panoptic import Vocabulary
from gestalt.runtime import choose_device, numpy_generator, peak_memory_mib
from gestalt.training.batch import TrainingBatch
from gestalt.training.guided_batches import GuidedBatches
from gestalt.training.loop import Training, make_optimiser, run_training
from gestalt.training.parts import deal_out
from gestalt.training.resume import TrainingState
from gestalt.training.sample import TrainingSample, sample_from_pseudo_label

DIGITS = 3
VOCABULARY = Vocabulary(things=(1, 3), stuff=(0, 2, 4))
OBJECTS = 6
# The reference keeps the batch as it came, the one that is pasted into, and the one that is augmented.
REFERENCE_COPIES = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/training_step.py", description=__doc__)
    parser.add_argument("--network", default="small", help="file of conf/network (default: %(default)s)")
    parser.add_argument("--settings", default="embedded", help="file of conf/guided (default: %(default)s)")
    parser.add_argument("--size", default="192x384", help="rows x columns (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images of a step (default: %(default)s)")
    parser.add_argument("--accumulate", type=int, default=1, help="passes of a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="numeric threads (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="half precision")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(parsed.threads)
    try:
        print(json.dumps(measure(parsed)))
    except GestaltError as error:
        print(f"benchmarks/training_step.py: {error}", file=sys.stderr)
        sys.exit(1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step of both and their ratio."""
    height, width = (int(side) for side in arguments.size.split("x"))
    device = choose_device(arguments.device, key="--device")
    chosen: GuidedSettings = default_settings("guided", arguments.settings)
    every = chosen.copy_paste.predict_every
    settings = dataclasses.replace(
        chosen,
        batch_size=arguments.batch,
        initial_backbone="",
        optimiser=dataclasses.replace(
            chosen.optimiser, mixed_precision=arguments.bf16, accumulate=arguments.accumulate
        ),
        augmentation=dataclasses.replace(chosen.augmentation, jitter_heights_px=[height]),
        copy_paste=dataclasses.replace(chosen.copy_paste, start_up_steps=0),
    )
    # A round is as many steps as one prediction of ours serves.
    n_steps = every * (arguments.rounds + 1)
    samples = [make_sample(number, (height, width)) for number in range(4 * arguments.batch)]
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    cpu_seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    with tempfile.TemporaryDirectory() as folder:
        run = {
            name: open_training(
                samples,
                arguments.network,
                settings,
                device,
                n_steps,
                Path(folder),
                is_reference=name != "ours",
            )
            for name in seconds
        }
        for number in range(arguments.rounds + 1):
            # Whoever goes first meets a colder cache: they take turns.
            for name in sorted(run, reverse=number % 2 == 1):
                taken, cpu_taken = timed(run[name], every, device)
                # The first round warms up.
                if number:
                    seconds[name].append(taken / every)
                    cpu_seconds[name].append(cpu_taken / every)
    on_gpu = device.type != "cpu"
    return {
        "seconds_per_step": round(statistics.median(seconds["ours"]), DIGITS),
        "reference_seconds_per_step": round(statistics.median(seconds["reference"]), DIGITS),
        "ratio": median_ratio(seconds),
        "cpu_ratio": median_ratio(cpu_seconds),
        "peak_memory_mib": round(
            torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_memory_mib()
        ),
        "predict_every": every,
        "batch_size": arguments.batch,
        "size": [height, width],
        "network": arguments.network,
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu, {arguments.threads} threads",
        "torch": torch.__version__,
    }


class CopiedBatches(GuidedBatches):
    """The same batches with the copies that the reference makes of each."""

    def draw(
        self, step: int, part: int = 0, *, loaded: Sequence[TrainingSample] | None = None
    ) -> TrainingBatch:
        """Draw and copy."""
        batch = super().draw(step, part, loaded=loaded)
        for _ in range(REFERENCE_COPIES):
            batch = copy.deepcopy(batch)
        return batch


def open_training(
    samples: Sequence[TrainingSample],
    network_name: str,
    settings: GuidedSettings,
    device: torch.device,
    n_steps: int,
    folder: Path,
    *,
    is_reference: bool,
) -> Callable[[int], None]:
    """A function that takes so many steps of a training."""
    if is_reference:
        settings = dataclasses.replace(
            settings, copy_paste=dataclasses.replace(settings.copy_paste, predict_every=1)
        )
    torch.manual_seed(0)
    network = build_network(default_settings("network", network_name), VOCABULARY).to(device)
    network = network.to(memory_format=torch.channels_last).train()
    optimiser = make_optimiser(network, network.parameters(), settings.optimiser)
    parts = deal_out(settings.batch_size, settings.optimiser.accumulate, Ranks(), section="guided")
    kind = CopiedBatches if is_reference else GuidedBatches
    batches = kind(samples, network, settings, 0, device, parts)
    training = Training(
        name="guided",
        steps=n_steps,
        seed=0,
        device=device,
        settings=settings.optimiser,
        drop=drop_rule(settings.drop_loss, "guided"),
        parts=parts,
        batches=batches,
        after_step=batches.predict,
        state=TrainingState(folder, {"is_reference": is_reference}, {}),
        checkpoint_every=n_steps + 1,
    )

    def take(steps: int) -> None:
        steps += len(training.state.curve)
        run_training(dataclasses.replace(training, steps=steps), network, optimiser)

    return take


def make_sample(number: int, size: tuple[int, int]) -> TrainingSample:
    """Bands of stuff, noise, and rectangles as objects."""
    generator = numpy_generator(0, "training_step", number)
    height, width = size
    image = generator.integers(0, 256, (*size, 3), np.uint8)
    semantic = np.repeat(np.array([0, 2, 4], np.uint8), -(-height // 3))[:height, None].repeat(width, 1)
    instance = np.zeros(size, np.uint16)
    for count in range(1, OBJECTS + 1):
        rows = int(generator.integers(height // 8, height // 3))
        columns = int(generator.integers(width // 10, width // 5))
        top, left = int(generator.integers(height - rows)), int(generator.integers(width - columns))
        window = np.s_[top : top + rows, left : left + columns]
        image[window] = image[window] // 4 + 40 * count % 190
        semantic[window], instance[window] = VOCABULARY.things[count % 2], count
    return sample_from_pseudo_label(
        image, semantic, instance, VOCABULARY, ignore_uncovered_things=False, name=str(number)
    )


def median_ratio(seconds: dict[str, list[float]]) -> float:
    """Median over rounds of reference over ours."""
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["reference"], strict=True)]
    return round(statistics.median(ratios), DIGITS)


def timed(work: Callable[[int], None], steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds, and those of the processor, of so many steps; the device's work included."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    work(steps)
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, time.process_time() - cpu_start


if __name__ == "__main__":
    main()
