from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.data.protocol_buffers import Message
from gestalt.errors import DataError
from tests.data.waymo_records import message_classes


def message(content: bytes) -> Message:
    # Something before and after, so that places are not counted from 0.
    return Message(b"\xff\xff" + content + b"\xff", 2, 2 + len(content), "m")


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.binary(max_size=300),
    st.lists(st.floats(allow_nan=False), max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_what_the_runtime_writes_is_read(
    number: int, text: str, content: bytes, doubles: list[float], fixed: int
) -> None:
    frame = message_classes()["Frame"](
        context={"name": text, "camera_calibrations": [{"intrinsic": doubles}]},
        timestamp_micros=number,
        lasers=[content, b"x"],
        fingerprint=fixed,
    )
    found = message(frame.SerializeToString())
    assert found.numbers() == {2: number}
    (context,) = found.messages(1)
    assert [name.text() for name in context.messages(1)] == [text]
    (calibration,) = context.messages(2)
    assert [part.doubles() for part in calibration.messages(2)] == [(value,) for value in doubles]
    assert [laser.content() for laser in found.messages(5)] == [content, b"x"]
    (fingerprint,) = found.messages(1001)
    assert fingerprint.content() == struct.pack("<I", fixed)
    assert [key for key, _ in found.fields()] == [1, 2, 5, 5, 1001]


def test_packed_doubles_are_read_as_well() -> None:
    packed = struct.pack("<3d", 1.0, 2.5, -3.0)
    (part,) = message(b"\x12\x18" + packed).messages(2)
    assert part.doubles() == (1.0, 2.5, -3.0)
    with pytest.raises(DataError, match="m is not the protocol buffer that is expected: numbers of 8 bytes"):
        next(message(b"\x12\x03abc").messages(2)).doubles()


def test_numbers_of_a_field_that_is_there_twice_are_the_last() -> None:
    assert message(b"\x08\x01\x08\x05").numbers() == {1: 5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x08", "a number has no end, at byte 3"),
        (b"\x08" + b"\xff" * 11, "a number has no end, at byte 3"),
        (b"\x12\x05abc", "field 2 needs 5 bytes, 3 are left, at byte 4"),
        (b"\x11abc", "field 2 needs 8 bytes, 3 are left, at byte 3"),
        (b"\x0b", "field 1 is of the unknown kind 3, at byte 3"),
    ],
)
def test_bytes_that_are_no_message_are_explained(content: bytes, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        list(message(content).fields())


def test_a_long_value_is_jumped_over() -> None:
    touched = []

    class Watched(bytes):
        def __getitem__(self, place):
            touched.append(place)
            return super().__getitem__(place)

    content = message_classes()["Frame"](timestamp_micros=3, lasers=[bytes(100_000)]).SerializeToString()
    assert Message(Watched(content), 0, len(content), "m").numbers() == {2: 3}
    assert max(touched) < 10
