"""Guided training: the network learns from pseudo-labels, with DropLoss and self-enhanced copy-paste."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from gestalt.config.network import NetworkSettings
from gestalt.config.training import DropLossSettings, GuidedSettings
from gestalt.data.training_state import load_state
from gestalt.errors import ConfigError
from gestalt.network.checkpoint import start_from
from gestalt.network.drop_loss import DropRule
from gestalt.network.merge import paint_instances
from gestalt.network.panoptic_network import PanopticNetwork, build_network
from gestalt.network.test_time import predict_views
from gestalt.panoptic import Vocabulary
from gestalt.runtime import derive_seed, numpy_generator
from gestalt.training.augmentation import flip_and_crop, jitter_size, resize
from gestalt.training.batch import TrainingBatch, change_sample_colours, collate, images_to_tensor
from gestalt.training.copy_paste import PredictionQueue, label_candidates, novel_candidates, paste_objects
from gestalt.training.curve import CurveRow
from gestalt.training.dataset import check_things, step_indices
from gestalt.training.loop import Log, Training, make_optimiser, run_training
from gestalt.training.resume import state_folder
from gestalt.training.sample import TrainingSample

NAME = "guided"

# Share of a prediction that better ones may have taken before it is no object of its own.
OVERLAP_SHARE = 0.5


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

    network: PanopticNetwork
    curve: list[CurveRow]
    folder: Path


class GuidedBatches:
    """Draws the batch of each step and keeps the queue of own objects."""

    def __init__(
        self,
        samples: Samples,
        network: PanopticNetwork,
        settings: GuidedSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self._samples, self._network, self._settings = samples, network, settings
        self._seed, self._device = seed, device
        self.queue = PredictionQueue(settings.copy_paste.queue_size)
        self._plain: list[TrainingSample] = []

    def draw(self, step: int) -> TrainingBatch:
        """Crop, paste, change size, change colours; all chance comes from seed and step."""
        settings = self._settings
        generator = numpy_generator(self._seed, NAME, "augmentation", step)
        indices = step_indices(
            step,
            batch_size=settings.batch_size,
            n_samples=len(self._samples),
            seed=self._seed,
            purpose=NAME,
        )
        shape = settings.augmentation
        samples = [
            flip_and_crop(
                self._samples[index],
                generator,
                flip_prob=shape.flip_prob,
                area_low=shape.crop_area_low,
                area_high=shape.crop_area_high,
            )
            for index in indices
        ]
        self._plain = samples
        if settings.copy_paste.enabled:
            candidates = self._candidates(samples, step)
            samples = [
                paste_objects(sample, candidates, generator, settings.copy_paste) for sample in samples
            ]
        size = jitter_size(samples[0].size, shape.jitter_heights_px, generator)
        samples = [resize(sample, size) for sample in samples]
        samples = change_sample_colours(samples, generator, shape.photometric)
        return collate(samples, settings.min_object_px)

    def predict(self, step: int) -> None:
        """Every few steps: put the network's own confident objects of this batch into the queue."""
        paste = self._settings.copy_paste
        is_due = step + 1 >= paste.start_up_steps and (step + 1) % paste.predict_every == 0
        if not (paste.enabled and is_due):
            return
        self._network.eval()
        images = images_to_tensor([sample.image for sample in self._plain]).to(self._device)
        predictions = predict_views(self._network, images, score_threshold=paste.score_threshold)
        self._network.train()
        for sample, prediction in zip(self._plain, predictions, strict=True):
            predicted, objects = paint_instances(
                prediction.detections,
                sample.size,
                score_threshold=paste.score_threshold,
                overlap_share=OVERLAP_SHARE,
            )
            self.queue.extend(
                novel_candidates(
                    sample, predicted, objects, novel_iou=paste.novel_iou, min_side_px=paste.min_side_px
                )
            )

    def _candidates(self, samples: Sequence[TrainingSample], step: int) -> Sequence[Any]:
        """Labelled objects of the batch, from the start-up on the queue.

        As long as a queue is empty the labels stay the source; CUPS leaves such a batch unchanged.
        """
        paste = self._settings.copy_paste
        if step >= paste.start_up_steps and len(self.queue):
            return self.queue.candidates()
        return label_candidates(samples, paste.min_side_px)


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
    log: Log | None = None,
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
        log: Takes step and losses.

    Raises:
        ConfigError: The vocabulary has no things, settings contradict each other, or memory ran out.
        DataError: A loss is not finite.

    Source:
        CUPS (Hahn et al., CVPR 2025), second stage. Own predictions for copy-paste come every few steps into
        a queue instead of from an extra pass in every step.
    """
    check_things(vocabulary)
    torch.manual_seed(derive_seed(seed, NAME, "initial"))
    network = build_network(network_settings, vocabulary).to(device).to(memory_format=torch.channels_last)
    if settings.initial_network:
        start_from(network, vocabulary, Path(settings.initial_network))
    optimiser = make_optimiser(network, network.parameters(), settings.optimiser)
    batches = GuidedBatches(samples, network, settings, seed, device)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "network": dataclasses.asdict(network_settings),
        "vocabulary": dataclasses.asdict(vocabulary),
        "n_samples": len(samples),
        "seed": seed,
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
    training = Training(
        name=NAME,
        steps=settings.steps,
        seed=seed,
        device=device,
        settings=settings.optimiser,
        drop=drop_rule(settings.drop_loss, NAME),
        draw_batch=batches.draw,
        after_step=batches.predict,
        state=current_state,
        folder=folder,
        checkpoint_every=settings.checkpoint_every,
        log=log,
    )
    run_training(training, network, optimiser, curve)
    return TrainingResult(network.eval(), curve, folder)
