"""Ground truth that needs no file: small maps by hand and random ones, as annotated frames."""

from functools import partial
from pathlib import Path

import numpy as np

from gestalt.data.label_spaces import raw_classes
from gestalt.data.records import GroundTruthFrame
from gestalt.panoptic import VOID, PanopticMap


def same(panoptic):
    return panoptic


def frame_of(frame_id, panoptic, **more):
    path = Path("truth") / f"{frame_id}.png"
    return GroundTruthFrame(frame_id, path, path, partial(same, panoptic), **more)


def panoptic(semantic, instance=None):
    semantic = np.array(semantic, np.uint8)
    return PanopticMap(
        semantic, np.array(np.zeros_like(semantic) if instance is None else instance, np.uint16)
    )


def random_truth(generator, dataset, *, size=(17, 23), numbers_like_cityscapes=False):
    """Rectangles of all classes of a data set, void among them, objects, groups of things, and stuff."""
    semantic, instance = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    classes = [*raw_classes(dataset), *[entry for entry in raw_classes(dataset) if entry.is_thing] * 2]
    for number in range(1, 31):
        entry = classes[generator.integers(len(classes))]
        y, x = (int(generator.integers(0, length - 1)) for length in size)
        part = np.s_[y : y + int(generator.integers(1, 9)), x : x + int(generator.integers(1, 9))]
        is_object = entry.is_thing and generator.random() < 0.8
        name = entry.raw_id * 1000 + number * 33 if numbers_like_cityscapes else number * 2047
        semantic[part] = VOID if generator.random() < 0.1 else entry.raw_id
        instance[part] = name if is_object else 0
        instance[semantic == VOID] = 0
    return PanopticMap(semantic, instance)
