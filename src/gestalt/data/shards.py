"""Shard folders: maps of many frames as PNGs inside a few uncompressed archives, with an index and tables.

Layout: ``shards/00000.tar`` and so on, ``index.parquet``, ``frames.parquet``, ``records.parquet``. Members
are written in sorted order with no times and no owners, so equal content has equal bytes. Any tool that reads
tar and PNG reads it; the index gives random access without reading an archive.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gestalt.data.images import decode_png, encode_png
from gestalt.errors import DataError

INDEX = pa.schema(
    [
        ("frame_id", pa.string()),
        ("kind", pa.string()),
        ("shard", pa.string()),
        ("member", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("crc32", pa.int64()),
    ]
)
INDEX_FILE, FRAMES_FILE, RECORDS_FILE = "index.parquet", "frames.parquet", "records.parquet"


@dataclass(frozen=True)
class Member:
    """Where one map lies: byte range in its archive, and the checksum of these bytes."""

    shard: str
    name: str
    offset: int
    size: int
    crc32: int


class ShardFolder:
    """Reads a shard folder; opening costs one small table, maps are read when asked for.

    Args:
        folder: The folder.

    Raises:
        DataError: It is missing or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (INDEX_FILE, FRAMES_FILE, RECORDS_FILE):
            if not (folder / name).is_file():
                raise DataError(f"{folder} is no shard folder: {name} is missing; `dvc repro` makes it")
        self._members: dict[tuple[str, str], Member] = {}
        table = pq.read_table(folder / INDEX_FILE)
        try:
            columns = [table.column(name).to_pylist() for name in INDEX.names]
        except KeyError as error:
            raise DataError(f"{folder / INDEX_FILE} lacks a column: {error}") from error
        for frame_id, kind, *member in zip(*columns):
            self._members[frame_id, kind] = Member(*member)

    @cached_property
    def frame_ids(self) -> list[str]:
        """Frames that have maps, in sorted order. Failed frames have none."""
        return list(dict.fromkeys(frame_id for frame_id, _ in self._members))

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Names of the maps, sorted."""
        return tuple(sorted({kind for _, kind in self._members}))

    def frames(self) -> pd.DataFrame:
        """A row per frame: frame_id, status (``ok``, ``empty``, ``failed``), reason, one column per count."""
        return pd.read_parquet(self.folder / FRAMES_FILE)

    def records(self) -> pd.DataFrame:
        """The records of all frames, in the order of the frames; at least the column frame_id."""
        return pd.read_parquet(self.folder / RECORDS_FILE)

    def read_map(self, frame_id: str, kind: str) -> npt.NDArray[Any]:
        """One map, as it was written.

        Raises:
            DataError: The frame has no such map, or its bytes are damaged.
        """
        member = self._member(frame_id, kind)
        with self._open(member.shard) as archive:
            return self._read(archive, member)

    def stream(self, *kinds: str) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
        """All frames that have maps, in order, reading each archive from start to end.

        Args:
            kinds: Names of maps; all when none is given.
        """
        shard, archive = "", None
        try:
            for frame_id in self.frame_ids:
                maps = {}
                for kind in kinds or self.kinds:
                    member = self._member(frame_id, kind)
                    if archive is None or member.shard != shard:
                        if archive is not None:
                            archive.close()
                        shard, archive = member.shard, self._open(member.shard)
                    maps[kind] = self._read(archive, member)
                yield frame_id, maps
        finally:
            if archive is not None:
                archive.close()

    def fingerprint(self) -> str:
        """SHA-256 over the tables; they hold every map's checksum, so it stands for the whole content."""
        digest = hashlib.sha256()
        for name in (INDEX_FILE, FRAMES_FILE, RECORDS_FILE):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Workers open the folder again: its index is cheaper to read than to send with every task.
        self.__init__(state["folder"])  # type: ignore[misc]

    def _member(self, frame_id: str, kind: str) -> Member:
        try:
            return self._members[frame_id, kind]
        except KeyError:
            known = ", ".join(self.kinds)
            raise DataError(
                f"{self.folder} holds no map {kind!r} of frame {frame_id!r}; "
                f"it has {len(self.frame_ids)} frames with the maps {known or '(none)'}"
            ) from None

    def _open(self, shard: str) -> BinaryIO:
        path = self.folder / "shards" / shard
        try:
            return path.open("rb")
        except FileNotFoundError:
            raise DataError(f"{path} is missing although the index names it; `dvc repro` makes it") from None

    def _read(self, archive: BinaryIO, member: Member) -> npt.NDArray[Any]:
        archive.seek(member.offset)
        content = archive.read(member.size)
        name = f"{self.folder / 'shards' / member.shard}:{member.name}"
        if len(content) != member.size or zlib.crc32(content) != member.crc32:
            raise DataError(
                f"{name} is damaged: {len(content)} bytes, expected {member.size} with another checksum"
            )
        return decode_png(content, name)


class ShardWriter:
    """Writes one archive, frame by frame, keeping only its index in memory.

    Args:
        path: The archive; its name goes into the index.
        shard: What the index calls the archive.
    """

    def __init__(self, path: Path, shard: str) -> None:
        self._file = path.open("wb")
        self._shard = shard
        self._rows: list[dict[str, Any]] = []

    def add(self, frame_id: str, maps: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append the maps of one frame; frames come in sorted order."""
        for kind in sorted(maps):
            name = f"{frame_id}.{kind}.png"
            content = encode_png(maps[kind])
            offset = append_member(self._file, name, content)
            self._rows.append(
                {
                    "frame_id": frame_id,
                    "kind": kind,
                    "shard": self._shard,
                    "member": name,
                    "offset": offset,
                    "size": len(content),
                    "crc32": zlib.crc32(content),
                }
            )

    def close(self) -> pa.Table:
        """End the archive.

        Returns:
            Its index, with the columns of ``INDEX``.
        """
        self._file.write(b"\0" * 2 * tarfile.BLOCKSIZE)
        self._file.close()
        return pa.Table.from_pylist(self._rows, schema=INDEX)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def append_member(archive: BinaryIO, name: str, content: bytes) -> int:
    """Append a file to an open tar archive, without times or owners.

    Returns:
        Where its bytes start in the archive.
    """
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    archive.write(info.tobuf(tarfile.GNU_FORMAT))
    offset = archive.tell()
    archive.write(content)
    archive.write(b"\0" * (-len(content) % tarfile.BLOCKSIZE))
    return offset
