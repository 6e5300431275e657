"""Learning curves: means over steps, rows of numbers by name, as CSV for ``dvc plots`` and as means for reports."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gestalt.data.atomic_files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

# Digits of the numbers in curves: enough to plot, few enough to compare.
DIGITS = 5


class RunningMeans:
    """Means over steps of losses by name, summed where they are: reading one would wait for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._n_steps = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take the losses of a step, scalars without gradients; of every step the same names."""
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._n_steps += 1

    def take(self) -> dict[str, Tensor]:
        """The means since the last call, on their device; empty where no step was taken."""
        means = {name: total / self._n_steps for name, total in self._sums.items()}
        self._sums, self._n_steps = {}, 0
        return means


def write_rows(
    path: Path,
    curve: Sequence[Mapping[str, float]],
    columns: Sequence[str],
    *,
    whole: Collection[str] = ("step",),
) -> None:
    """Write rows as CSV; without a row only the names of the columns.

    Args:
        path: Of the file.
        curve: Rows that have every column.
        columns: In the order of the file.
        whole: Columns of whole numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in curve:
        writer.writerow([int(row[name]) if name in whole else row[name] for name in columns])
    write_bytes(path, text.getvalue().encode())


def mean_of_rows(
    curve: Sequence[Mapping[str, float]], columns: Sequence[str], share: float = 0.1
) -> dict[str, float]:
    """Means of columns over the last ``share`` of the rows, at least one; empty without a row."""
    rows = curve[-max(1, round(len(curve) * share)) :]
    if not rows:
        return {}
    return {name: round(sum(row[name] for row in rows) / len(rows), DIGITS) for name in columns}
