"""Guided training: the network learns from pseudo-labels, with DropLoss and self-enhanced copy-paste."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.training import GuidedSettings
from gestalt.data.ranks import Ranks
from gestalt.network.architecture import build_network
from gestalt.network.drop_loss import drop_rule
from gestalt.network.panoptic_model import PanopticModel
from gestalt.panoptic import Vocabulary
from gestalt.runtime import derive_seed
from gestalt.training.dataset import check_things
from gestalt.training.guided_batches import NAME, GuidedBatches, Samples
from gestalt.training.loop import (
    Log,
    Show,
    Training,
    TrainingResult,
    make_optimiser,
    run_training,
    share_statistics,
)
from gestalt.training.parts import deal_out
from gestalt.training.resume import Stateful, TrainingState

logger = logging.getLogger(__name__)


def train_guided(
    samples: Samples,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: GuidedSettings,
    *,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    log: Log | None = None,
    show: Show | None = None,
) -> TrainingResult:
    """Train a network on pseudo-labels; continues an interrupted run of the same settings.

    On the CPU with a fixed number of threads, interrupted and resumed gives the bits of an uninterrupted run.

    Args:
        samples: The training set.
        vocabulary: The thing-stuff split that the samples follow.
        network_settings: The architecture.
        settings: Everything about the training.
        seed: The experiment's.
        device: Where to train.
        cache_dir: Where resumable state goes.
        key: What the samples depend on, such as fingerprints of the artefacts; another key is another run.
        ranks: This process among those that train together, which share ``cache_dir``; alone when left out.
        log: Takes step and losses.
        show: Takes step and picture, see ``pictures.draw_progress``.

    Raises:
        ConfigError: The vocabulary has no things, settings contradict each other, or memory ran out.
        DataError: A loss or gradient is not finite, or weights to start from fit nowhere.

    Source:
        CUPS (Hahn et al., CVPR 2025), second stage. Own predictions for copy-paste come every few steps into
        a queue instead of from an extra pass in every step.
    """
    check_things(vocabulary)
    parts = deal_out(settings.batch_size, settings.optimiser.accumulate, ranks or Ranks(), section=NAME)
    torch.manual_seed(derive_seed(seed, NAME, "initial"))
    network = build_network(network_settings, vocabulary)
    _start_weights(network, vocabulary, settings)
    network = network.to(device).to(memory_format=torch.channels_last)
    share_statistics(network, parts, device)
    optimiser = make_optimiser(network, network.parameters(), settings.optimiser)
    batches = GuidedBatches(samples, network, settings, seed, device, parts)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "network": dataclasses.asdict(network_settings),
        "vocabulary": dataclasses.asdict(vocabulary),
        "n_samples": len(samples),
        "seed": seed,
        "processes": parts.ranks.size,
        "inputs": dict(key or {}),
    }
    members: dict[str, Stateful] = {"network": network, "optimiser": optimiser, "queue": batches.queue}
    state = TrainingState(cache_dir, whole_key, members)
    network.train()
    training = Training(
        name=NAME,
        steps=settings.steps,
        seed=seed,
        device=device,
        settings=settings.optimiser,
        drop=drop_rule(settings.drop_loss, NAME),
        parts=parts,
        batches=batches,
        after_step=batches.predict,
        state=state,
        checkpoint_every=settings.checkpoint_every,
        log=log,
        show=show,
        picture_every=settings.picture_every,
    )
    run_training(training, network, optimiser)
    return TrainingResult(network.eval(), state.curve, state.folder)


def _start_weights(network: PanopticModel, vocabulary: Vocabulary, settings: GuidedSettings) -> None:
    """Weights that are not random: of a backbone that learnt without labels, then those of a whole network."""
    if settings.initial_backbone:
        from gestalt.network.checkpoint_files import load_backbone

        report = load_backbone(network, Path(settings.initial_backbone))
        logger.info("%s.initial_backbone %s: %s", NAME, settings.initial_backbone, "\n".join(report.lines()))
    if settings.initial_network:
        from gestalt.network.checkpoint import start_from

        n_taken = start_from(network, vocabulary, Path(settings.initial_network))
        taken = f"{n_taken} weights are taken, {len(network.weights()) - n_taken} start anew"
        why = "of another shape, or outputs per class of another vocabulary"
        logger.info("%s.initial_network %s: %s (%s)", NAME, settings.initial_network, taken, why)
