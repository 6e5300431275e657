"""Self-enhanced copy-paste: objects cut out by pseudo-label or by own prediction, pasted into images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_iou

from gestalt.config.training import PasteSettings
from gestalt.network.merge import PaintedInstance
from gestalt.panoptic import UInt8Array, UInt16Array
from gestalt.training.pixels import resize_image, resize_map
from gestalt.training.sample import THING_LABEL, TrainingSample, mask_box

FLIP_PROB = 0.5


@dataclass(frozen=True, eq=False)
class PasteCandidate:
    """An object that can be pasted; crop, mask and class in one record, so that they cannot be mixed up.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w) bool.
        thing_class: Thing index.
    """

    image: UInt8Array
    mask: npt.NDArray[np.bool_]
    thing_class: int


class PredictionQueue:
    """The most recent own objects; part of what a resumed run needs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._candidates: deque[PasteCandidate] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._candidates)

    def extend(self, candidates: Iterable[PasteCandidate]) -> None:
        """Add objects; the oldest ones leave when the queue is full."""
        self._candidates.extend(candidates)

    def candidates(self) -> list[PasteCandidate]:
        """Everything in the queue, oldest first."""
        return list(self._candidates)

    def state_dict(self) -> list[dict[str, Any]]:
        """The content as tensors and numbers."""
        return [
            {
                "image": torch.from_numpy(np.ascontiguousarray(entry.image)),
                "mask": torch.from_numpy(np.ascontiguousarray(entry.mask)),
                "thing_class": entry.thing_class,
            }
            for entry in self._candidates
        ]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Replace the content by what ``state_dict`` returned."""
        self._candidates.clear()
        self.add(state)

    def add(self, state: Sequence[dict[str, Any]]) -> None:
        """Add the content of another queue, as its ``state_dict`` returned it."""
        self.extend(
            PasteCandidate(entry["image"].cpu().numpy(), entry["mask"].cpu().numpy(), entry["thing_class"])
            for entry in state
        )


def label_candidates(samples: Sequence[TrainingSample], min_side_px: int) -> list[PasteCandidate]:
    """Labelled objects of a batch whose boxes are higher and wider than ``min_side_px``."""
    return [
        candidate
        for sample in samples
        for number, thing_class in enumerate(sample.classes, start=1)
        if (candidate := _cut_out(sample.image, sample.instance == number, thing_class, min_side_px))
    ]


def novel_candidates(
    sample: TrainingSample,
    predicted: UInt16Array,
    objects: Sequence[PaintedInstance],
    *,
    novel_iou: float,
    min_side_px: int,
) -> list[PasteCandidate]:
    """Predicted objects that no pseudo-label knows.

    Args:
        sample: The image that was predicted, with its labels.
        predicted: (H, W) uint16 predicted instances 1..N.
        objects: Their classes.
        novel_iou: Box IoU with every labelled object must be below.
        min_side_px: Boxes must be higher and wider.
    """
    labelled = [
        mask_box(mask) for n in range(1, len(sample.classes) + 1) if (mask := sample.instance == n).any()
    ]
    known = torch.tensor(labelled, dtype=torch.float32).reshape(-1, 4)
    found = []
    for number, entry in enumerate(objects, start=1):
        mask = predicted == number
        candidate = _cut_out(sample.image, mask, entry.thing_class, min_side_px)
        if candidate is None:
            continue
        box = torch.tensor([mask_box(mask)], dtype=torch.float32)
        if len(known) == 0 or float(box_iou(box, known).max()) < novel_iou:
            found.append(candidate)
    return found


def paste_objects(
    sample: TrainingSample,
    candidates: Sequence[PasteCandidate],
    generator: np.random.Generator,
    settings: PasteSettings,
) -> TrainingSample:
    """Paste randomly chosen objects at random places, scaled and mirrored by chance.

    The image is replaced inside the mask with a hard edge, older instances lose these pixels, the semantic
    label there is thing, and the object is appended with its class. Boxes are made from the maps afterwards,
    so they are tight, and objects that vanished are gone.

    Args:
        sample: Not changed.
        candidates: Drawn with replacement; none leaves the sample as it is.
        generator: Source of chance.
        settings: Number and scale of the pasted objects.
    """
    n_pasted = int(generator.integers(settings.min_objects, settings.max_objects + 1))
    if not candidates or n_pasted == 0:
        return sample
    image, semantic, instance = sample.image.copy(), sample.semantic.copy(), sample.instance.copy()
    classes = list(sample.classes)
    for _ in range(n_pasted):
        candidate = candidates[int(generator.integers(len(candidates)))]
        crop, mask = _scaled(candidate, generator, settings, sample.size)
        height, width = mask.shape
        top = int(generator.integers(0, sample.size[0] - height + 1))
        left = int(generator.integers(0, sample.size[1] - width + 1))
        window = np.s_[top : top + height, left : left + width]
        classes.append(candidate.thing_class)
        image[window][mask] = crop[mask]
        semantic[window][mask] = THING_LABEL
        instance[window][mask] = len(classes)
    return TrainingSample(image, semantic, instance, tuple(classes))


def _scaled(
    candidate: PasteCandidate, generator: np.random.Generator, settings: PasteSettings, size: tuple[int, int]
) -> tuple[UInt8Array, npt.NDArray[np.bool_]]:
    """The object at a random scale, at most as large as the image, mirrored by chance."""
    scale = float(generator.uniform(settings.scale_low, settings.scale_high))
    is_flipped = generator.random() < FLIP_PROB
    height, width = candidate.mask.shape
    scale = min(scale, size[0] / height, size[1] / width)
    target = (max(1, int(height * scale)), max(1, int(width * scale)))
    crop, mask = candidate.image, candidate.mask
    if target != (height, width):
        crop, mask = resize_image(crop, target), resize_map(mask, target)
    return (crop[:, ::-1], mask[:, ::-1]) if is_flipped else (crop, mask)


def _cut_out(
    image: UInt8Array, mask: npt.NDArray[np.bool_], thing_class: int, min_side_px: int
) -> PasteCandidate | None:
    if not mask.any():
        return None
    x0, y0, x1, y1 = mask_box(mask)
    if y1 - y0 <= min_side_px or x1 - x0 <= min_side_px:
        return None
    window = np.s_[y0:y1, x0:x1]
    return PasteCandidate(image[window].copy(), mask[window].copy(), thing_class)
