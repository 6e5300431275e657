"""Images: reading to RGB, PNG encoding of maps, and a check of image files that decodes no pixel."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import DataError, ShapeError

UInt8Array = npt.NDArray[np.uint8]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Some cameras append a few bytes after the end marker.
JPEG_TRAILER_BYTES = 1024
# Start-of-frame markers hold the size; C4, C8 and CC in their range mean other things.
JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Fixed here so that equal arrays have equal bytes; level 6 takes twice the time for a fifth of the size.
PNG_COMPRESSION = 3
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def read_image(path: Path) -> UInt8Array:
    """Read an image of any kind as 8-bit RGB; grey is repeated, alpha dropped, EXIF rotation ignored.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: The file is missing, cut short or not an image.
    """
    return decode_image(read_file(path), str(path))


def decode_image(content: bytes, name: str) -> UInt8Array:
    """What ``read_image`` makes of a file's bytes; ``name`` is for messages.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: The bytes are cut short or no image.
    """
    _check_end(content, name)
    image = cv2.imdecode(
        np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if image is None:
        raise DataError(f"unreadable image: {name} cannot be decoded; fetch or export it again")
    return np.asarray(image, np.uint8)


def read_png(path: Path) -> npt.NDArray[Any]:
    """Read a PNG as it is stored: 8 or 16 bit, (H, W), (H, W, 3) or (H, W, 4), channels in RGB(A) order.

    Raises:
        DataError: The file is missing, cut short or not a PNG.
    """
    return decode_png(read_file(path), str(path))


def write_png(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a PNG aside, then rename it; see ``encode_png`` for what ``array`` may be."""
    write_bytes(path, encode_png(array))


def encode_png(array: npt.NDArray[Any]) -> bytes:
    """Encode as PNG without loss; equal arrays give equal bytes.

    Args:
        array: uint8 or uint16, (H, W), (H, W, 3) in RGB or (H, W, 4) in RGBA order.

    Raises:
        ShapeError: Another shape or dtype.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise ShapeError(f"a PNG holds uint8 or uint16. Got: {array.dtype}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ShapeError(
            f"a PNG must be (H, W), (H, W, 3) or (H, W, 4) with at least a pixel. Got: {array.shape}"
        )
    stored = _swap_red_blue(np.ascontiguousarray(array))
    done, content = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    if not done:
        raise DataError(f"PNG encoding of a {array.shape} {array.dtype} array failed")
    return bytes(content)


def decode_png(content: bytes, name: str) -> npt.NDArray[Any]:
    """Inverse of ``encode_png``.

    Args:
        content: The file's bytes.
        name: What to call it in messages.

    Raises:
        DataError: ``content`` is no whole PNG.
    """
    if not content.startswith(PNG_SIGNATURE):
        raise DataError(f"unreadable image: {name} is not a PNG ({len(content)} bytes)")
    _check_end(content, name)
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise DataError(f"unreadable image: {name} cannot be decoded")
    return _swap_red_blue(array)


def inspect_image(path: Path, *, check_content: bool = True) -> tuple[int, int]:
    """Size of a PNG or JPEG, from its structure alone.

    Args:
        path: The file.
        check_content: Also check every PNG chunk's checksum, which finds damage anywhere in the file for a
            small part of the cost of decoding it.

    Returns:
        (H, W).

    Raises:
        DataError: The file is missing, cut short, damaged or of another kind.
    """
    content = read_file(path)
    _check_end(content, path)
    if content.startswith(PNG_SIGNATURE):
        if check_content:
            _check_png_chunks(content, path)
        width, height = struct.unpack(">II", content[16:24])
        return height, width
    return _jpeg_size(content, path)


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: It is missing, is a folder or may not be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"missing image: {path} does not exist") from None
    except OSError as error:
        raise DataError(f"unreadable image: {path}: {error.strerror}") from error


def _check_end(content: bytes, name: str | Path) -> None:
    """Decoders fill what is missing at the end of a file with grey, so look for the end itself."""
    if content.startswith(PNG_SIGNATURE):
        whole = content.rstrip(b"\0").endswith(PNG_END)
    elif content.startswith(JPEG_START):
        whole = JPEG_END in content[-JPEG_TRAILER_BYTES:]
    else:
        raise DataError(f"unreadable image: {name} is neither PNG nor JPEG ({len(content)} bytes)")
    if not whole:
        raise DataError(f"unreadable image: {name} is cut short at {len(content)} bytes; fetch it again")


def _check_png_chunks(content: bytes, path: Path) -> None:
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        end = position + 8 + length
        kind_and_data = memoryview(content)[position + 4 : end]
        if end + 4 > len(content) or zlib.crc32(kind_and_data) != int.from_bytes(
            content[end : end + 4], "big"
        ):
            raise DataError(f"unreadable image: {path} is damaged at byte {position}; fetch it again")
        if content[position + 4 : position + 8] == b"IEND":
            return
        position = end + 4
    raise DataError(f"unreadable image: {path} has no end; fetch it again")


def _jpeg_size(content: bytes, path: Path) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in JPEG_FRAME_MARKERS:
            height, width = struct.unpack(">HH", content[position + 5 : position + 9])
            return height, width
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    raise DataError(f"unreadable image: {path} is a JPEG without a size; fetch it again")


def _swap_red_blue(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """OpenCV stores colours as BGR(A)."""
    if array.ndim == 2:
        return array
    code = cv2.COLOR_BGR2RGB if array.shape[-1] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(array, code))
