"""What every source of a training's batches shares: who is in a step, and where chance comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import torch

from gestalt.runtime import numpy_generator
from gestalt.training.batch import TrainingBatch
from gestalt.training.dataset import step_indices
from gestalt.training.parts import Parts

Loaded = TypeVar("Loaded")


class StepBatches(ABC, Generic[Loaded]):
    """Draws the batches of each step.

    All chance comes from the seed, the step and an image's place in the batch of the step, so it matters neither
    which process draws it nor what was drawn before.

    Args:
        name: Of the training; part of every seed.
        n_images: Size of the training set.
        seed: The experiment's.
        device: Where batches go.
        parts: How the images of a step are dealt out.
    """

    def __init__(self, name: str, n_images: int, seed: int, device: torch.device, parts: Parts) -> None:
        self._name, self._n_images, self._seed = name, n_images, seed
        self._device, self._parts = device, parts

    @abstractmethod
    def load(self, step: int, part: int = 0) -> list[Loaded]:
        """What does not depend on the network: it is called ahead, in another thread."""

    @abstractmethod
    def draw(self, step: int, part: int = 0, *, loaded: Sequence[Loaded] | None = None) -> TrainingBatch:
        """The batch of a part; the same whenever it is asked in a step.

        Args:
            step: Counted from 0.
            part: Of the step.
            loaded: What ``load`` gave for them, where it was called ahead.
        """

    def _image_of(self, step: int, part: int) -> dict[int, int]:
        """The image at each place of a part."""
        indices = step_indices(
            step,
            batch_size=self._parts.batch_size,
            n_samples=self._n_images,
            seed=self._seed,
            purpose=self._name,
        )
        return {place: indices[place] for place in self._parts.places(part)}

    def _chance(self, purpose: str, step: int, *place: int) -> np.random.Generator:
        return numpy_generator(self._seed, self._name, purpose, step, *place)
