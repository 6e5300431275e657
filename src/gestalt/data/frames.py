"""Images at the size that labels are made at: scale, centre crop, moved principal point, valid region."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.frames import FrameSettings
from gestalt.data.images import read_image
from gestalt.data.kitti_maps import read_disparity, read_optical_flow
from gestalt.data.records import StereoFrame
from gestalt.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StereoImages:
    """The pixels of a stereo pair at t and t+1, all of one size.

    Attributes:
        left: (H, W, 3) uint8 RGB at t.
        right: The right image at t, or None where the frame brings stored measurements instead.
        left_next: The left image at t+1.
        right_next: The right image at t+1, or None.
        intrinsics: (3, 3) float64, pixels at this size, pixel centres at whole numbers.
        stereo_baseline: Metres.
        valid: (H, W) bool, where motion may be trusted: not the bonnet, the borders or padding.
    """

    left: UInt8Array
    right: UInt8Array | None
    left_next: UInt8Array
    right_next: UInt8Array | None
    intrinsics: npt.NDArray[np.float64]
    stereo_baseline: float
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class StoredMeasurements:
    """Motion and depth that came with the data, at the size of the images.

    Attributes:
        optical_flow: (2, H, W) float32, pixels, left t -> left t+1, 0 where unknown.
        optical_flow_valid: (H, W) bool.
        disparity: (H, W) float32, pixels, of the left image at t, 0 where unknown.
        disparity_next_warped: (H, W) float32, pixels, disparity at t+1 *at the pixel positions of t*, 0 where
            unknown.
    """

    optical_flow: FloatArray
    optical_flow_valid: npt.NDArray[np.bool_]
    disparity: FloatArray
    disparity_next_warped: FloatArray


@dataclass(frozen=True)
class FrameGeometry:
    """From stored pixels to working pixels: first a scale, then an offset of whole pixels.

    Attributes:
        stored: (H, W) of the files.
        scaled: (H, W) after scaling.
        size: (H, W) after cropping or padding.
    """

    stored: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]

    @property
    def offset(self) -> tuple[int, int]:
        """(rows, columns) cut off at the top and left; negative where zeros are put there instead."""
        return (self.scaled[0] - self.size[0]) // 2, (self.scaled[1] - self.size[1]) // 2


def frame_geometry(height: int, width: int, settings: FrameSettings) -> FrameGeometry:
    """The geometry of images of ``height`` x ``width`` stored pixels."""
    scaled = (max(1, round(height * settings.scale)), max(1, round(width * settings.scale)))
    return FrameGeometry((height, width), scaled, (settings.height or scaled[0], settings.width or scaled[1]))


def load_stereo(frame: StereoFrame, settings: FrameSettings) -> StereoImages:
    """Read, scale and crop the images of a pair.

    Raises:
        DataError: An image is missing, broken or has another size than the manifest says.
    """
    geometry = frame_geometry(frame.height, frame.width, settings)
    return StereoImages(
        left=_load(frame.left, geometry),
        right=None if frame.right is None else _load(frame.right, geometry),
        left_next=_load(frame.left_next, geometry),
        right_next=None if frame.right_next is None else _load(frame.right_next, geometry),
        intrinsics=move_intrinsics(frame.intrinsics, geometry),
        stereo_baseline=frame.stereo_baseline,
        valid=valid_region(geometry, settings),
    )


def load_left(frame: StereoFrame, settings: FrameSettings) -> UInt8Array:
    """The left image at t, as in ``load_stereo``: (H, W, 3) uint8 RGB.

    Raises:
        DataError: The image is missing, broken or has another size than the manifest says.
    """
    return _load(frame.left, frame_geometry(frame.height, frame.width, settings))


def load_measurements(frame: StereoFrame, settings: FrameSettings) -> StoredMeasurements | None:
    """Stored optical flow and disparities in working pixels; None unless all three are there.

    Values are taken from the nearest stored pixel (interpolation would mix objects with what is behind them)
    and multiplied by the scale of their axis.

    Raises:
        DataError: A file is missing, broken or has another size than the images.
    """
    if frame.optical_flow is None or frame.disparity is None or frame.disparity_next is None:
        return None
    geometry = frame_geometry(frame.height, frame.width, settings)
    scale_y, scale_x = geometry.scaled[0] / frame.height, geometry.scaled[1] / frame.width
    optical_flow, valid = read_optical_flow(frame.optical_flow)
    disparity, disparity_next = read_disparity(frame.disparity), read_disparity(frame.disparity_next)
    for path, array in (
        (frame.optical_flow, valid),
        (frame.disparity, disparity),
        (frame.disparity_next, disparity_next),
    ):
        _check_size(path, array.shape[:2], geometry)
    return StoredMeasurements(
        optical_flow=np.stack(
            [
                _resize(optical_flow[0] * np.float32(scale_x), geometry, cv2.INTER_NEAREST),
                _resize(optical_flow[1] * np.float32(scale_y), geometry, cv2.INTER_NEAREST),
            ]
        ),
        optical_flow_valid=_resize(valid.astype(np.uint8), geometry, cv2.INTER_NEAREST) > 0,
        disparity=_resize(disparity * np.float32(scale_x), geometry, cv2.INTER_NEAREST),
        disparity_next_warped=_resize(disparity_next * np.float32(scale_x), geometry, cv2.INTER_NEAREST),
    )


def move_intrinsics(intrinsics: npt.NDArray[np.float64], geometry: FrameGeometry) -> npt.NDArray[np.float64]:
    """Intrinsics in working pixels.

    Args:
        intrinsics: (3, 3), stored pixels.
        geometry: Scale and crop.

    Returns:
        (3, 3) float64.

    Source:
        CUPS (Hahn et al., CVPR 2025) multiplies the first two rows by the scale and leaves the principal
        point where it was when it crops KITTI. Ours also moves it with the crop, and by the part of a pixel
        that scaling around pixel *edges* (what bilinear resizing does) adds for centres at whole numbers.
    """
    moved = np.array(intrinsics, np.float64)
    for axis, row in ((1, 0), (0, 1)):
        scale = geometry.scaled[axis] / geometry.stored[axis]
        moved[row] *= scale
        moved[row, 2] += (scale - 1) / 2 - geometry.offset[axis]
    return moved


def valid_region(geometry: FrameGeometry, settings: FrameSettings) -> npt.NDArray[np.bool_]:
    """(H, W) bool: False at the top, the bottom and both sides as the settings say, and in padding.

    The shares are rounded to whole *stored* pixels and the mask is resized, as the paper's masks were made.
    """
    height, width = geometry.stored
    mask = np.ones((height, width), np.uint8)
    top, bottom = round(settings.valid_top_share * height), round(settings.valid_bottom_share * height)
    side = round(settings.valid_side_share * width)
    mask[:top] = 0
    mask[height - bottom :] = 0
    mask[:, :side] = 0
    mask[:, width - side :] = 0
    return _resize(mask, geometry, cv2.INTER_NEAREST) > 0


def _load(path: Path, geometry: FrameGeometry) -> UInt8Array:
    image = read_image(path)
    _check_size(path, image.shape[:2], geometry)
    return np.asarray(_resize(image, geometry, cv2.INTER_LINEAR), np.uint8)


def _check_size(path: Path, size: tuple[int, ...], geometry: FrameGeometry) -> None:
    if tuple(size) != geometry.stored:
        raise DataError(
            f"size mismatch: {path} is {size[0]} x {size[1]} (rows x columns), expected "
            f"{geometry.stored[0]} x {geometry.stored[1]}; if the file was exchanged, run the stage "
            "`manifest` again"
        )


def _resize(array: npt.NDArray[Any], geometry: FrameGeometry, interpolation: int) -> npt.NDArray[Any]:
    """Scale, then crop or pad with zeros around the centre."""
    height, width = geometry.scaled
    if geometry.scaled != geometry.stored:
        array = cv2.resize(array, (width, height), interpolation=interpolation)
    if geometry.size == geometry.scaled:
        return array
    top, left = geometry.offset
    rows, columns = geometry.size
    array = array[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + columns]
    out = np.zeros((rows, columns, *array.shape[2:]), array.dtype)
    out[max(0, -top) : max(0, -top) + array.shape[0], max(0, -left) : max(0, -left) + array.shape[1]] = array
    return out
