"""Random changes of samples: mirror, crop, size, colour, sharpness; chance comes from a given generator."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from gestalt.config.training import PhotometricSettings
from gestalt.network.backbone import STRIDES
from gestalt.panoptic import UInt8Array
from gestalt.training.sample import TrainingSample

# CUPS blurs with a 7x7 kernel whatever the sigma.
BLUR_KERNEL_PX = 7


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
    height, width = size
    shrinks = height < sample.size[0] and width < sample.size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return TrainingSample(
        np.asarray(cv2.resize(sample.image, (width, height), interpolation=interpolation), np.uint8),
        np.asarray(cv2.resize(sample.semantic, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8),
        np.asarray(cv2.resize(sample.instance, (width, height), interpolation=cv2.INTER_NEAREST), np.uint16),
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
    height, width = (max(1, round(length * side)) for length in sample.size)
    top = int(generator.integers(0, sample.size[0] - height + 1))
    left = int(generator.integers(0, sample.size[1] - width + 1))
    window = np.s_[top : top + height, left : left + width]
    cut = TrainingSample(
        sample.image[window], sample.semantic[window], sample.instance[window], sample.classes
    )
    return resize(cut, sample.size)


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


def change_colours(
    image: UInt8Array, generator: np.random.Generator, settings: PhotometricSettings
) -> UInt8Array:
    """Blur, then brightness, contrast, saturation and hue, then grey, each by chance.

    Args:
        image: (H, W, 3) uint8 RGB.
        generator: Source of chance; draws the same number of values whatever happens.
        settings: Chances and ranges.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    blur, colour, grey = generator.random(3)
    sigma = float(generator.uniform(settings.blur_sigma_low_px, settings.blur_sigma_high_px))
    brightness, contrast, saturation, hue = generator.uniform(-1, 1, 4)
    if blur < settings.blur_prob and sigma > 0:
        image = np.asarray(cv2.GaussianBlur(image, (BLUR_KERNEL_PX, BLUR_KERNEL_PX), sigma), np.uint8)
    if colour < settings.colour_prob:
        pixels = image.astype(np.float32) / np.float32(255)
        pixels *= np.float32(1 + settings.brightness * brightness)
        mean = np.float32(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())
        pixels = (pixels - mean) * np.float32(1 + settings.contrast * contrast) + mean
        own_grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
        pixels = (pixels - own_grey) * np.float32(1 + settings.saturation * saturation) + own_grey
        image = np.asarray(_turn_hue(pixels.clip(0, 1), settings.hue * hue), np.uint8)
    if grey < settings.grey_prob:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1).astype(np.uint8)
    return image


def _turn_hue(pixels: np.ndarray, turn: float) -> np.ndarray:
    """(H, W, 3) float32 RGB in [0, 1] with hues turned by a share of the circle -> uint8."""
    hsv = cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % np.float32(360)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.asarray((rgb * np.float32(255) + np.float32(0.5)).clip(0, 255), np.uint8)
