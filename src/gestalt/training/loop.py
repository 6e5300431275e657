"""The training loop that both trainings share: forward, guard, backward, clip, step, log."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gestalt.config.training import OptimiserSettings
from gestalt.data.curve import DIGITS
from gestalt.data.training_state import save_state
from gestalt.errors import ConfigError, DataError
from gestalt.network.drop_loss import DropRule
from gestalt.network.panoptic_network import PanopticNetwork, is_normalisation
from gestalt.runtime import derive_seed, progress
from gestalt.training.batch import TrainingBatch
from gestalt.training.curve import CurveRow

BETAS = (0.9, 0.999)

Log = Callable[[int, dict[str, float]], None]


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
        draw_batch: Step -> batch.
        after_step: Called with the step once the weights have changed.
        state: The resumable state, asked for at every checkpoint.
        folder: Where state and failed batches go.
        checkpoint_every: Steps between checkpoints.
        log: Takes step and losses; None where nobody listens.
    """

    name: str
    steps: int
    seed: int
    device: torch.device
    settings: OptimiserSettings
    drop: DropRule | None
    draw_batch: Callable[[int], TrainingBatch]
    after_step: Callable[[int], None]
    state: Callable[[], dict[str, Any]]
    folder: Path
    checkpoint_every: int
    log: Log | None = None


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


def run_training(
    training: Training,
    network: PanopticNetwork,
    optimiser: torch.optim.Optimizer,
    curve: list[CurveRow],
) -> None:
    """Train until ``training.steps`` rows are in ``curve``; rows already there are steps already done.

    Args:
        training: The parts.
        network: In training mode; changed in place.
        optimiser: Of its weights.
        curve: Losses per step; extended in place.

    Raises:
        DataError: A loss is not finite; the batch is saved for inspection.
        ConfigError: The device has not enough memory.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for step in progress(range(len(curve), training.steps), label=training.name, unit="step"):
        # Samplers inside the network use the global generator: seeded per step, it needs no saving.
        torch.manual_seed(derive_seed(training.seed, training.name, "network", step))
        batch = training.draw_batch(step).to(training.device)
        rate = learning_rate(step, training.steps, training.settings)
        for group in optimiser.param_groups:
            group["lr"] = rate
        try:
            losses = _forward(training, network, batch)
            total = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(total):
                raise DataError(_save_failure(training, step, batch, losses))
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, training.settings.clip_norm)
            optimiser.step()
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{training.name}: the device ran out of memory at step {step} with images of "
                f"{tuple(batch.images.shape)}; lower {training.name}.batch_size or "
                f"{training.name}.augmentation.jitter_heights_px"
            ) from error
        training.after_step(step)
        curve.append(_curve_row(step, total, losses))
        if training.log is not None:
            training.log(step, {name: value for name, value in curve[-1].items() if name != "step"})
        if (step + 1) % training.checkpoint_every == 0 and step + 1 < training.steps:
            save_state(training.folder, training.state())


def _forward(training: Training, network: PanopticNetwork, batch: TrainingBatch) -> dict[str, Tensor]:
    with torch.autocast(training.device.type, torch.bfloat16, enabled=training.settings.mixed_precision):
        losses: dict[str, Tensor] = network(batch.images, batch.targets, training.drop)
    return losses


def _curve_row(step: int, total: Tensor, losses: dict[str, Tensor]) -> CurveRow:
    row = {"step": float(step), "total": round(float(total.detach()), DIGITS)}
    return row | {name: round(float(value.detach()), DIGITS) for name, value in losses.items()}


def _save_failure(training: Training, step: int, batch: TrainingBatch, losses: dict[str, Tensor]) -> str:
    path = training.folder / f"not_finite_{step:06d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    targets = [vars(target) for target in batch.to(torch.device("cpu")).targets]
    torch.save({"images": batch.images.cpu(), "targets": targets}, path)
    values = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
    return (
        f"{training.name}: the loss is not finite at step {step} ({values}). The batch is in {path}; "
        f"look at it, or lower {training.name}.optimiser.learning_rate"
    )
