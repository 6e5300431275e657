"""Fields of a protocol buffer, found by walking over it: what is not asked for is jumped over, never decoded.

A message is a row of fields: a key (field number and kind of value, as varint), then the value. Values that hold bytes
say their length first, so one of a hundred megabytes costs as little as one of ten. Source: the public description of
the Protocol Buffers encoding.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gestalt.errors import DataError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
# 64 bits in groups of seven.
VARINT_BYTES = 10
NEGATIVE, TWO_TO_64 = 1 << 63, 1 << 64


@dataclass(frozen=True, eq=False)
class Message:
    """Some bytes of a file: a message, or the value of a field that is no number of variable length.

    Attributes:
        buffer: Bytes, or a file seen as bytes.
        start: First byte.
        stop: Byte after the last one.
        name: What to call it in errors.
    """

    buffer: bytes | mmap.mmap
    start: int
    stop: int
    name: str

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Fields as pairs of number and value, in the order in which they are stored.

        Returns:
            Varints as signed 64-bit int, everything else as ``Message``, be it one or bytes, text or fixed numbers.

        Raises:
            DataError: These bytes are no message.
        """
        position = self.start
        while position < self.stop:
            key, position = self._varint(position)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, position = self._varint(position)
                yield number, value if value < NEGATIVE else value - TWO_TO_64
                continue
            if kind == BYTES:
                length, position = self._varint(position)
            elif kind in FIXED_BYTES:
                length = FIXED_BYTES[kind]
            else:
                raise self._error(f"field {number} is of the unknown kind {kind}", position)
            if position + length > self.stop:
                raise self._error(
                    f"field {number} needs {length} bytes, {self.stop - position} are left", position
                )
            yield number, Message(self.buffer, position, position + length, self.name)
            position += length

    def numbers(self) -> dict[int, int]:
        """The fields that are varints, by number; the last one where a number is there twice."""
        return {number: value for number, value in self.fields() if isinstance(value, int)}

    def messages(self, wanted: int) -> Iterator[Message]:
        """All values of a field that is no varint."""
        return (value for number, value in self.fields() if number == wanted and isinstance(value, Message))

    def content(self) -> bytes:
        """The bytes."""
        return self.buffer[self.start : self.stop]

    def text(self) -> str:
        """The bytes as UTF-8."""
        return self.content().decode("utf-8", errors="replace")

    def doubles(self) -> tuple[float, ...]:
        """The bytes as float64: one, or the many of a packed field."""
        n_doubles, rest = divmod(self.stop - self.start, 8)
        if rest:
            raise self._error("numbers of 8 bytes were expected", self.start)
        return struct.unpack(f"<{n_doubles}d", self.content())

    def _varint(self, position: int) -> tuple[int, int]:
        """The unsigned varint at ``position``, and the position after it."""
        value = shift = 0
        for place in range(position, min(position + VARINT_BYTES, self.stop)):
            byte = self.buffer[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value % TWO_TO_64, place + 1
            shift += 7
        raise self._error("a number has no end", position)

    def _error(self, what: str, position: int) -> DataError:
        return DataError(
            f"{self.name} is not the protocol buffer that is expected: {what}, at byte {position}"
        )
