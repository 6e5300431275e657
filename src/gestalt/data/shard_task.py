"""One shard of a run: worked through frame by frame in a worker, finished when its folder is in the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gestalt.data.atomic_files import explain_full_disk
from gestalt.data.shards import FRAMES_FILE, INDEX_FILE, RECORDS_FILE, ShardWriter
from gestalt.errors import DataError

STATUSES = ("ok", "empty", "failed")
ARCHIVE_FILE, FAILURES_FILE, CHECKSUMS_FILE = "shard.tar", "failures.txt", "checksums.json"


class HasFrameId(Protocol):
    """Anything that knows its frame."""

    @property
    def frame_id(self) -> str:
        """Unique among the items of a run and safe as a file name."""


Item = TypeVar("Item", bound=HasFrameId)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What became of one frame.

    Attributes:
        frame_id: The item's.
        status: ``ok``; ``empty``, when the method worked and found nothing; ``failed``, when it did not work.
        reason: Empty for ``ok``; otherwise a short sentence that is the same for all frames of this fate.
        maps: Name -> (H, W) uint8 or uint16; every ok and empty frame of a run has the same names.
        records: Rows for the table of the run; frame_id is put in front.
        counts: Numbers about the frame; one column each in the table of frames.
    """

    frame_id: str
    status: str = "ok"
    reason: str = ""
    maps: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Shard:
    """A piece of a run and its folder in the cache, which exists only when the shard is finished."""

    run_dir: Path
    number: int
    items: Sequence[Any]

    @property
    def folder(self) -> Path:
        """Where the finished shard lies."""
        return self.run_dir / f"{self.number:05d}"

    @property
    def archive(self) -> str:
        """What the archive is called in the output."""
        return f"{self.number:05d}.tar"

    def is_finished(self) -> bool:
        """Whether the shard is there and every byte of it is as it was written; a damaged one is deleted."""
        try:
            checksums = json.loads((self.folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
            whole = all(_sha256(self.folder / name) == value for name, value in checksums.items())
            found = pq.read_table(self.folder / FRAMES_FILE, columns=["frame_id"]).column(0).to_pylist()
        except (OSError, ValueError, pa.ArrowException):
            whole, found = False, []
        if whole and found == [item.frame_id for item in self.items]:
            return True
        shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def forget_failures(self) -> None:
        """Delete the shard if a frame of it failed, so that the next run tries these frames again."""
        if "failed" in pq.read_table(self.folder / FRAMES_FILE, columns=["status"]).column(0).to_pylist():
            shutil.rmtree(self.folder)


def process_shard_in_worker(shard: Shard, process: Callable[[Any], FrameResult]) -> int:
    """``process_shard`` for a worker, which from then on ends with the process that started it."""
    _end_with_parent()
    return process_shard(shard, process)


def process_shard(shard: Shard, process: Callable[[Any], FrameResult]) -> int:
    """Work through one shard and leave it finished in the cache; this is one task.

    Returns:
        Number of frames.
    """
    aside = shard.run_dir / f"{shard.number:05d}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with explain_full_disk(shard.folder):
            aside.mkdir(parents=True)
            _write_shard(shard, process, aside)
            shutil.rmtree(shard.folder, ignore_errors=True)
            aside.rename(shard.folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(shard.items)


def _write_shard(shard: Shard, process: Callable[[Any], FrameResult], folder: Path) -> None:
    frames: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    failures: list[str] = []
    with ShardWriter(folder / ARCHIVE_FILE, shard.archive) as writer:
        for item in shard.items:
            result, trace = process_frame(item, process)
            writer.add(result.frame_id, result.maps)
            frames.append(
                {
                    "frame_id": result.frame_id,
                    "status": result.status,
                    "reason": result.reason,
                    **{name: float(value) for name, value in result.counts.items()},
                }
            )
            records += [{"frame_id": result.frame_id, **_plain(record)} for record in result.records]
            if trace:
                failures.append(f"{result.frame_id}\n{trace}\n")
        index = writer.close()
    pq.write_table(index, folder / INDEX_FILE)
    pq.write_table(_to_table(frames), folder / FRAMES_FILE)
    pq.write_table(_to_table(records), folder / RECORDS_FILE)
    (folder / FAILURES_FILE).write_text("".join(failures), encoding="utf-8")
    checksums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(checksums), encoding="utf-8")


def process_frame(item: Item, process: Callable[[Item], FrameResult]) -> tuple[FrameResult, str]:
    """Result of one frame and, when it failed with an exception, the traceback.

    One broken frame must not stop a batch, so this is the one place where exceptions become records: stored
    with their traceback, counted, and limited by ``max_failed_share``. A full disk is no frame's fault and is
    raised.
    """
    try:
        result = process(item)
        _check_result(result, item.frame_id)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
        return FrameResult(item.frame_id, "failed", reason), traceback.format_exc()
    return result, result.reason if result.status == "failed" else ""


@cache
def _end_with_parent() -> None:
    """Watch the parent process from a thread, once per worker.

    A pool's idle worker waits for work for ever when its parent was killed, with all its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def _check_result(result: FrameResult, frame_id: str) -> None:
    if result.frame_id != frame_id:
        raise DataError(f"the result of frame {frame_id!r} calls itself {result.frame_id!r}")
    if result.status not in STATUSES:
        raise DataError(f"a frame's status is one of {', '.join(STATUSES)}. Got: {result.status!r}")
    if result.status == "failed" and result.maps:
        raise DataError("a failed frame must not bring maps: they would look like labels")


def _to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; columns in the order of their first appearance, frame_id always there."""
    names = dict.fromkeys(["frame_id", *(name for row in rows for name in row)])
    arrays = {name: pa.array([row.get(name) for row in rows]) for name in names}
    arrays["frame_id"] = arrays["frame_id"].cast(pa.string())
    return pa.table(arrays)


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in record.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
