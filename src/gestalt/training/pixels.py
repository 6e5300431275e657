"""Images and label maps at another size, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from gestalt.panoptic import UInt8Array


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """(H, W, 3) uint8 RGB at ``size`` (H, W): bilinear, averaged where it shrinks."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    result: UInt8Array = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
    return result


def resize_map(labels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """(H, W) labels at ``size`` (H, W): the label under the middle of each new pixel."""
    rows, columns = (nearest_places(old, new) for old, new in zip(labels.shape, size, strict=True))
    return labels[np.ix_(rows, columns)]


def nearest_places(old: int, new: int) -> npt.NDArray[np.int64]:
    """(new,) int64: which of ``old`` pixels in a line lies under the middle of each of ``new`` ones."""
    # Whole numbers, so that no rounding decides.
    return (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)
