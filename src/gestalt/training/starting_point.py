"""What a fine-tuning starts from: a whole network, its backbone alone, or a bare trunk; and what of it stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from gestalt.errors import ConfigError
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_model import PanopticModel, is_normalisation
from gestalt.runtime import derive_seed
from gestalt.training.class_outputs import ClassOrigins, copy_weights, find_origins, measure_overlaps
from gestalt.training.zoom import scale_to_rows

if TYPE_CHECKING:
    from gestalt.config.finetune import FinetuneSettings
    from gestalt.config.network import NetworkSettings
    from gestalt.panoptic import Vocabulary
    from gestalt.training.sample import TrainingSample

BACKBONE, TRUNK = "backbone.", "backbone.trunk."


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """A network about to be fine-tuned.

    Attributes:
        network: In the new classes.
        loaded: Beginnings of the names of what did not start from random.
        origins: Where outputs of classes come from; None where heads are fresh.
    """

    network: PanopticModel
    loaded: tuple[str, ...]
    origins: ClassOrigins | None

    def is_loaded(self, name: str) -> bool:
        """Whether the weight or module of that name did not start from random."""
        return f"{name}.".startswith(self.loaded)

    def trained_parameters(self, trained: str) -> list[nn.Parameter]:
        """What learns: everything that starts from random, and of the rest the heads, or all but normalisation.

        Args:
            trained: ``heads`` or ``all``.
        """
        normalisation = {
            id(weight)
            for _, module in self._frozen_normalisation()
            for weight in module.parameters(recurse=False)
        }
        return [
            weight
            for name, weight in self.network.named_parameters()
            if id(weight) not in normalisation
            and (trained == "all" or not (name.startswith(BACKBONE) and self.is_loaded(name)))
        ]

    def freeze_normalisation(self) -> None:
        """Keep the statistics of loaded normalisation; call after every ``train()``."""
        for _, module in self._frozen_normalisation():
            module.eval()

    def _frozen_normalisation(self) -> list[tuple[str, nn.Module]]:
        return [
            (name, module)
            for name, module in self.network.named_modules()
            if is_normalisation(module) and self.is_loaded(name)
        ]


def find_start(
    other: PanopticModel | None,
    network_settings: NetworkSettings,
    vocabulary: Vocabulary,
    samples: Iterable[TrainingSample],
    settings: FinetuneSettings,
    *,
    seed: int,
    purpose: str,
    rows: int,
    device: torch.device,
) -> StartingPoint:
    """The network to fine-tune.

    Args:
        other: Network with pseudo-classes (or any other classes), in evaluation mode on ``device``; None where
            ``settings.start`` is scratch.
        network_settings: Its architecture.
        vocabulary: The new classes.
        samples: Labelled in the new classes; they say which pseudo-class lies on which class.
        settings: ``start``, ``class_start`` and ``initial_backbone``.
        seed: The experiment's.
        purpose: Name of the training.
        rows: Of images when the network looks at them.
        device: Where the network goes.

    Raises:
        ConfigError: There is no network, and ``settings.start`` takes something of one.
        DataError: ``initial_backbone`` is no file of weights that fit the trunk.
    """
    # Names of weights are those of torchvision's parts; a folder opens with either library.
    own_settings = dataclasses.replace(network_settings, backend="torchvision")
    torch.manual_seed(derive_seed(seed, purpose, "initial"))
    network = build_network(own_settings, vocabulary).to(device).to(memory_format=torch.channels_last)
    if settings.start == "scratch":
        return _without_network(network, settings.initial_backbone)
    if other is None:
        raise ConfigError(f"finetune.start {settings.start!r} needs a network to start from; use scratch")
    own, weights = network.weights(), other.weights()
    if settings.start == "network":
        scaled = (scale_to_rows(sample, rows) for sample in samples)
        overlaps = measure_overlaps(other, scaled, n_things=network.n_things, n_stuff=network.n_stuff)
        origins = find_origins(overlaps, settings.class_start)
        network.load_weights(copy_weights(own, weights, origins))
        return StartingPoint(network, ("",), origins)
    kept = {name: weight for name, weight in weights.items() if name.startswith(BACKBONE)}
    network.load_weights({**own, **kept})
    return StartingPoint(network, (BACKBONE,), None)


def _without_network(network: PanopticModel, initial_backbone: str) -> StartingPoint:
    if not initial_backbone:
        return StartingPoint(network, (), None)
    from gestalt.network.checkpoint_files import load_backbone

    load_backbone(network, Path(initial_backbone))
    return StartingPoint(network, (TRUNK,), None)
