"""Guided training: the network learns from pseudo-labels, with DropLoss and self-enhanced copy-paste."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.training import DropLossSettings, GuidedSettings
from gestalt.data.ranks import Ranks
from gestalt.data.training_state import load_state
from gestalt.errors import ConfigError
from gestalt.network.architecture import build_network
from gestalt.network.drop_loss import DropRule
from gestalt.network.merge import paint_instances
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.test_time import predict_views
from gestalt.panoptic import Vocabulary
from gestalt.runtime import derive_seed, numpy_generator
from gestalt.training.augmentation import flip_and_crop, jitter_size
from gestalt.training.batch import TrainingBatch, images_to_tensor, stack_samples
from gestalt.training.copy_paste import (
    PasteCandidate,
    PredictionQueue,
    label_candidates,
    novel_candidates,
    paste_objects,
)
from gestalt.training.curve import CurveRow
from gestalt.training.dataset import check_things, step_indices
from gestalt.training.loop import Log, Show, Training, make_optimiser, run_training, share_statistics
from gestalt.training.parts import Parts, deal_out
from gestalt.training.photometry import change_colours, draw_colour_change
from gestalt.training.read_ahead import reading_ahead
from gestalt.training.resume import state_folder
from gestalt.training.sample import TrainingSample

NAME = "guided"

# Share of a prediction that better ones may have taken before it is no object of its own.
OVERLAP_SHARE = 0.5

logger = logging.getLogger(__name__)


class Samples(Protocol):
    """Anything with training samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> TrainingSample: ...


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


class GuidedBatches:
    """Draws the batches of each step and keeps the queue of own objects.

    All chance comes from the seed, the step and an image's place in the batch of the step, so it matters neither
    which process draws it nor what was drawn before.

    Args:
        samples: The training set.
        network: Predicts objects for the queue.
        settings: Section ``guided``.
        seed: The experiment's.
        device: Where batches go.
        parts: How the images of a step are dealt out; all in one part when left out.
    """

    def __init__(
        self,
        samples: Samples,
        network: PanopticModel,
        settings: GuidedSettings,
        seed: int,
        device: torch.device,
        parts: Parts | None = None,
    ) -> None:
        self._samples, self._network, self._settings = samples, network, settings
        self._seed, self._device = seed, device
        self._parts = parts or Parts(settings.batch_size)
        self.queue = PredictionQueue(settings.copy_paste.queue_size)
        self._plain: dict[int, list[TrainingSample]] = {}

    def load(self, step: int, part: int = 0) -> list[TrainingSample]:
        """The images of a part, mirrored and cropped: what does not depend on the network."""
        shape = self._settings.augmentation
        indices = step_indices(
            step,
            batch_size=self._settings.batch_size,
            n_samples=len(self._samples),
            seed=self._seed,
            purpose=NAME,
        )
        return [
            flip_and_crop(
                self._samples[indices[place]],
                self._chance("crop", step, place),
                flip_prob=shape.flip_prob,
                area_low=shape.crop_area_low,
                area_high=shape.crop_area_high,
            )
            for place in self._parts.places(part)
        ]

    def draw(
        self, step: int, part: int = 0, *, loaded: Sequence[TrainingSample] | None = None
    ) -> TrainingBatch:
        """Crop, paste, change size, change colours.

        Args:
            step: Counted from 0.
            part: Of the step.
            loaded: What ``load`` gave for them, where it was called ahead.
        """
        settings = self._settings
        samples = list(loaded) if loaded is not None else self.load(step, part)
        self._plain[part] = samples
        places = self._parts.places(part)
        if settings.copy_paste.enabled:
            candidates = self._candidates(samples, step)
            samples = [
                paste_objects(sample, candidates, self._chance("paste", step, place), settings.copy_paste)
                for sample, place in zip(samples, places, strict=True)
            ]
        shape = settings.augmentation
        size = jitter_size(samples[0].size, shape.jitter_heights_px, self._chance("size", step))
        batch = stack_samples(samples, self._device).resized(size)
        changes = [
            draw_colour_change(self._chance("colours", step, place), shape.photometric) for place in places
        ]
        return batch.with_images(change_colours(batch.images, changes)).finished(settings.min_object_px)

    def predict(self, step: int) -> None:
        """Every few steps: put the network's own confident objects of this step's images into the queue.

        All processes see the images of their parts and share what they find, so that queues are the same.
        """
        paste = self._settings.copy_paste
        is_due = step + 1 >= paste.start_up_steps and (step + 1) % paste.predict_every == 0
        if not (paste.enabled and is_due):
            return
        found = PredictionQueue(self.queue.size)
        self._network.eval()
        for part in self._parts.own:
            found.extend(self._novel_objects(self._plain[part]))
        self._network.train()
        for state in self._parts.ranks.gather(found.state()):
            self.queue.add(state)

    def _novel_objects(self, samples: Sequence[TrainingSample]) -> list[PasteCandidate]:
        paste = self._settings.copy_paste
        images = images_to_tensor([sample.image for sample in samples], self._device)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._settings.optimiser.mixed_precision
        ):
            predictions = predict_views(self._network, images, score_threshold=paste.score_threshold)
        found = []
        for sample, prediction in zip(samples, predictions, strict=True):
            predicted, objects = paint_instances(
                prediction.detections,
                sample.size,
                score_threshold=paste.score_threshold,
                overlap_share=OVERLAP_SHARE,
            )
            found += novel_candidates(
                sample, predicted, objects, novel_iou=paste.novel_iou, min_side_px=paste.min_side_px
            )
        return found

    def _candidates(self, samples: Sequence[TrainingSample], step: int) -> Sequence[PasteCandidate]:
        """Labelled objects of the part, from the start-up on the queue.

        As long as a queue is empty the labels stay the source; CUPS leaves such a batch unchanged.
        """
        paste = self._settings.copy_paste
        if step >= paste.start_up_steps and len(self.queue):
            return self.queue.candidates()
        return label_candidates(samples, paste.min_side_px)

    def _chance(self, purpose: str, step: int, *place: int) -> np.random.Generator:
        return numpy_generator(self._seed, NAME, purpose, step, *place)


def drop_rule(settings: DropLossSettings, section: str) -> DropRule | None:
    """DropLoss' rule, or None when it is off.

    Raises:
        ConfigError: Every negative anchor would be left out.
    """
    if not settings.enabled:
        return None
    if settings.covers_anchors and settings.unlabelled_share == 0:
        raise ConfigError(
            f"{section}.drop_loss.covers_anchors needs {section}.drop_loss.unlabelled_share above 0, "
            "otherwise the proposal network has no negative anchor. Got: 0"
        )
    return DropRule(settings.iou, settings.unlabelled_share, settings.covers_anchors)


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
    folder = state_folder(cache_dir, whole_key)
    curve: list[CurveRow] = []
    if (state := load_state(folder, device)) is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        batches.queue.restore(state["queue"])
        curve = state["curve"]

    def current_state() -> dict[str, Any]:
        return {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "queue": batches.queue.state(),
            "curve": curve,
        }

    network.train()
    with reading_ahead(batches.load, settings.steps) as ahead:
        training = Training(
            name=NAME,
            steps=settings.steps,
            seed=seed,
            device=device,
            settings=settings.optimiser,
            drop=drop_rule(settings.drop_loss, NAME),
            parts=parts,
            draw_batch=lambda step, part: batches.draw(step, part, loaded=ahead.take(step, part)),
            after_step=batches.predict,
            state=current_state,
            folder=folder,
            checkpoint_every=settings.checkpoint_every,
            log=log,
            show=show,
            picture_every=settings.picture_every,
        )
        run_training(training, network, optimiser, curve)
    return TrainingResult(network.eval(), curve, folder)


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
