"""What each step of guided training learns from: samples with objects pasted in, and the queue of own objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from gestalt.config.training import GuidedSettings
from gestalt.network.merge import paint_instances
from gestalt.network.panoptic_model import PanopticModel
from gestalt.network.test_time import predict_views
from gestalt.training.augmentation import flip_and_crop, jitter_size
from gestalt.training.batch import TrainingBatch, images_to_tensor, stack_samples
from gestalt.training.copy_paste import (
    PasteCandidate,
    PredictionQueue,
    label_candidates,
    novel_candidates,
    paste_objects,
)
from gestalt.training.parts import Parts
from gestalt.training.photometry import change_colours, draw_colour_change
from gestalt.training.sample import TrainingSample
from gestalt.training.step_batches import StepBatches

NAME = "guided"

# Share of a prediction that better ones may have taken before it is no object of its own.
OVERLAP_SHARE = 0.5


class Samples(Protocol):
    """Anything with training samples."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> TrainingSample: ...


class GuidedBatches(StepBatches[TrainingSample]):
    """Draws the batches of each step and keeps the queue of own objects.

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
        super().__init__(NAME, len(samples), seed, device, parts or Parts(settings.batch_size))
        self._samples, self._network, self._settings = samples, network, settings
        self.queue = PredictionQueue(settings.copy_paste.queue_size)
        self._plain: dict[int, list[TrainingSample]] = {}

    def load(self, step: int, part: int = 0) -> list[TrainingSample]:
        """The images of a part, mirrored and cropped: what does not depend on the network."""
        shape = self._settings.augmentation
        return [
            flip_and_crop(
                self._samples[image],
                self._chance("crop", step, place),
                flip_prob=shape.flip_prob,
                area_low=shape.crop_area_low,
                area_high=shape.crop_area_high,
            )
            for place, image in self._image_of(step, part).items()
        ]

    def draw(
        self, step: int, part: int = 0, *, loaded: Sequence[TrainingSample] | None = None
    ) -> TrainingBatch:
        """Crop, paste, change size, change colours."""
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
        for state in self._parts.ranks.gather(found.state_dict()):
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
