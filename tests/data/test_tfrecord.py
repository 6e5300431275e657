from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from gestalt.data.tfrecord import find_records, masked_checksum, read_record
from gestalt.errors import DataError
from tests.data.waymo_records import crc32c, encode_record, masked, write_records

PAYLOADS = (b"first", b"", b"the third record", bytes(range(256)))
# Where each record starts: 8 length, 4 checksum, payload, 4 checksum.
STARTS = (0, 21, 37, 69, 341)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_records(tmp_path / "a.tfrecord", PAYLOADS)


def test_checksums_are_those_of_the_standard() -> None:
    # The check value that catalogues of CRCs give for CRC-32C.
    assert crc32c(b"123456789") == 0xE3069283
    for content in (b"", b"123456789", bytes(1000)):
        assert masked_checksum(content).to_bytes(4, "little") == masked(content)


def test_records_are_found_and_read(path: Path) -> None:
    records = list(find_records(path))
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert [record.offset - 12 for record in records] == list(STARTS[:-1])
    assert [record.length for record in records] == [len(payload) for payload in PAYLOADS]
    # In any order, without the ones before.
    assert tuple(read_record(record) for record in reversed(records)) == PAYLOADS[::-1]
    assert path.stat().st_size == STARTS[-1]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert list(find_records(write_records(tmp_path / "a.tfrecord", []))) == []


def test_records_are_found_without_reading_payloads(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[STARTS[2] + 14] ^= 1
    path.write_bytes(content)
    records = list(find_records(path))
    assert read_record(records[3]) == PAYLOADS[3]
    with pytest.raises(
        DataError, match=r"a\.tfrecord, record 2 at byte 37 is damaged: .* of its 16 bytes is wrong; fetch"
    ):
        read_record(records[2])


def test_every_damaged_byte_of_a_payload_is_noticed(path: Path) -> None:
    (*_, record) = find_records(path)
    whole = path.read_bytes()
    for place in range(STARTS[3] + 12, STARTS[4], 7):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(DataError, match="record 3 at byte 69 is damaged"):
            read_record(record)


def test_every_damaged_byte_of_a_header_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(STARTS[1], STARTS[1] + 12):
        path.write_bytes(flipped(whole, place))
        found = find_records(path)
        assert next(found).number == 0
        with pytest.raises(
            DataError, match="is damaged: the checksum of the length of record 1 at byte 21 is wrong"
        ):
            next(found)


def test_a_cut_is_found_wherever_it_is(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(1, STARTS[-1]):
        path.write_bytes(whole[:size])
        if size in STARTS:
            # A file that ends with a record is a whole file.
            assert len(list(find_records(path))) == STARTS.index(size)
            continue
        number = sum(size > start for start in STARTS) - 1
        message = rf"record {number} at byte {STARTS[number]} is cut short: .*\({number} records before it are whole"
        with pytest.raises(DataError, match=message):
            list(find_records(path))


def test_a_file_that_shrinks_after_it_was_listed(path: Path) -> None:
    records = list(find_records(path))
    path.write_bytes(path.read_bytes()[:100])
    assert read_record(records[2]) == PAYLOADS[2]
    with pytest.raises(DataError, match=r"record 3 at byte 69 is cut short: .* ends at byte 100"):
        read_record(records[3])


def test_compressed_files_are_called_so(tmp_path: Path) -> None:
    content = b"".join(map(encode_record, PAYLOADS))
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"compressed with GZIP.*decompress it first, such as with `gunzip`"):
        list(find_records(path))
    for level in (1, 6, 9):
        path.write_bytes(zlib.compress(content, level))
        with pytest.raises(DataError, match="compressed with ZLIB"):
            list(find_records(path))


@pytest.mark.parametrize("length", [0x8B1F, 0x9C78])
def test_a_length_that_looks_like_a_compressed_file_is_a_length(tmp_path: Path, length: int) -> None:
    path = write_records(tmp_path / "a.tfrecord", [bytes(length)])
    (record,) = find_records(path)
    assert record.length == length


def test_other_files_are_no_tfrecords(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_text("this is some text, not a record\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"a\.tfrecord is no TFRecord, or is damaged: .* record 0 at byte 0 is wrong"
    ):
        list(find_records(path))
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="cannot be read as TFRecord"):
            list(find_records(missing))
    (record,) = find_records(write_records(path, [b"x"]))
    path.unlink()
    with pytest.raises(DataError, match=r"record 0 at byte 0 cannot be read: No such file"):
        read_record(record)
