"""The training loop that all trainings share: forward, backward, exchange, guard, clip, step, log, picture."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gestalt.config.training import OptimiserSettings
from gestalt.data.atomic_files import written_aside
from gestalt.data.curve import DIGITS
from gestalt.errors import ConfigError, DataError
from gestalt.network.drop_loss import DropRule
from gestalt.network.panoptic_model import PanopticModel, is_normalisation
from gestalt.panoptic import UInt8Array
from gestalt.runtime import available_cores, derive_seed, progress
from gestalt.training.batch import TrainingBatch
from gestalt.training.curve import GRADIENT_NORM, CurveRow
from gestalt.training.parts import Parts
from gestalt.training.pictures import draw_progress
from gestalt.training.read_ahead import reading_ahead
from gestalt.training.resume import TrainingState
from gestalt.training.step_batches import StepBatches

BETAS = (0.9, 0.999)
# What the CPU's allocator and the libraries of a GPU say in errors that have no type of their own.
MEMORY_IS_FULL = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
SHOWN = ("total", "class", "mask", "semantic")
# Threads that read images beside a GPU: one takes 62 ms for an image of the paper's size.
READERS = 8

Log = Callable[[int, dict[str, float]], None]
# Step and part -> batch on the device.
Draw = Callable[[int, int], TrainingBatch]
# Takes step and (H, W, 3) uint8 RGB.
Show = Callable[[int, UInt8Array], None]


@dataclass(frozen=True, eq=False)
class Training:
    """What a training is made of, apart from its state.

    Attributes:
        name: ``guided`` or ``self_training``; part of every seed.
        steps: Number of optimiser steps.
        seed: The experiment's.
        device: Where the network is.
        settings: Step size, schedule, clipping, precision.
        drop: DropLoss' rule or None.
        parts: How the images of a step are dealt out.
        batches: What the parts of a step learn from.
        after_step: Called with the step once the weights have changed, in every process.
        state: What an interrupted run goes on with; failed batches lie beside it.
        checkpoint_every: Steps between checkpoints.
        log: Takes step and losses, in the first process; None where nobody listens.
        show: Takes step and picture, in the first process; None where nobody looks.
        picture_every: Steps between pictures; 0 for none.
        size_key: Of its section, the key that says how large images are, for what to do without memory.
    """

    name: str
    steps: int
    seed: int
    device: torch.device
    settings: OptimiserSettings
    drop: DropRule | None
    parts: Parts
    batches: StepBatches[Any]
    after_step: Callable[[int], None]
    state: TrainingState
    checkpoint_every: int
    log: Log | None = None
    show: Show | None = None
    picture_every: int = 0
    size_key: str = "augmentation.jitter_heights_px"


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a training leaves.

    Attributes:
        network: The network to report, in evaluation mode.
        curve: A row per step: step, total, each loss.
        folder: Cache of the resumable state; forget it when the network is saved.
    """

    network: PanopticModel
    curve: list[CurveRow]
    folder: Path


def make_optimiser(
    network: nn.Module, parameters: Iterable[nn.Parameter], settings: OptimiserSettings
) -> torch.optim.AdamW:
    """AdamW over ``parameters``; weights of normalisation and biases are not decayed."""
    undecayed = {
        id(weight)
        for module in network.modules()
        for name, weight in module.named_parameters(recurse=False)
        if is_normalisation(module) or name == "bias"
    }
    chosen = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in chosen if id(weight) not in undecayed]},
        {"params": [weight for weight in chosen if id(weight) in undecayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=BETAS, weight_decay=settings.weight_decay
    )


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Step size: linear warm-up times a cosine from 1 down to ``final_share``."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return settings.learning_rate * warmup * (settings.final_share + (1 - settings.final_share) * cosine)


def share_statistics(network: PanopticModel, parts: Parts, device: torch.device) -> None:
    """Let batch norms see the images of all processes at once, as CUPS; parameters and names stay.

    Only GPUs can do it. On the CPU every process normalises by its own images, and running statistics are those
    of the first process.
    """
    if parts.ranks.size > 1 and device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


def run_training(
    training: Training,
    network: PanopticModel,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Train until ``training.steps`` rows are in the curve of the state; rows already there are steps already done.

    Args:
        training: The parts.
        network: In training mode; changed in place.
        optimiser: Of its weights.

    Raises:
        DataError: A loss or a gradient is not finite; the batch is saved for inspection.
        ConfigError: The device or the machine has not enough memory.
    """
    ranks, curve = training.parts.ranks, training.state.curve
    parallel = DistributedDataParallel(network) if ranks.size > 1 else None
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    bar: Iterable[int] = range(len(curve), training.steps)
    if ranks.is_first:
        bar = progress(bar, label=training.name, total=training.steps, unit="step", done=len(curve))
    # Where the CPU trains, more threads would only take its cores.
    threads = 1 if training.device.type == "cpu" else min(READERS, max(1, available_cores() // ranks.size))
    with reading_ahead(training.batches.load, training.steps, threads) as ahead:

        def draw(step: int, part: int) -> TrainingBatch:
            return training.batches.draw(step, part, loaded=ahead.take(step, part))

        for step in bar:
            rate = learning_rate(step, training.steps, training.settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with _explained_memory(training, step):
                optimiser.zero_grad(set_to_none=True)
                losses, batch = _learn(training, step, draw, parallel or network, parallel)
                norm = nn.utils.clip_grad_norm_(weights, training.settings.clip_norm)
                row = _curve_row(training, step, losses, norm)
                if not all(map(math.isfinite, row.values())):
                    raise DataError(_save_failure(training, step, draw, row, losses))
                optimiser.step()
                training.after_step(step)
                curve.append(row)
                _tell(training, network, step, row, batch, bar)
            is_due = (step + 1) % training.checkpoint_every == 0 and step + 1 < training.steps
            if is_due and ranks.is_first:
                training.state.save()


def _learn(
    training: Training, step: int, draw: Draw, model: nn.Module, parallel: DistributedDataParallel | None
) -> tuple[dict[str, Tensor], TrainingBatch]:
    """Add up the gradients of this process's parts; their mean losses, and the last batch."""
    sums: dict[str, Tensor] = {}
    n_own = len(training.parts.own)
    for number, part in enumerate(training.parts.own):
        batch = draw(step, part)
        # Samplers inside the network use the global generator: seeded per part, it needs no saving.
        torch.manual_seed(derive_seed(training.seed, training.name, "network", step, part))
        # Processes exchange gradients once, with the last part.
        is_last = number + 1 == n_own
        with contextlib.nullcontext() if is_last or parallel is None else parallel.no_sync():
            with torch.autocast(
                training.device.type, torch.bfloat16, enabled=training.settings.mixed_precision
            ):
                losses: dict[str, Tensor] = model(batch.images, batch.targets, training.drop)
            (torch.stack(list(losses.values())).sum() / n_own).backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            share = value.detach() / n_own
            sums[name] = sums[name] + share if name in sums else share
    return sums, batch


def _curve_row(training: Training, step: int, losses: Mapping[str, Tensor], norm: Tensor) -> CurveRow:
    """Mean losses over all processes, read with one wait for the device."""
    values = [value.float() for value in losses.values()]
    total = torch.stack(values).sum()
    means = training.parts.ranks.mean(torch.stack([total, *values, norm.float()])).tolist()
    names = ("total", *losses, GRADIENT_NORM)
    return {"step": float(step)} | {
        name: round(value, DIGITS) if math.isfinite(value) else value
        for name, value in zip(names, means, strict=True)
    }


def _tell(
    training: Training,
    network: PanopticModel,
    step: int,
    row: CurveRow,
    batch: TrainingBatch,
    bar: object,
) -> None:
    """Curve, bar and picture, in the first process."""
    if not training.parts.ranks.is_first:
        return
    if (show_losses := getattr(bar, "set_postfix_str", None)) is not None:
        losses = ", ".join(f"{name} {row[name]:.3f}" for name in SHOWN if name in row)
        show_losses(losses, refresh=False)
    if training.log is not None:
        training.log(step, {name: value for name, value in row.items() if name != "step"})
    is_due = training.picture_every and (step + 1) % training.picture_every == 0
    if training.show is not None and is_due:
        training.show(step, draw_progress(network, batch))


@contextlib.contextmanager
def _explained_memory(training: Training, step: int) -> Iterator[None]:
    """Turn "out of memory", of a GPU or of the machine, into what to change."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_full = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
            words in str(error) for words in MEMORY_IS_FULL
        )
        if not is_full:
            raise
        size = training.parts.batch_size // training.parts.count
        name = training.name
        raise ConfigError(
            f"{name}: {training.device} ran out of memory at step {step} with {size} images at once; raise "
            f"{name}.optimiser.accumulate (the same step in more passes), or lower {name}.batch_size or "
            f"{name}.{training.size_key}"
        ) from error


def _save_failure(
    training: Training, step: int, draw: Draw, row: CurveRow, losses: Mapping[str, Tensor]
) -> str:
    """Write this process's batches, drawn once more, and say what is wrong."""
    paths = []
    is_own = not all(math.isfinite(float(value)) for value in losses.values())
    is_loss = not math.isfinite(row["total"])
    # With a broken loss only the process whose loss it is has something to show.
    for part in training.parts.own if is_own or not is_loss else ():
        batch = draw(step, part).to(torch.device("cpu"))
        path = training.state.folder / f"not_finite_{step:06d}_{part}.pt"
        with written_aside(path) as aside:
            targets = [vars(target) for target in batch.targets]
            torch.save({"images": batch.images, "targets": targets}, aside)
        paths.append(str(path))
    values = ", ".join(f"{name} {value:.3g}" for name, value in row.items() if name != "step")
    what = "the loss is" if is_loss else "gradients are"
    where = f"The batch is in {', '.join(paths)}; look at it" if paths else "Another process has the batch"
    return (
        f"{training.name}: {what} not finite at step {step} ({values}). {where}, or lower "
        f"{training.name}.optimiser.learning_rate"
    )
