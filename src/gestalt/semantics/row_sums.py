"""Weighted sums of rows of a table: a sparse matrix times a tall dense one, in pieces that stay in the cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# On a CPU a result larger than the cache costs more than the sums themselves, mostly for fresh pages: 8192 rows of
# 27 floats took 0.4 to 0.6 of the time of all 819 200 rows at once.
ROWS_ON_CPU = 8192

# Some of the sums, and where their rows begin and end.
Part = tuple[slice, int, int]


class PartThreads:
    """Threads that share the parts of a sum, each of them computing alone; a context manager.

    The threads of a single operation sleep and wake with every one of thousands of small parts, which made two of them
    slower than one. Results do not depend on their number.

    Args:
        n_threads: How many; 1 leaves the work to the caller.
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> PartThreads:
        if self.n_threads > 1:
            # The number counts for the thread that sets it, and for threads that are still to come.
            self._pool = ThreadPoolExecutor(self.n_threads, initializer=torch.set_num_threads, initargs=(1,))
            list(self._pool.map(time.sleep, [0.001] * self.n_threads))
            torch.set_num_threads(self.n_threads)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def share(self, work: Callable[[Sequence[Part]], None], parts: Sequence[Part]) -> None:
        """Call ``work`` on runs of the parts, and wait; an exception in one of them is raised here."""
        if self._pool is None:
            work(parts)
            return
        length = -(-len(parts) // self.n_threads)
        runs = [parts[first : first + length] for first in range(0, len(parts), max(length, 1))]
        for _ in self._pool.map(work, runs):
            pass


@dataclass(frozen=True, eq=False)
class RowSums:
    """Which rows are summed, with which weights. Every sum runs in the order of ``rows``, whatever the threads.

    Attributes:
        rows: (E,) int32, rows of the table.
        starts: (M + 1,) int32, where the rows of each sum begin, and E.
        weights: (E,) float32, or (M, S) where all sums have S rows; repeated ones may be expanded.
    """

    rows: Tensor
    starts: Tensor
    weights: Tensor

    @classmethod
    def of_equal_size(cls, rows: Tensor, weights: Tensor) -> RowSums:
        """Sums of S rows each.

        Args:
            rows: (M, S) int32.
            weights: (M, S) float32.
        """
        n_sums, size = rows.shape
        starts = torch.arange(0, n_sums * size + 1, size, dtype=torch.int32, device=rows.device)
        return cls(rows.reshape(-1), starts, weights)

    def apply(
        self, table: Tensor, receive: Callable[[slice, Tensor], object], threads: PartThreads | None = None
    ) -> None:
        """Compute all sums, some at a time.

        Args:
            table: (R, K) float32.
            receive: Gets a slice of the M sums and their (n, K) values, in fresh memory; called from several threads
                at once where there are some.
            threads: They share the sums among them.
        """
        n_sums = self.starts.numel() - 1
        step = ROWS_ON_CPU if table.device.type == "cpu" else max(n_sums, 1)
        firsts = list(range(0, n_sums, step))
        borders = self.starts[[*firsts, n_sums]].tolist()
        parts = [
            (slice(first, min(first + step, n_sums)), begin, end)
            for first, begin, end in zip(firsts, borders, borders[1:])
        ]

        def work(share: Sequence[Part]) -> None:
            for some, begin, end in share:
                receive(some, self._sum(table, some, begin, end))

        if threads is None:
            work(parts)
        else:
            threads.share(work, parts)

    def write(self, table: Tensor, out: Tensor, threads: PartThreads | None = None) -> None:
        """Put all sums into ``out``, (M, K), which is no part of ``table``, (R, K)."""

        def put(some: slice, sums: Tensor) -> None:
            out[some] = sums

        self.apply(table, put, threads)

    def _sum(self, table: Tensor, some: slice, begin: int, end: int) -> Tensor:
        weights = self.weights[some].reshape(-1) if self.weights.ndim == 2 else self.weights[begin:end]
        sums: Tensor = functional.embedding_bag(
            self.rows[begin:end],
            table,
            self.starts[some.start : some.stop + 1] - begin,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        return sums


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of unset values; a large one on a CPU has huge pages, where the system gives them.

    NumPy asks for them and torch does not. First writes to 88 MB took 15 ms instead of 51 ms.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, dtype=torch.empty(0, dtype=dtype).numpy().dtype))


def select(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]`` for (R, ...) values and (n,) int32 or int64 rows: a fraction of the time of brackets."""
    out = empty((rows.shape[0], *values.shape[1:]), values.dtype, values.device)
    return torch.index_select(values, 0, rows, out=out)
