"""Run a function over many frames: in shards, on any executor, resumable, with the same bytes every time.

A shard is one task. A worker goes through its frames one by one, writes their maps into an archive in the
cache and renames the finished shard, so a killed run continues where it was. What ends up in the output
folder depends on the items, the function and the shard size only, never on workers, order or interruptions.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gestalt.data.atomic_files import explain_full_disk, write_bytes
from gestalt.data.code_version import code_version
from gestalt.data.records import check_frame_id
from gestalt.data.shard_task import (
    ARCHIVE_FILE,
    FAILURES_FILE,
    FrameResult,
    HasFrameId,
    Item,
    Shard,
    process_shard,
    process_shard_in_worker,
)
from gestalt.data.shards import FRAMES_FILE, INDEX_FILE, RECORDS_FILE
from gestalt.errors import DataError
from gestalt.runtime import peak_memory_mib, progress

__all__ = ["FrameResult", "RunSummary", "partition", "run_sharded"]

logger = logging.getLogger(__name__)

KEY_LENGTH = 16
SHOWN_REASONS = 5


@dataclass(frozen=True)
class RunSummary:
    """Counts of a run; ``counts`` are the frames' counts, summed."""

    n_frames: int
    n_ok: int
    n_empty: int
    n_failed: int
    reasons: dict[str, int]
    counts: dict[str, float]
    seconds: float
    frames_per_second: float
    peak_memory_mib: float

    def metrics(self) -> dict[str, Any]:
        """What is the same in every run: for DVC."""
        return {
            "n_frames": self.n_frames,
            "n_ok": self.n_ok,
            "n_empty": self.n_empty,
            "n_failed": self.n_failed,
            "reasons": self.reasons,
            "counts": self.counts,
        }

    def status(self) -> dict[str, Any]:
        """Everything, times included."""
        times = {
            "frames_per_second": round(self.frames_per_second, 2),
            "peak_memory_mib": round(self.peak_memory_mib, 1),
            "run_seconds": round(self.seconds, 2),
        }
        return {**self.metrics(), **times}


def run_sharded(
    items: Sequence[Item],
    process: Callable[[Item], FrameResult],
    *,
    out_dir: Path,
    cache_dir: Path,
    key: Mapping[str, Any],
    shard_size: int,
    open_executor: Callable[[], Executor] | None,
    max_failed_share: float,
    label: str,
) -> RunSummary:
    """Process ``items`` and write a shard folder.

    Args:
        items: Frames; sorted by frame id here, so their order does not matter.
        process: Makes the result of one item; picklable unless ``open_executor`` is None. An exception
            becomes a ``failed`` result with its traceback in ``cache_dir / "failures.txt"``.
        out_dir: The shard folder; whatever lies there is removed first, and it appears in one rename.
        cache_dir: Unfinished runs, one folder per key.
        key: What results depend on besides the items, the files they name and the code of this package (these
            three are added here): settings, seed, fingerprints of other inputs. JSON.
        shard_size: Frames per archive.
        open_executor: Gives the executor; None works in this process.
        max_failed_share: Largest share of failed frames.
        label: Name on the progress bar and in messages.

    Raises:
        DataError: No items, equal or unsafe frame ids, too many failures, a full disk, or a dead worker.
            Finished shards stay in the cache, except those with failures after "too many failures".
    """
    started = time.perf_counter()
    if not items:
        raise DataError(f"{label}: there are no frames to work on; check the manifest of the batch")
    if out_dir.exists():
        shutil.rmtree(out_dir)
    ordered = sorted(items, key=lambda item: item.frame_id)
    _check_ids([item.frame_id for item in ordered], label)
    parts = partition(len(ordered), -(-len(ordered) // shard_size))
    run_dir = cache_dir / run_key(ordered, key, shard_size)
    run_dir.mkdir(parents=True, exist_ok=True)
    shards = [Shard(run_dir, number, ordered[part.start : part.stop]) for number, part in enumerate(parts)]
    waiting = [shard for shard in shards if not shard.is_finished()]
    if len(waiting) < len(shards):
        logger.info("%s: %d of %d shards are in the cache", label, len(shards) - len(waiting), len(shards))
    finished = _process_shards(waiting, process, open_executor, label)
    n_done = sum(len(shard.items) for shard in shards) - sum(len(shard.items) for shard in waiting)
    for _ in progress(_count(n_done, finished), label=label, total=len(ordered)):
        pass
    summary = _assemble(shards, run_dir / "assembled", cache_dir / FAILURES_FILE)
    if summary.n_failed > max_failed_share * summary.n_frames:
        for shard in shards:
            shard.forget_failures()
        shutil.rmtree(run_dir / "assembled")
        raise DataError(_too_many_failures(summary, max_failed_share, label, cache_dir / FAILURES_FILE))
    _move_folder(run_dir / "assembled", out_dir)
    shutil.rmtree(run_dir)
    seconds = time.perf_counter() - started
    return dataclasses.replace(
        summary,
        seconds=seconds,
        frames_per_second=summary.n_frames / max(seconds, 1e-9),
        peak_memory_mib=peak_memory_mib(),
    )


def partition(n_items: int, n_parts: int) -> list[range]:
    """Cut 0..n_items-1 into ``n_parts`` consecutive ranges whose sizes differ by one at most.

    Range i is [floor(i n / N), floor((i+1) n / N)): disjoint and covering for every n and N.
    """
    edges = [i * n_items // n_parts for i in range(n_parts + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def run_key(items: Sequence[HasFrameId], key: Mapping[str, Any], shard_size: int) -> str:
    """Name of a run in the cache: any change of parameters, code, items or the files they name changes it."""
    digest = hashlib.sha256(code_version().encode())
    digest.update(json.dumps(key, sort_keys=True, default=str).encode())
    digest.update(str(shard_size).encode())
    for item in items:
        digest.update(item.frame_id.encode())
        for path in _paths_of(item):
            try:
                state = path.stat()
                digest.update(f"{path} {state.st_size} {state.st_mtime_ns}".encode())
            except OSError:
                digest.update(f"{path} missing".encode())
    return digest.hexdigest()[:KEY_LENGTH]


def _process_shards(
    shards: Sequence[Shard],
    process: Callable[[Any], FrameResult],
    open_executor: Callable[[], Executor] | None,
    label: str,
) -> Iterator[int]:
    """Number of frames of each shard as it becomes finished."""
    if not shards:
        return
    if open_executor is None:
        for shard in shards:
            yield process_shard(shard, process)
        return
    with _closing(open_executor()) as executor:
        futures = [executor.submit(process_shard_in_worker, shard, process) for shard in shards]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenExecutor as error:
            raise DataError(
                f"{label}: a worker process died, most often for lack of memory. Finished shards are kept: "
                "set a smaller runtime.workers and run the same command again"
            ) from error


@contextmanager
def _closing(executor: Executor) -> Iterator[Executor]:
    """Shut an executor down; after an error without waiting for tasks that have not begun."""
    try:
        yield executor
    except KeyboardInterrupt:
        # Waiting for running tasks could take minutes; workers end when this process does.
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    executor.shutdown()


def _count(n_done: int, finished: Iterator[int]) -> Iterator[None]:
    """One None per frame, those of the cache first: what the progress bar counts."""
    yield from (None for _ in range(n_done))
    for n_frames in finished:
        yield from (None for _ in range(n_frames))


def _assemble(shards: Sequence[Shard], folder: Path, failures: Path) -> RunSummary:
    """Put the finished shards together, table by table, one shard in memory at a time."""
    shutil.rmtree(folder, ignore_errors=True)
    with explain_full_disk(folder):
        (folder / "shards").mkdir(parents=True)
        for shard in shards:
            _link_or_copy(shard.folder / ARCHIVE_FILE, folder / "shards" / shard.archive)
        for name in (INDEX_FILE, FRAMES_FILE, RECORDS_FILE):
            _concatenate([shard.folder / name for shard in shards], folder / name)
    text = "".join((shard.folder / FAILURES_FILE).read_text(encoding="utf-8") for shard in shards)
    if text:
        write_bytes(failures, text.encode())
    else:
        failures.unlink(missing_ok=True)
    table = pq.read_table(folder / FRAMES_FILE)
    statuses = Counter(table.column("status").to_pylist())
    reasons = Counter(reason for reason in table.column("reason").to_pylist() if reason)
    counts = {
        name: float(np.nansum(table.column(name).to_numpy()))
        for name in sorted(table.column_names)
        if name not in ("frame_id", "status", "reason")
    }
    return RunSummary(
        n_frames=table.num_rows,
        n_ok=statuses["ok"],
        n_empty=statuses["empty"],
        n_failed=statuses["failed"],
        reasons=dict(sorted(reasons.items())),
        counts=counts,
        seconds=0.0,
        frames_per_second=0.0,
        peak_memory_mib=0.0,
    )


def _concatenate(sources: Sequence[Path], target: Path) -> None:
    # A column may be missing, empty or whole-numbered in one shard and not in another.
    schema = pa.unify_schemas([pq.read_schema(path) for path in sources], promote_options="permissive")
    with pq.ParquetWriter(target, schema) as writer:
        for path in sources:
            table = pq.read_table(path)
            columns = [
                table.column(entry.name).cast(entry.type)
                if entry.name in table.column_names
                else pa.nulls(table.num_rows, entry.type)
                for entry in schema
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _paths_of(item: object) -> list[Path]:
    names = [entry.name for entry in dataclasses.fields(item)] if dataclasses.is_dataclass(item) else []
    return [value for name in names if isinstance(value := getattr(item, name), Path)]


def _check_ids(frame_ids: Sequence[str], label: str) -> None:
    for frame_id in frame_ids:
        check_frame_id(frame_id)
    if repeated := [name for name, n in Counter(frame_ids).items() if n > 1]:
        raise DataError(f"{label}: frame ids must be unique. Repeated: {', '.join(repeated[:SHOWN_REASONS])}")


def _too_many_failures(summary: RunSummary, limit: float, label: str, failures: Path) -> str:
    most = sorted(summary.reasons.items(), key=lambda entry: (-entry[1], entry[0]))[:SHOWN_REASONS]
    shown = "\n".join(f"  {n} x {reason}" for reason, n in most)
    return (
        f"{label}: {summary.n_failed} of {summary.n_frames} frames failed, more than "
        f"runtime.max_failed_share = {limit:g} allows. Tracebacks: {failures}. "
        f"Most frequent reasons:\n{shown}"
    )


def _link_or_copy(source: Path, target: Path) -> None:
    # A link keeps the cached shard whole, should this run be killed before it is done, at no cost.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _move_folder(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        aside = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        with explain_full_disk(target):
            shutil.copytree(source, aside)
            aside.rename(target)
