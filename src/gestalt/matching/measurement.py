"""What was measured of a frame, wherever it came from: matched images or stored files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError

if TYPE_CHECKING:  # a machine that only trains has no OpenCV
    from gestalt.data.frames import StereoImages, StoredMeasurements

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Optical flow and disparities of a stereo pair at t and t+1; None for what nobody measured.

    Attributes:
        optical_flow_forward: (2, H, W) float32, pixels, left t -> left t+1; NaN where unknown.
        optical_flow_backward: (2, H, W) float32, left t+1 -> left t.
        disparity: (H, W) float32, pixels, left image at t; 0 where unknown.
        disparity_next: (H, W) float32, left image at t+1, on its own grid.
        disparity_next_warped: (H, W) float32, at t+1 at the pixels of t; one of the two is given.
        disparity_right: (H, W) float32, right image at t.
        disparity_right_next: (H, W) float32, right image at t+1.

    Raises:
        ShapeError: Sizes differ.
        DataError: No second disparity; infinite values, or NaN where it has no meaning.
    """

    optical_flow_forward: FloatArray
    optical_flow_backward: FloatArray | None
    disparity: FloatArray
    disparity_next: FloatArray | None
    disparity_next_warped: FloatArray | None = None
    disparity_right: FloatArray | None = None
    disparity_right_next: FloatArray | None = None

    def __post_init__(self) -> None:
        size = self.disparity.shape
        if self.disparity_next is None and self.disparity_next_warped is None:
            raise DataError(
                "a second disparity is needed: disparity_next or disparity_next_warped. Got neither"
            )
        for field in fields(self):
            array = getattr(self, field.name)
            if array is None:
                continue
            expected = (2, *size) if "optical_flow" in field.name else size
            if array.shape != expected:
                raise ShapeError(f"{field.name} must be {expected} like the disparity. Got: {array.shape}")
            bad = np.isinf(array) if field.name == "optical_flow_forward" else ~np.isfinite(array)
            if bad.any():
                raise DataError(
                    f"{field.name} must be finite. Got: {int(bad.sum())} of {array.size} values that are not, "
                    f"the first at {tuple(int(i[0]) for i in bad.nonzero())}; unknown disparity is written as 0"
                )


def measure_pairs(
    images: StereoImages,
    optical_flow: Callable[[UInt8Array, UInt8Array], tuple[FloatArray, FloatArray]],
    disparities: Callable[[UInt8Array, UInt8Array], tuple[FloatArray, FloatArray | None]],
) -> Measurement:
    """The measurement of a stereo pair at t and t+1 from whoever matches two images.

    Args:
        images: All four.
        optical_flow: First and second image -> displacements there and back.
        disparities: Left and right image -> disparity of either; None where a matcher leaves the right one out.

    Raises:
        DataError: A right image is missing.
    """
    right, right_next = both_right_images(images)
    disparity, disparity_right = disparities(images.left, right)
    forward, backward = optical_flow(images.left, images.left_next)
    disparity_next, disparity_right_next = disparities(images.left_next, right_next)
    return Measurement(
        optical_flow_forward=forward,
        optical_flow_backward=backward,
        disparity=disparity,
        disparity_next=disparity_next,
        disparity_right=disparity_right,
        disparity_right_next=disparity_right_next,
    )


def take_stored(stored: StoredMeasurements) -> Measurement:
    """Measurements that came with the data: no reverse directions, so nothing to test them against."""
    known = stored.optical_flow_valid[None]
    return Measurement(
        optical_flow_forward=np.where(known, stored.optical_flow, np.nan).astype(np.float32),
        optical_flow_backward=None,
        disparity=stored.disparity,
        disparity_next=None,
        disparity_next_warped=stored.disparity_next_warped,
    )


def both_right_images(images: StereoImages) -> tuple[UInt8Array, UInt8Array]:
    """The right images at t and t+1.

    Raises:
        DataError: One is missing.
    """
    if images.right is None or images.right_next is None:
        raise DataError("a frame without stored measurements needs both right images. Got: one is missing")
    return images.right, images.right_next
