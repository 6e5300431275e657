import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.data import shard_task
from gestalt.data.sharded_run import FrameResult, partition, run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.runtime import open_executor
from tests.data.video import tree
from tests.data.work import Numbered, draw, items


def run(tmp_path, work=None, process=draw, out="out", **changes):
    settings = {
        "out_dir": tmp_path / out,
        "cache_dir": tmp_path / "cache",
        "key": {"setting": 1},
        "shard_size": 4,
        "open_executor": None,
        "max_failed_share": 0.5,
        "label": "test",
    }
    return run_sharded(items(12) if work is None else work, process, **(settings | changes))


class Counting:
    """Counts the frames it draws; raises ``error`` at frame ``stop_at``."""

    def __init__(self, stop_at: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.drawn: list[str] = []
        self.stop_at = stop_at
        self.error = error

    def __call__(self, item: Numbered) -> FrameResult:
        if item.number == self.stop_at:
            raise self.error
        self.drawn.append(item.frame_id)
        return draw(item)


@given(st.integers(0, 500), st.integers(1, 60))
def test_parts_are_disjoint_balanced_and_cover_everything(n_items, n_parts):
    parts = partition(n_items, n_parts)
    assert len(parts) == n_parts
    assert [i for part in parts for i in part] == list(range(n_items))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 300), st.integers(1, 50))
def test_no_shard_is_empty_or_larger_than_asked(n_items, shard_size):
    parts = partition(n_items, -(-n_items // shard_size))
    assert all(1 <= len(part) <= shard_size for part in parts)


def test_a_summary_counts_what_happened(tmp_path):
    summary = run(tmp_path, items(20))
    assert (summary.n_frames, summary.n_ok, summary.n_empty, summary.n_failed) == (20, 16, 2, 2)
    assert summary.reasons == {
        "ValueError: frame 13 cannot be drawn": 1,
        "ValueError: frame 3 cannot be drawn": 1,
        "nothing moves": 2,
    }
    assert summary.counts == {"n_masks": sum(i % 3 for i in range(20) if i % 10 not in (3, 5))}
    assert "run_seconds" in summary.status()
    assert not {"run_seconds", "frames_per_second", "peak_memory_mib"} & set(summary.metrics())
    assert summary.frames_per_second > 0


def test_records_are_in_the_order_of_the_frames(tmp_path):
    run(tmp_path)
    records = ShardFolder(tmp_path / "out").records()
    assert list(records.columns) == ["frame_id", "area_px", "score", "source"]
    assert records["frame_id"].tolist() == sorted(records["frame_id"])
    assert records["area_px"].dtype == np.int64
    assert len(records) == sum(i % 3 for i in range(12) if i not in (3, 5))


def test_records_may_differ_between_shards(tmp_path):
    def process(item: Numbered) -> FrameResult:
        record = {"speed": 1 if item.number < 4 else 2.5, "note": None if item.number < 8 else "late"}
        if item.number == 11:
            record["extra"] = True
        return FrameResult(item.frame_id, records=[record])

    run(tmp_path, process=process)
    records = ShardFolder(tmp_path / "out").records()
    assert records["speed"].tolist() == [1.0] * 4 + [2.5] * 8
    assert records["note"].isna().tolist() == [True] * 8 + [False] * 4
    assert records["extra"].tolist()[-1] is True


def test_a_run_without_any_record_still_has_the_column_of_frames(tmp_path):
    run(tmp_path, process=lambda item: FrameResult(item.frame_id, "empty", "nothing"))
    shards = ShardFolder(tmp_path / "out")
    assert shards.records().columns.tolist() == ["frame_id"]
    assert shards.frame_ids == []
    assert list(shards.stream()) == []


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_runs_work(tmp_path, n):
    assert run(tmp_path, items(n)).n_frames == n
    assert len(ShardFolder(tmp_path / "out").frames()) == n


def test_the_order_of_the_items_changes_nothing(tmp_path):
    run(tmp_path)
    run(tmp_path, items(12)[::-1], out="reversed")
    assert tree(tmp_path / "out") == tree(tmp_path / "reversed")


def test_the_number_of_workers_changes_nothing(tmp_path):
    run(tmp_path)
    summary = run(tmp_path, out="pool", open_executor=partial(open_executor, "local", 2))
    assert tree(tmp_path / "out") == tree(tmp_path / "pool")
    assert summary.n_failed == 1


@pytest.mark.parametrize("stop_at", [0, 1, 6, 11])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop_at, error):
    run(tmp_path, out="straight")
    stopped = Counting(stop_at, error)
    with pytest.raises(error):
        run(tmp_path, process=stopped)
    assert not (tmp_path / "out").exists()
    resumed = Counting()
    run(tmp_path, process=resumed)
    n_kept = stop_at // 4 * 4
    assert resumed.drawn == [item.frame_id for item in items(12)[n_kept:]]
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_dir()]


def test_interrupted_while_the_output_is_put_together(tmp_path, monkeypatch):
    run(tmp_path, out="straight")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gestalt.data.sharded_run._move_folder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert not (tmp_path / "out").exists()
    resumed = Counting()
    run(tmp_path, process=resumed)
    assert resumed.drawn == []
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


@pytest.mark.parametrize("name", ["shard.tar", "frames.parquet", "index.parquet", "records.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_shard_in_the_cache_is_made_again(tmp_path, name, damage):
    run(tmp_path, out="straight")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, process=Counting(8))
    (path,) = (tmp_path / "cache").glob(f"*/00001/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-5])
    resumed = Counting()
    run(tmp_path, process=resumed)
    assert resumed.drawn == [item.frame_id for item in items(12)[4:]]
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


@pytest.mark.parametrize("changed", ["key", "shard_size", "file"])
def test_a_change_of_anything_starts_afresh(tmp_path, changed):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class WithFile:
        frame_id: str
        image: Path

        @property
        def number(self) -> int:
            return int(self.frame_id[1:])

    image = tmp_path / "image"
    image.write_bytes(b"a")
    work = [WithFile(item.frame_id, image) for item in items(12)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, work, Counting(8))
    if changed == "file":
        image.write_bytes(b"ab")
    changes = {"key": {"key": {"setting": 2}}, "shard_size": {"shard_size": 3}}.get(changed, {})
    resumed = Counting()
    run(tmp_path, work, resumed, **changes)
    assert len(resumed.drawn) == 12


def test_a_stale_output_is_removed_before_anything_else(tmp_path):
    run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, process=Counting(0), key={"setting": 2})
    assert not (tmp_path / "out").exists()


def test_too_many_failures_stop_the_run_and_say_why(tmp_path):
    message = (
        r"test: 2 of 20 frames failed, more than runtime\.max_failed_share = 0\.05 allows\. "
        r"Tracebacks: .*failures\.txt\. Most frequent reasons:\n  2 x nothing moves"
    )
    with pytest.raises(DataError, match=message):
        run(tmp_path, items(20), max_failed_share=0.05)
    assert not (tmp_path / "out").exists()
    text = (tmp_path / "cache" / "failures.txt").read_text()
    assert "f0003\nTraceback" in text
    assert "cannot be drawn" in text
    assert "in draw" in text


def test_after_too_many_failures_only_the_failed_shards_are_tried_again(tmp_path):
    with pytest.raises(DataError, match="frames failed"):
        run(tmp_path, max_failed_share=0)
    tried: list[str] = []

    def mended(item: Numbered) -> FrameResult:
        tried.append(item.frame_id)
        return FrameResult(item.frame_id)

    summary = run(tmp_path, process=mended, max_failed_share=0)
    assert tried == ["f0000", "f0001", "f0002", "f0003"]
    assert summary.n_failed == 0
    assert not (tmp_path / "cache" / "failures.txt").exists()


def test_failures_on_the_limit_are_allowed(tmp_path):
    assert run(tmp_path, items(20), max_failed_share=0.1).n_failed == 2


def test_a_full_disk_keeps_finished_shards_and_says_how_to_go_on(tmp_path, monkeypatch):
    run(tmp_path, out="straight")
    written: list[str] = []
    add = shard_task.ShardWriter.add

    def full(self, frame_id, maps):
        if frame_id == "f0006":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(frame_id)
        add(self, frame_id, maps)

    with monkeypatch.context() as patch:
        patch.setattr(shard_task.ShardWriter, "add", full)
        with pytest.raises(DataError, match=r"no space left .*run the same command again"):
            run(tmp_path)
    left = [path.name for path in (tmp_path / "cache").glob("*/*")]
    assert left == ["00000"]
    resumed = Counting()
    run(tmp_path, process=resumed)
    assert resumed.drawn[0] == "f0004"
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def test_a_full_disk_inside_a_frame_is_not_taken_for_a_bad_frame(tmp_path):
    def process(item: Numbered) -> FrameResult:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(DataError, match="no space left"):
        run(tmp_path, process=process, max_failed_share=1)


def test_a_dead_worker_is_explained(tmp_path):
    class Dying(Executor):
        def submit(self, *_, **__):
            from concurrent.futures import Future

            future: Future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    with pytest.raises(DataError, match=r"a worker process died.*smaller runtime\.workers"):
        run(tmp_path, open_executor=Dying)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (FrameResult("other"), "calls itself 'other'"),
        (FrameResult("f0000", "fine"), "status is one of ok, empty, failed. Got: 'fine'"),
        (FrameResult("f0000", "failed", "x", {"a": np.zeros((2, 2), np.uint8)}), "must not bring maps"),
    ],
)
def test_results_against_the_rules_are_failures(tmp_path, result, reason):
    run(tmp_path, items(1), lambda item: result, max_failed_share=1)
    row = ShardFolder(tmp_path / "out").frames().iloc[0]
    assert row["status"] == "failed"
    assert reason in row["reason"]


def test_a_frame_may_report_its_own_failure(tmp_path):
    run(
        tmp_path,
        items(1),
        lambda item: FrameResult(item.frame_id, "failed", "out of memory"),
        max_failed_share=1,
    )
    assert ShardFolder(tmp_path / "out").frames()["reason"].tolist() == ["out of memory"]
    assert "out of memory" in (tmp_path / "cache" / "failures.txt").read_text()


def test_no_items_repeated_and_unsafe_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="there are no frames to work on"):
        run(tmp_path, [])
    with pytest.raises(DataError, match=r"frame ids must be unique\. Repeated: f0001"):
        run(tmp_path, [Numbered("f0001"), Numbered("f0001")])
    with pytest.raises(DataError, match=r"a frame id must start with.*Got: '\.\./x'"):
        run(tmp_path, [Numbered("../x")])


def test_frames_table_has_a_column_per_count(tmp_path):
    run(tmp_path)
    frames = ShardFolder(tmp_path / "out").frames()
    assert frames.columns.tolist() == ["frame_id", "status", "reason", "n_masks"]
    assert pd.isna(frames["n_masks"].iloc[3])


KILLED = """
import multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from gestalt.data import sharded_run
from tests.data.work import draw_until_8, items

# A shell that starts the tests in the background makes them ignore Ctrl-C; a terminal does not.
signal.signal(signal.SIGINT, signal.default_int_handler)
sharded_run.code_version = lambda: "fixed"
root = Path(sys.argv[1])
try:
    sharded_run.run_sharded(
        items(12), draw_until_8, out_dir=root / "out", cache_dir=root / "cache", key={"setting": 1},
        shard_size=4, max_failed_share=0.5, label="test",
        open_executor=lambda: ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")),
    )
except KeyboardInterrupt:
    os._exit(130)  # as stages do
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_goes_on_where_it_was(tmp_path, signal_number, monkeypatch):
    monkeypatch.setattr("gestalt.data.sharded_run.code_version", lambda: "fixed")
    run(tmp_path, out="straight")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal_number)
        # The worker holds the other end of this pipe, so its end proves that no worker outlives its parent.
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert not (tmp_path / "out").exists()
    resumed = Counting()
    run(tmp_path, process=resumed)
    assert resumed.drawn == [item.frame_id for item in items(12)[8:]]
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_dir()]
