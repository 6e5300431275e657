"""TFRecord files without TensorFlow: where each record lies, and a record's bytes, checked against their checksum.

A record is four parts: its length (8 bytes, little-endian), a checksum of the length (4), the payload, a checksum of
the payload (4). Checksums are CRC-32C, masked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from gestalt.errors import DataError

LENGTH_BYTES = 8
CHECKSUM_BYTES = 4
HEADER_BYTES = LENGTH_BYTES + CHECKSUM_BYTES
# A checksum of data that holds checksums itself would be weak, so stored ones are rotated by 15 bits and moved by this
# constant. Source: TensorFlow's description of the TFRecord format.
MASK_DELTA = 0xA282EAD8
COMPRESSED = {
    b"\x1f\x8b": ("GZIP", "gunzip"),
    b"\x78\x01": ("ZLIB", "zlib-flate -uncompress"),
    b"\x78\x5e": ("ZLIB", "zlib-flate -uncompress"),
    b"\x78\x9c": ("ZLIB", "zlib-flate -uncompress"),
    b"\x78\xda": ("ZLIB", "zlib-flate -uncompress"),
}


@dataclass(frozen=True)
class Record:
    """Where a record lies.

    Attributes:
        path: The file.
        number: Place among the records of the file, from 0.
        offset: First byte of the payload in the file.
        length: Bytes of the payload.
    """

    path: Path
    number: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.path}, record {self.number} at byte {self.offset - HEADER_BYTES}"


def find_records(path: Path) -> Iterator[Record]:
    """Records of a file, in order; payloads are skipped, not read.

    Raises:
        DataError: The file is missing, compressed, cut short, or a length does not match its checksum.
    """
    try:
        with path.open("rb", buffering=0) as file:
            yield from _walk(file, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read as TFRecord: {error.strerror}") from error


def read_record(record: Record) -> bytes:
    """The payload of a record.

    Raises:
        DataError: The file is missing, cut short, or the payload does not match its checksum.
    """
    try:
        with record.path.open("rb") as file:
            file.seek(record.offset)
            content = file.read(record.length + CHECKSUM_BYTES)
    except OSError as error:
        raise DataError(f"{record.name} cannot be read: {error.strerror}") from error
    if len(content) < record.length + CHECKSUM_BYTES:
        _explain_cut(record, record.offset + len(content))
    payload, stored = content[: record.length], content[record.length :]
    if masked_checksum(payload) != int.from_bytes(stored, "little"):
        raise DataError(
            f"{record.name} is damaged: the checksum of its {record.length} bytes is wrong; fetch the file again"
        )
    return payload


def masked_checksum(content: bytes) -> int:
    """The checksum that a TFRecord stores for ``content``: masked CRC-32C, 32 bits."""
    import google_crc32c

    checksum = google_crc32c.value(content)
    rotated = checksum >> 15 | checksum << 17
    return int(rotated + MASK_DELTA) & 0xFFFFFFFF


def _walk(file: BinaryIO, path: Path) -> Iterator[Record]:
    size = file.seek(0, 2)
    number = position = 0
    while position < size:
        file.seek(position)
        header = file.read(HEADER_BYTES)
        if number == 0 and header[:2] in COMPRESSED and not _is_header(header):
            kind, command = COMPRESSED[header[:2]]
            raise DataError(
                f"{path} is a TFRecord compressed with {kind}, which cannot be read by place; "
                f"decompress it first, such as with `{command}`"
            )
        if len(header) < HEADER_BYTES:
            raise DataError(
                f"{path}, record {number} at byte {position} is cut short: {len(header)} of the {HEADER_BYTES} bytes "
                f"of its header are there; fetch the file again ({number} records before it are whole)"
            )
        if not _is_header(header):
            what = "is damaged" if number else "is no TFRecord, or is damaged"
            raise DataError(
                f"{path} {what}: the checksum of the length of record {number} at byte {position} is wrong; "
                "fetch the file again"
            )
        (length,) = struct.unpack("<Q", header[:LENGTH_BYTES])
        record = Record(path, number, position + HEADER_BYTES, length)
        position = record.offset + length + CHECKSUM_BYTES
        if position > size:
            _explain_cut(record, size)
        yield record
        number += 1


def _is_header(header: bytes) -> bool:
    stored = int.from_bytes(header[LENGTH_BYTES:], "little")
    return len(header) == HEADER_BYTES and masked_checksum(header[:LENGTH_BYTES]) == stored


def _explain_cut(record: Record, size: int) -> NoReturn:
    raise DataError(
        f"{record.name} is cut short: it needs {record.length + CHECKSUM_BYTES} bytes from byte {record.offset} on, "
        f"and the file ends at byte {size}; fetch the file again ({record.number} records before it are whole)"
    )
