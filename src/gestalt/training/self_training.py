"""Self-training: a student learns from the averaged views of its exponential moving average, the teacher."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from gestalt.config.training import SelfTrainingSettings
from gestalt.data.training_state import load_state
from gestalt.network.panoptic_network import PanopticNetwork
from gestalt.network.test_time import predict_views
from gestalt.panoptic import UInt8Array
from gestalt.runtime import numpy_generator
from gestalt.training.augmentation import flip_and_crop, jitter_size, resize
from gestalt.training.batch import TrainingBatch, change_sample_colours, collate, images_to_tensor
from gestalt.training.copy_paste import label_candidates, paste_objects
from gestalt.training.curve import CurveRow
from gestalt.training.dataset import step_indices
from gestalt.training.guided import OVERLAP_SHARE, TrainingResult, drop_rule
from gestalt.training.loop import Log, Training, make_optimiser, run_training
from gestalt.training.resume import state_folder
from gestalt.training.sample import TrainingSample
from gestalt.training.self_labels import self_label

NAME = "self_training"


class Images(Protocol):
    """Anything with images, (H, W, 3) uint8 RGB, all of one size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> UInt8Array: ...


class SelfLabelledBatches:
    """Draws images, lets the teacher label them, augments them for the student."""

    def __init__(
        self,
        images: Images,
        teacher: PanopticNetwork,
        settings: SelfTrainingSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self._images, self._teacher, self._settings = images, teacher, settings
        self._seed, self._device = seed, device

    def draw(self, step: int) -> TrainingBatch:
        """Label, paste, change colours, crop, change size; all chance comes from seed and step."""
        settings = self._settings
        generator = numpy_generator(self._seed, NAME, "augmentation", step)
        samples = self.label(step)
        if settings.copy_paste.enabled:
            candidates = label_candidates(samples, settings.copy_paste.min_side_px)
            samples = [
                paste_objects(sample, candidates, generator, settings.copy_paste) for sample in samples
            ]
        shape = settings.augmentation
        samples = change_sample_colours(samples, generator, shape.photometric)
        samples = [
            flip_and_crop(
                sample,
                generator,
                flip_prob=shape.flip_prob,
                area_low=shape.crop_area_low,
                area_high=shape.crop_area_high,
            )
            for sample in samples
        ]
        size = jitter_size(samples[0].size, shape.jitter_heights_px, generator)
        return collate([resize(sample, size) for sample in samples], settings.min_object_px)

    def label(self, step: int) -> list[TrainingSample]:
        """The teacher's labels of the images of ``step``."""
        settings = self._settings
        indices = step_indices(
            step, batch_size=settings.batch_size, n_samples=len(self._images), seed=self._seed, purpose=NAME
        )
        images = [self._images[index] for index in indices]
        predictions = predict_views(
            self._teacher,
            images_to_tensor(images).to(self._device),
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
def update_teacher(teacher: PanopticNetwork, student: PanopticNetwork, decay: float) -> None:
    """Set teacher = decay * teacher + (1 - decay) * student, for every parameter.

    Equal values stay equal bit for bit, so what the student does not train does not drift in the teacher.
    """
    for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
        own.lerp_(other, 1 - decay)


def train_self(
    images: Images,
    network: PanopticNetwork,
    settings: SelfTrainingSettings,
    *,
    seed: int,
    device: torch.device,
    cache_dir: Path,
    key: Mapping[str, Any] | None = None,
    log: Log | None = None,
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
        log: Takes step and losses.

    Raises:
        ConfigError: Settings contradict each other, or memory ran out.
        DataError: A loss is not finite.

    Source:
        CUPS (Hahn et al., CVPR 2025), third stage.
    """
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
        "inputs": dict(key or {}),
    }
    folder = state_folder(cache_dir, whole_key)
    curve: list[CurveRow] = []
    if (state := load_state(folder, device)) is not None:
        student.load_state_dict(state["student"])
        teacher.load_state_dict(state["teacher"])
        optimiser.load_state_dict(state["optimiser"])
        curve = state["curve"]

    def current_state() -> dict[str, Any]:
        return {
            "student": student.state_dict(),
            "teacher": teacher.state_dict(),
            "optimiser": optimiser.state_dict(),
            "curve": curve,
        }

    student.train()
    student.freeze_normalisation()
    training = Training(
        name=NAME,
        steps=settings.steps,
        seed=seed,
        device=device,
        settings=settings.optimiser,
        drop=drop_rule(settings.drop_loss, NAME),
        draw_batch=SelfLabelledBatches(images, teacher, settings, seed, device).draw,
        after_step=lambda _: update_teacher(teacher, student, settings.ema_decay),
        state=current_state,
        folder=folder,
        checkpoint_every=settings.checkpoint_every,
        log=log,
    )
    run_training(training, student, optimiser, curve)
    return TrainingResult(teacher, curve, folder)
