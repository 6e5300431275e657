"""TFRecord files of Waymo frames for tests: messages by the protobuf runtime, checksums bit by bit."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gestalt.data.images import encode_png

CAMERA_NUMBERS = {"front": 1, "front_left": 2, "front_right": 3, "side_left": 4, "side_right": 5}
# Message -> field -> (number, type, repeated); a type in capitals is another message.
MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Mapping": {
        "local_instance_id": (1, "int32", False),
        "global_instance_id": (2, "int32", False),
        "is_tracked": (3, "bool", False),
    },
    "Label": {
        "panoptic_label_divisor": (1, "int32", False),
        "panoptic_label": (2, "bytes", False),
        "instance_id_to_global_id_mapping": (3, "Mapping", True),
        "sequence_id": (4, "string", False),
        "num_cameras_covered": (5, "bytes", False),
    },
    "Image": {
        "name": (1, "int32", False),
        "image": (2, "bytes", False),
        "shutter": (6, "double", False),
        "camera_segmentation_label": (10, "Label", False),
    },
    "Calibration": {
        "name": (1, "int32", False),
        "intrinsic": (2, "double", True),
        "width": (4, "int32", False),
        "height": (5, "int32", False),
    },
    "Context": {"name": (1, "string", False), "camera_calibrations": (2, "Calibration", True)},
    "Frame": {
        "context": (1, "Context", False),
        "timestamp_micros": (2, "int64", False),
        "images": (4, "Image", True),
        "lasers": (5, "bytes", True),
        "fingerprint": (1001, "fixed32", False),
    },
}


@cache
def message_classes() -> dict[str, Any]:
    """Message classes of the runtime, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="waymo_of_tests.proto", package="tests", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, is_repeated) in fields.items():
            entry = message.field.add(name=field, number=number, label=3 if is_repeated else 1)
            if kind[0].isupper():
                entry.type, entry.type_name = entry.TYPE_MESSAGE, f".tests.{kind}"
            else:
                entry.type = getattr(entry, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tests.{name}"))
        for name in MESSAGES
    }


def make_label(
    values: Any,
    *,
    divisor: int = 1000,
    sequence_id: str = "s",
    instances: Iterable[tuple[int, int, bool]] = (),
) -> Any:
    """A panoptic label; ``instances`` are (local id, global id, is tracked)."""
    kinds = message_classes()
    return kinds["Label"](
        panoptic_label_divisor=divisor,
        panoptic_label=encode_png(np.asarray(values, np.uint16)),
        sequence_id=sequence_id,
        instance_id_to_global_id_mapping=[
            kinds["Mapping"](local_instance_id=local, global_instance_id=other, is_tracked=tracked)
            for local, other, tracked in instances
        ],
    )


def make_frame(
    labels: Mapping[str, Any],
    *,
    context: str = "100_000_020_000_040_000",
    timestamp: int = 1_500_000_000_000_000,
    lidar_bytes: int = 3000,
) -> bytes:
    """A serialised frame with an image per camera and labels where given; the lidar is noise."""
    kinds = message_classes()
    images = [
        kinds["Image"](
            name=number, image=jpeg(number), shutter=0.5, camera_segmentation_label=labels.get(camera)
        )
        for camera, number in CAMERA_NUMBERS.items()
    ]
    frame = kinds["Frame"](
        context={
            "name": context,
            "camera_calibrations": [
                {"name": number, "intrinsic": [100.0 + number, 2.5], "width": 4, "height": 2}
                for number in CAMERA_NUMBERS.values()
            ],
        },
        timestamp_micros=timestamp,
        images=images,
        lasers=[np.random.default_rng(0).bytes(lidar_bytes)],
        fingerprint=7,
    )
    return frame.SerializeToString()


@cache
def jpeg(value: int) -> bytes:
    """A grey JPEG of 2 x 4 pixels."""
    done, content = cv2.imencode(".jpg", np.full((2, 4, 3), 40 * value, np.uint8))
    assert done
    return bytes(content)


def write_records(path: Path, payloads: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(encode_record, payloads)))
    return path


def encode_record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def masked(content: bytes) -> bytes:
    checksum = crc32c(content)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32)


@cache
def crc32c(content: bytes) -> int:
    """CRC-32C from its definition, a bit at a time."""
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF
