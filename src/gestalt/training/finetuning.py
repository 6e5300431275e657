"""Fine-tuning: a network that learnt without labels learns the names of classes from few labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gestalt.config.network import STRIDES
from gestalt.data.ranks import Ranks
from gestalt.errors import ConfigError
from gestalt.network.checkpoint import NetworkCard
from gestalt.training.augmentation import flip
from gestalt.training.batch import TrainingBatch, stack_samples
from gestalt.training.curve import CurveRow, mean_of_last
from gestalt.training.guided_batches import Samples
from gestalt.training.loop import Log, Training, make_optimiser, run_training, share_statistics
from gestalt.training.named_classes import class_colours, class_names, vocabulary_of
from gestalt.training.parts import Parts, deal_out
from gestalt.training.photometry import change_colours, draw_colour_change
from gestalt.training.resume import TrainingState
from gestalt.training.sample import TrainingSample
from gestalt.training.starting_point import find_start
from gestalt.training.step_batches import StepBatches
from gestalt.training.zoom import fit_and_zoom

if TYPE_CHECKING:
    from gestalt.config.finetune import FinetuneSettings
    from gestalt.config.network import NetworkSettings
    from gestalt.network.panoptic_model import PanopticModel
    from gestalt.panoptic import LabelSpace, Vocabulary
    from gestalt.training.class_outputs import ClassOrigins

NAME = "finetune"


@dataclass(frozen=True, eq=False)
class FinetunedNetwork:
    """What a fine-tuning leaves.

    Attributes:
        network: In the new classes, in evaluation mode.
        origins: Which pseudo-class each class started from; None where heads started from random.
        image_size: (H, W) of the training windows.
        n_trained: Numbers that could change.
        curve: A row per step: step, total, each loss.
    """

    network: PanopticModel
    origins: ClassOrigins | None
    image_size: tuple[int, int]
    n_trained: int
    curve: list[CurveRow]


class LabelledBatches(StepBatches[TrainingSample]):
    """Draws labelled images and augments them.

    Args:
        samples: Labelled images of any size.
        settings: Section ``finetune``.
        size: (H, W) of the windows that are cut out.
        seed: The experiment's.
        device: Where batches go.
        parts: How the images of a step are dealt out; all in one part when left out.
    """

    def __init__(
        self,
        samples: Samples,
        settings: FinetuneSettings,
        size: tuple[int, int],
        seed: int,
        device: torch.device,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(NAME, len(samples), seed, device, parts or Parts(settings.batch_size))
        self._samples, self._settings, self._size = samples, settings, size

    def load(self, step: int, part: int = 0) -> list[TrainingSample]:
        """The windows of a part, mirrored and zoomed."""
        settings = self._settings
        windows = []
        for place, image in self._image_of(step, part).items():
            sample, chance = self._samples[image], self._chance("window", step, place)
            if chance.random() < settings.flip_prob:
                sample = flip(sample)
            windows.append(
                fit_and_zoom(
                    sample,
                    self._size,
                    chance,
                    scale_low=settings.scale_low,
                    scale_high=settings.scale_high,
                )
            )
        return windows

    def draw(
        self, step: int, part: int = 0, *, loaded: Sequence[TrainingSample] | None = None
    ) -> TrainingBatch:
        """Windows with other colours."""
        samples = self.load(step, part) if loaded is None else list(loaded)
        batch = stack_samples(samples, self._device)
        changes = [
            draw_colour_change(self._chance("colours", step, place), self._settings.photometric)
            for place in self._parts.places(part)
        ]
        return batch.with_images(change_colours(batch.images, changes)).finished(self._settings.min_object_px)


def n_steps(settings: FinetuneSettings) -> int:
    """Steps of the smallest budget that is at least the share of labels; of the largest one where none is.

    Raises:
        ConfigError: Budgets do not ascend, or have not one number of steps each.
    """
    budgets, steps = settings.budgets, settings.budget_steps
    if not budgets or budgets != sorted(budgets) or len(budgets) != len(steps):
        raise ConfigError(
            "finetune.budgets must ascend, with one value of finetune.budget_steps each. "
            f"Got: {budgets} and {steps}"
        )
    fitting = (number for budget, number in zip(budgets, steps, strict=True) if settings.share <= budget)
    return next(fitting, steps[-1])


def window_size(settings: FinetuneSettings, image_size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of training windows: the size that a network was trained at, or its aspect at another height.

    Args:
        settings: ``height_px``.
        image_size: (H, W) of the images that the starting network was trained at.
    """
    if settings.height_px == 0:
        return image_size
    stride = STRIDES[-1]
    columns = settings.height_px * image_size[1] / image_size[0]
    return settings.height_px, max(stride, round(columns / stride) * stride)


def finetune(
    samples: Samples,
    vocabulary: Vocabulary,
    other: PanopticModel | None,
    network_settings: NetworkSettings,
    image_size: tuple[int, int],
    settings: FinetuneSettings,
    *,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    log: Log | None = None,
) -> FinetunedNetwork:
    """Train a network in the classes of few labels; continues an interrupted run of the same settings.

    Labels are complete, so there is no DropLoss. On the CPU with a fixed number of threads, interrupted and
    resumed gives the bits of an uninterrupted run.

    Args:
        samples: Labelled images of any size, in the classes of ``vocabulary``.
        vocabulary: The classes.
        other: The network to start from, in evaluation mode on ``device``; None with ``start`` scratch.
        network_settings: Its architecture.
        image_size: (H, W) of the images that it was trained at.
        settings: Everything about the training.
        seed: The experiment's.
        device: Where to train.
        cache_dir: Where resumable state goes.
        key: What samples and starting network depend on; another key is another run.
        ranks: This process among those that train together, which share ``cache_dir``; alone when left out.
        log: Takes step and losses.

    Raises:
        ConfigError: Settings contradict each other, or memory ran out.
        DataError: A loss is not finite.

    Source:
        Hahn et al., CUPS, CVPR 2025, and Niu et al., U2Seg, CVPR 2024, propose this use: few labels, mirror images
        and windows of 0.5 to 2 times the size. The schedule is ours.
    """
    if settings.scale_low > settings.scale_high:
        raise ConfigError(
            "finetune.scale_low must not be above finetune.scale_high. "
            f"Got: {settings.scale_low} and {settings.scale_high}"
        )
    steps = n_steps(settings)
    parts = deal_out(settings.batch_size, settings.optimiser.accumulate, ranks or Ranks(), section=NAME)
    size = window_size(settings, image_size)
    start = find_start(
        other,
        network_settings,
        vocabulary,
        (samples[index] for index in range(len(samples))),
        settings,
        seed=seed,
        purpose=NAME,
        rows=size[0],
        device=device,
    )
    network = start.network
    share_statistics(network, parts, device)
    network.requires_grad_(False)
    trained = start.trained_parameters(settings.trained)
    for weight in trained:
        weight.requires_grad_(True)
    optimiser = make_optimiser(network, trained, settings.optimiser)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "network": dataclasses.asdict(network_settings),
        "vocabulary": dataclasses.asdict(vocabulary),
        "size": size,
        "n_samples": len(samples),
        "seed": seed,
        "processes": parts.ranks.size,
        "inputs": dict(key or {}),
    }
    state = TrainingState(cache_dir, whole_key, {"network": network, "optimiser": optimiser})
    network.train()
    start.freeze_normalisation()
    training = Training(
        name=NAME,
        steps=steps,
        seed=seed,
        device=device,
        settings=settings.optimiser,
        drop=None,
        parts=parts,
        batches=LabelledBatches(samples, settings, size, seed, device, parts),
        after_step=lambda _: None,
        state=state,
        checkpoint_every=settings.checkpoint_every,
        log=log,
        size_key="height_px",
    )
    run_training(training, network, optimiser)
    n_trained = sum(weight.numel() for weight in trained)
    return FinetunedNetwork(network.eval(), start.origins, size, n_trained, state.curve)


def finetuned_card(
    result: FinetunedNetwork,
    network_settings: NetworkSettings,
    space: LabelSpace,
    *,
    sources: Mapping[str, str],
    metrics: Mapping[str, float],
) -> NetworkCard:
    """The card of a fine-tuned network: its classes have the names and colours of the label space.

    Args:
        result: Of ``finetune``.
        network_settings: The architecture that it started from.
        space: The classes.
        sources: Name and content hash of the starting network and of each labelled image.
        metrics: Numbers beside the last losses.
    """
    return NetworkCard(
        settings=dataclasses.replace(network_settings, backend="torchvision"),
        vocabulary=vocabulary_of(space),
        image_size=result.image_size,
        sources=dict(sources),
        metrics={**metrics, **mean_of_last(result.curve)},
        class_names=class_names(space),
        class_colours=class_colours(space),
    )
