"""Random changes of geometry: mirror, crop, size; chance comes from a given generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gestalt.config.network import STRIDES
from gestalt.training.batch import Window
from gestalt.training.pixels import resize_image, resize_map
from gestalt.training.sample import TrainingSample


def flip(sample: TrainingSample) -> TrainingSample:
    """The mirror image."""
    return TrainingSample(
        np.ascontiguousarray(sample.image[:, ::-1]),
        np.ascontiguousarray(sample.semantic[:, ::-1]),
        np.ascontiguousarray(sample.instance[:, ::-1]),
        sample.classes,
    )


def resize(sample: TrainingSample, size: tuple[int, int]) -> TrainingSample:
    """The sample at ``size`` (H, W): image bilinear, averaged when it shrinks; labels nearest."""
    if size == sample.size:
        return sample
    return TrainingSample(
        resize_image(sample.image, size),
        resize_map(sample.semantic, size),
        resize_map(sample.instance, size),
        sample.classes,
    )


def flip_and_crop(
    sample: TrainingSample,
    generator: np.random.Generator,
    *,
    flip_prob: float,
    area_low: float,
    area_high: float,
) -> TrainingSample:
    """Mirror by chance, then cut out a window of the image's own aspect and enlarge it to the image's size.

    Args:
        sample: Any sample.
        generator: Source of chance.
        flip_prob: Chance of mirroring.
        area_low: Smallest share of the image that the window keeps.
        area_high: Largest share; uniform in between.
    """
    if generator.random() < flip_prob:
        sample = flip(sample)
    side = float(np.sqrt(generator.uniform(area_low, area_high)))
    window = draw_window(sample.size, side, generator)
    inside = np.s_[window.top : window.top + window.height, window.left : window.left + window.width]
    cut = TrainingSample(
        sample.image[inside], sample.semantic[inside], sample.instance[inside], sample.classes
    )
    return resize(cut, sample.size)


def draw_window(size: tuple[int, int], share: float, generator: np.random.Generator) -> Window:
    """A window of ``share`` of height and width of an image of ``size`` (H, W), at a random place in it."""
    height, width = (max(1, round(length * share)) for length in size)
    top = int(generator.integers(0, size[0] - height + 1))
    left = int(generator.integers(0, size[1] - width + 1))
    return Window(top, left, height, width)


def jitter_size(
    size: tuple[int, int], heights_px: Sequence[int], generator: np.random.Generator
) -> tuple[int, int]:
    """One size for a whole batch: a height of the list, the width that keeps the aspect of ``size`` (H, W).

    The width is rounded to a multiple of 32, the network's coarsest stride. CUPS has 2:1 sizes only, which
    squeezes wider images.
    """
    height = int(heights_px[int(generator.integers(len(heights_px)))])
    stride = STRIDES[-1]
    return height, max(stride, round(height * size[1] / size[0] / stride) * stride)
