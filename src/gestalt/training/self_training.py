"""Self-training: a student learns from the averaged views of its exponential moving average, the teacher."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from gestalt.config.training import SelfTrainingSettings
from gestalt.data.ranks import Ranks
from gestalt.network.drop_loss import drop_rule
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.test_time import predict_views
from gestalt.panoptic import UInt8Array
from gestalt.training.augmentation import draw_window, flip, jitter_size
from gestalt.training.batch import TrainingBatch, images_to_tensor, stack_samples
from gestalt.training.copy_paste import label_candidates, paste_objects
from gestalt.training.guided_batches import OVERLAP_SHARE
from gestalt.training.loop import Log, Show, Training, TrainingResult, make_optimiser, run_training
from gestalt.training.parts import Parts, deal_out
from gestalt.training.photometry import change_colours, draw_colour_change
from gestalt.training.resume import Stateful, TrainingState
from gestalt.training.sample import TrainingSample
from gestalt.training.self_labels import self_label
from gestalt.training.step_batches import StepBatches

NAME = "self_training"


class Images(Protocol):
    """Anything with images, (H, W, 3) uint8 RGB, all of one size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> UInt8Array: ...


class SelfLabelledBatches(StepBatches[UInt8Array]):
    """Draws images, lets the teacher label them, augments them for the student.

    Args:
        images: The training set.
        teacher: In evaluation mode.
        settings: Section ``self_training``.
        seed: The experiment's.
        device: Of the teacher, and where batches go.
        parts: How the images of a step are dealt out; all in one part when left out.
    """

    def __init__(
        self,
        images: Images,
        teacher: PanopticModel,
        settings: SelfTrainingSettings,
        seed: int,
        device: torch.device,
        parts: Parts | None = None,
    ) -> None:
        super().__init__(NAME, len(images), seed, device, parts or Parts(settings.batch_size))
        self._images, self._teacher, self._settings = images, teacher, settings

    def load(self, step: int, part: int = 0) -> list[UInt8Array]:
        """The images of a part."""
        return [self._images[image] for image in self._image_of(step, part).values()]

    def draw(self, step: int, part: int = 0, *, loaded: Sequence[UInt8Array] | None = None) -> TrainingBatch:
        """Label, paste, mirror, change colours, crop, change size."""
        settings, shape = self._settings, self._settings.augmentation
        places = self._parts.places(part)
        samples = self.label(step, loaded if loaded is not None else self.load(step, part))
        if settings.copy_paste.enabled:
            candidates = label_candidates(samples, settings.copy_paste.min_side_px)
            samples = [
                paste_objects(sample, candidates, self._chance("paste", step, place), settings.copy_paste)
                for sample, place in zip(samples, places, strict=True)
            ]
        chances = [self._chance("crop", step, place) for place in places]
        samples = [
            flip(sample) if chance.random() < shape.flip_prob else sample
            for sample, chance in zip(samples, chances, strict=True)
        ]
        batch = stack_samples(samples, self._device)
        changes = [
            draw_colour_change(self._chance("colours", step, place), shape.photometric) for place in places
        ]
        windows = [
            draw_window(batch.size, chance.uniform(shape.crop_height_low, shape.crop_height_high), chance)
            for chance in chances
        ]
        size = jitter_size(batch.size, shape.jitter_heights_px, self._chance("size", step))
        changed = batch.with_images(change_colours(batch.images, changes))
        # Straight from the crop to the size of the step: one interpolation instead of two.
        return changed.zoomed(windows, size).finished(settings.min_object_px)

    def label(self, step: int, images: Sequence[UInt8Array]) -> list[TrainingSample]:
        """The teacher's labels of images of ``step``."""
        settings = self._settings
        with torch.autocast(self._device.type, torch.bfloat16, enabled=settings.optimiser.mixed_precision):
            predictions = predict_views(
                self._teacher,
                images_to_tensor(images, self._device),
                scales=settings.view_scales,
                flip=settings.view_flip,
                score_threshold=settings.view_confidence,
            )
        return [
            self_label(
                image,
                prediction,
                instance_confidence=confidence_of_step(step, settings),
                overlap_share=OVERLAP_SHARE,
                semantic_confidence=settings.semantic_confidence,
                next_best=settings.next_best,
                ignore_uncovered_things=settings.ignore_uncovered_things,
            )
            for image, prediction in zip(images, predictions, strict=True)
        ]


def confidence_of_step(step: int, settings: SelfTrainingSettings) -> float:
    """Instance confidence gamma of the round of ``step``: the first value, raised once per round."""
    number = step * settings.rounds // settings.steps
    return min(settings.instance_confidence + number * settings.confidence_step, 1.0)


@torch.no_grad()
def update_teacher(teacher: PanopticModel, student: PanopticModel, decay: float) -> None:
    """Set teacher = decay * teacher + (1 - decay) * student, for every parameter.

    Equal values stay equal bit for bit, so what the student does not train does not drift in the teacher.
    """
    for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
        own.lerp_(other, 1 - decay)


def train_self(
    images: Images,
    network: PanopticModel,
    settings: SelfTrainingSettings,
    *,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    log: Log | None = None,
    show: Show | None = None,
) -> TrainingResult:
    """Continue a guided network on its own predictions; the reported network is the teacher.

    Only the heads learn (proposal network, instance heads, semantic head); backbone, pyramid and every
    normalisation stay as they are. CUPS has no DropLoss here: void pixels of the teacher's labels would shield
    false objects, which then multiply.

    Args:
        images: Unlabelled images.
        network: The guided network; becomes the student and is changed in place.
        settings: Everything about the training; zero steps return the guided network.
        seed: The experiment's.
        device: Where to train.
        cache_dir: Where resumable state goes.
        key: What network and images depend on; another key is another run.
        ranks: This process among those that train together, which share ``cache_dir``; alone when left out.
        log: Takes step and losses.
        show: Takes step and picture, see ``pictures.draw_progress``.

    Raises:
        ConfigError: Settings contradict each other, or memory ran out.
        DataError: A loss or gradient is not finite.

    Source:
        CUPS (Hahn et al., CVPR 2025), third stage.
    """
    parts = deal_out(settings.batch_size, settings.optimiser.accumulate, ranks or Ranks(), section=NAME)
    student = network.to(device).to(memory_format=torch.channels_last)
    teacher = copy.deepcopy(student).eval()
    trained = student.head_parameters()
    student.requires_grad_(False)
    teacher.requires_grad_(False)
    for weight in trained:
        weight.requires_grad_(True)
    optimiser = make_optimiser(student, trained, settings.optimiser)
    whole_key = {
        "settings": dataclasses.asdict(settings),
        "n_images": len(images),
        "seed": seed,
        "processes": parts.ranks.size,
        "inputs": dict(key or {}),
    }
    members: dict[str, Stateful] = {"student": student, "teacher": teacher, "optimiser": optimiser}
    state = TrainingState(cache_dir, whole_key, members)
    student.train()
    student.freeze_normalisation()
    training = Training(
        name=NAME,
        steps=settings.steps,
        seed=seed,
        device=device,
        settings=settings.optimiser,
        drop=drop_rule(settings.drop_loss, NAME),
        parts=parts,
        batches=SelfLabelledBatches(images, teacher, settings, seed, device, parts),
        after_step=lambda _: update_teacher(teacher, student, settings.ema_decay),
        state=state,
        checkpoint_every=settings.checkpoint_every,
        log=log,
        show=show,
        picture_every=settings.picture_every,
    )
    run_training(training, student, optimiser)
    return TrainingResult(teacher, state.curve, state.folder)
