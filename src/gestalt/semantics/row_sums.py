"""Weighted sums of rows of a table: a sparse matrix times a tall dense one, in pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# On a CPU a result larger than the cache costs more than the sums themselves, mostly for fresh pages: 8192 rows of
# 27 floats took 0.4 to 0.6 of the time of all 819 200 rows at once.
ROWS_ON_CPU = 8192


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

    def parts(self, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The sums, some at a time.

        Args:
            table: (R, K) float32.

        Yields:
            A slice of the M sums and their (n, K) values, in fresh memory.
        """
        n_sums = self.starts.numel() - 1
        step = ROWS_ON_CPU if table.device.type == "cpu" else max(n_sums, 1)
        firsts = range(0, n_sums, step)
        borders = self.starts[[*firsts, n_sums]].tolist()
        for first, begin, end in zip(firsts, borders, borders[1:]):
            some = slice(first, min(first + step, n_sums))
            sums = functional.embedding_bag(
                self.rows[begin:end],
                table,
                self.starts[some.start : some.stop + 1] - begin,
                mode="sum",
                per_sample_weights=self.weights[some].reshape(-1)
                if self.weights.ndim == 2
                else self.weights[begin:end],
                include_last_offset=True,
            )
            yield some, sums

    def write(self, table: Tensor, out: Tensor) -> None:
        """Put all sums into ``out``, (M, K), which is no part of ``table``, (R, K)."""
        for some, sums in self.parts(table):
            out[some] = sums


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of unset values; a large one on a CPU has huge pages, where the system gives them.

    NumPy asks for them and torch does not. First writes to 88 MB took 15 ms instead of 51 ms.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(np.empty(size, dtype=np.uint8)).view(dtype).view(shape)


def select(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]`` for (R, ...) values and (n,) int32 or int64 rows: a fraction of the time of brackets."""
    out = empty((rows.shape[0], *values.shape[1:]), values.dtype, values.device)
    return torch.index_select(values, 0, rows, out=out)
