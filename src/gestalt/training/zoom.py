"""A window of fixed size from an image at a random scale, for images of any size and few of them."""

from __future__ import annotations

import numpy as np

from gestalt.network.panoptic_model import COLOUR_MEAN
from gestalt.panoptic import VOID
from gestalt.training.augmentation import resize
from gestalt.training.sample import TrainingSample

# What lies beside a small image: the colour that normalises to zero, as the network's own padding does.
PADDING_COLOUR = tuple(round(255 * channel) for channel in COLOUR_MEAN)


def fit_and_zoom(
    sample: TrainingSample,
    size: tuple[int, int],
    generator: np.random.Generator,
    *,
    scale_low: float,
    scale_high: float,
) -> TrainingSample:
    """Scale the image so that it has the rows of the window, times a random factor, and cut the window out.

    A larger image is cut at a random place; a smaller one lies at a random place of the window, and what is
    beside it is void.

    Args:
        sample: Of any size; its aspect is kept.
        size: (H, W) of the window.
        generator: Source of chance; draws three numbers whatever happens.
        scale_low: Smallest factor.
        scale_high: Largest factor; uniform in between.
    """
    factor = size[0] / sample.size[0] * float(generator.uniform(scale_low, scale_high))
    scaled = resize(sample, (max(1, round(sample.size[0] * factor)), max(1, round(sample.size[1] * factor))))
    places = generator.random(2)
    # From the window's corner to the image's: negative where the image is cut, positive where it is smaller.
    top, left = (
        round(float(place) * (room - length))
        for place, room, length in zip(places, size, scaled.size, strict=True)
    )
    return cut_window(scaled, (top, left), size)


def scale_to_rows(sample: TrainingSample, rows: int) -> TrainingSample:
    """The sample with so many rows; its aspect is kept."""
    return resize(sample, (rows, max(1, round(sample.size[1] * rows / sample.size[0]))))


def cut_window(sample: TrainingSample, corner: tuple[int, int], size: tuple[int, int]) -> TrainingSample:
    """The part of an image inside a window; what the image does not cover is void and mean colour.

    Args:
        sample: Any sample.
        corner: Row and column of the image's upper left pixel in the window; may be negative.
        size: (H, W) of the window.
    """
    # Per axis: the pixels of the window that the image covers, and the pixels of the image that they show.
    covered, shown = zip(
        *(
            (
                slice(max(0, start), min(room, start + length)),
                slice(max(0, -start), min(length, room - start)),
            )
            for start, room, length in zip(corner, size, sample.size, strict=True)
        )
    )
    image = np.full((*size, 3), PADDING_COLOUR, np.uint8)
    semantic = np.full(size, VOID, np.uint8)
    instance = np.zeros(size, np.uint16)
    image[covered], semantic[covered], instance[covered] = (
        sample.image[shown],
        sample.semantic[shown],
        sample.instance[shown],
    )
    return TrainingSample(image, semantic, instance, sample.classes)
