"""Camera images and their panoptic labels in Waymo's TFRecord files, read without TensorFlow.

A segment of 20 s is a file of about 1 GB, one record per frame, mostly lidar. Which frames have labels is found by
jumping from field to field; a label or an image is decoded only when it is read, and its record is checked then.

Field numbers are those of ``dataset.proto`` of the Waymo Open Dataset (version 1.4 and later).
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gestalt.data.images import decode_image, decode_png
from gestalt.data.protocol_buffers import Message
from gestalt.data.tfrecord import Record, find_records, read_record
from gestalt.errors import DataError
from gestalt.panoptic import UInt8Array, UInt16Array

CAMERAS = {"front": 1, "front_left": 2, "front_right": 3, "side_left": 4, "side_right": 5}
CAMERA_NAMES = {number: name for name, number in CAMERAS.items()}

FRAME_CONTEXT, FRAME_TIMESTAMP, FRAME_IMAGES = 1, 2, 4
CONTEXT_NAME, CONTEXT_CALIBRATIONS = 1, 2
CALIBRATION_CAMERA, CALIBRATION_INTRINSIC, CALIBRATION_WIDTH, CALIBRATION_HEIGHT = 1, 2, 4, 5
IMAGE_CAMERA, IMAGE_JPEG, IMAGE_LABEL = 1, 2, 10
LABEL_DIVISOR, LABEL_PNG, LABEL_MAPPING, LABEL_SEQUENCE = 1, 2, 3, 4
MAPPING_LOCAL, MAPPING_GLOBAL, MAPPING_IS_TRACKED = 1, 2, 3


@dataclass(frozen=True)
class InstanceName:
    """What a label says about an instance number.

    Attributes:
        local_id: The number in the label; classes may share it.
        global_id: The same for one object in all labels of the sequence, whatever the camera.
        is_tracked: Whether that holds; otherwise the same object may have another global id in other labels.
    """

    local_id: int
    global_id: int
    is_tracked: bool


@dataclass(frozen=True)
class LabelledImage:
    """An image with a panoptic label: where it is, and what is known before its pixels are.

    Attributes:
        record: The frame.
        context: Name of the segment.
        timestamp_us: Start of the frame, microseconds.
        camera: A key of ``CAMERAS``.
        sequence_id: Labels of one sequence share global instance ids.
        instances: In ascending order of ``local_id``.
    """

    record: Record
    context: str
    timestamp_us: int
    camera: str
    sequence_id: str
    instances: tuple[InstanceName, ...]


@dataclass(frozen=True, eq=False)
class PanopticLabel:
    """A decoded label.

    Attributes:
        values: (H, W) uint16, ``class * divisor + local instance``; instance 0 where there is none.
        divisor: See ``values``.
    """

    values: UInt16Array
    divisor: int


@dataclass(frozen=True)
class CameraModel:
    """Calibration of a camera at the stored image size.

    Attributes:
        intrinsic: f_u, f_v, c_u, c_v in pixels, k1, k2, p1, p2, k3 as OpenCV has them.
        width: Columns.
        height: Rows.
    """

    intrinsic: tuple[float, ...]
    width: int
    height: int


@dataclass(frozen=True)
class EmbeddedJpeg:
    """The image of a camera as a frame holds it; called, it gives the pixels.

    Attributes:
        record: The frame.
        camera: A key of ``CAMERAS``.
    """

    record: Record
    camera: str

    def __call__(self) -> UInt8Array:
        """(H, W, 3) uint8 RGB.

        Raises:
            DataError: See ``content``; or it is no JPEG.
        """
        return decode_image(self.content(), f"image {self.camera} of {self.record.name}")

    def content(self) -> bytes:
        """The JPEG as stored.

        Raises:
            DataError: The record is damaged, or has no image of this camera.
        """
        for jpeg in _read_camera(self.record, self.camera).messages(IMAGE_JPEG):
            return jpeg.content()
        raise DataError(f"{self.record.name}: camera {self.camera} has no image")


def find_labels(path: Path) -> Iterator[LabelledImage]:
    """Images of all cameras that have a panoptic label, frame by frame as the file has them.

    Raises:
        DataError: The file is no TFRecord of frames, or is damaged, cut short or empty.
    """
    records = list(find_records(path))
    if not records:
        raise DataError(f"{path} is empty; fetch it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # Most pages hold lidar, which is jumped over; reading ahead would fetch it.
        if hasattr(mmap, "MADV_RANDOM"):
            content.madvise(mmap.MADV_RANDOM)
        for record in records:
            frame = Message(content, record.offset, record.offset + record.length, record.name)
            yield from _labels_of_frame(frame, record)


def read_label(record: Record, camera: str) -> PanopticLabel:
    """The panoptic label of a camera.

    Raises:
        DataError: The record is damaged, has no such label, or the label is no 16-bit PNG of one channel.
    """
    name = f"panoptic label {camera} of {record.name}"
    for label in _read_camera(record, camera).messages(IMAGE_LABEL):
        divisor = label.numbers().get(LABEL_DIVISOR, 0)
        for png in label.messages(LABEL_PNG):
            if divisor <= 0:
                raise DataError(f"{name} must have a panoptic_label_divisor above 0. Got: {divisor}")
            values = decode_png(png.content(), name)
            if values.ndim != 2 or values.dtype != np.uint16:
                raise DataError(
                    f"{name} must be a 16-bit PNG of one channel. Got: {values.shape} {values.dtype}"
                )
            return PanopticLabel(values, divisor)
    raise DataError(f"{record.name}: camera {camera} has no panoptic label")


def read_cameras(record: Record) -> dict[str, CameraModel]:
    """Calibrations of a frame's cameras, by name.

    Raises:
        DataError: The record is damaged or no frame.
    """
    cameras = {}
    for context in _read_frame(record).messages(FRAME_CONTEXT):
        for calibration in context.messages(CONTEXT_CALIBRATIONS):
            numbers = calibration.numbers()
            # Repeated numbers are stored one by one, or packed into one field.
            parts = [part.doubles() for part in calibration.messages(CALIBRATION_INTRINSIC)]
            cameras[_camera_name(numbers.get(CALIBRATION_CAMERA, 0))] = CameraModel(
                tuple(itertools.chain.from_iterable(parts)),
                numbers.get(CALIBRATION_WIDTH, 0),
                numbers.get(CALIBRATION_HEIGHT, 0),
            )
    return cameras


def _labels_of_frame(frame: Message, record: Record) -> Iterator[LabelledImage]:
    context, timestamp_us, images = "", None, []
    for number, value in frame.fields():
        if isinstance(value, int):
            timestamp_us = value if number == FRAME_TIMESTAMP else timestamp_us
        elif number == FRAME_CONTEXT:
            context = next((name.text() for name in value.messages(CONTEXT_NAME)), "")
        elif number == FRAME_IMAGES:
            images.append(value)
    if not context or timestamp_us is None:
        raise DataError(
            f"{record.name} is no frame of the Waymo Open Dataset: it has no "
            f"{'timestamp' if context else 'segment name'}; records of the perception data, version 1, can be read"
        )
    for image in images:
        camera = _camera_name(image.numbers().get(IMAGE_CAMERA, 0))
        for label in image.messages(IMAGE_LABEL):
            # What other software leaves where a frame has no label is one without pixels.
            if any(True for _ in label.messages(LABEL_PNG)):
                sequence_id = next((text.text() for text in label.messages(LABEL_SEQUENCE)), "")
                yield LabelledImage(
                    record, context, timestamp_us, camera, sequence_id, _read_instances(label)
                )


def _read_instances(label: Message) -> tuple[InstanceName, ...]:
    entries = [entry.numbers() for entry in label.messages(LABEL_MAPPING)]
    instances = [
        InstanceName(
            entry.get(MAPPING_LOCAL, 0), entry.get(MAPPING_GLOBAL, 0), bool(entry.get(MAPPING_IS_TRACKED, 0))
        )
        for entry in entries
    ]
    return tuple(sorted(instances, key=lambda instance: instance.local_id))


def _read_camera(record: Record, camera: str) -> Message:
    """The image message of a camera, in a record that was checked."""
    for image in _read_frame(record).messages(FRAME_IMAGES):
        if image.numbers().get(IMAGE_CAMERA) == CAMERAS[camera]:
            return image
    raise DataError(f"{record.name} has no camera {camera}")


def _read_frame(record: Record) -> Message:
    payload = read_record(record)
    return Message(payload, 0, len(payload), record.name)


def _camera_name(number: int) -> str:
    return CAMERA_NAMES.get(number, f"camera_{number}")
