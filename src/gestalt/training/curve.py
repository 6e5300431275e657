"""Learning curves: a row of losses per step, as CSV for ``dvc plots`` and as numbers for the metrics file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from gestalt.data.atomic_files import write_bytes

# Digits of the numbers in curves: enough to plot, few enough to compare.
DIGITS = 5

# One step: its number under ``step``, their sum under ``total``, and every loss by its name.
CurveRow = dict[str, float]

COLUMNS = ("step", "total", "semantic", "objectness", "proposal_box", "class", "box", "mask")


def write_curve(path: Path, curve: Sequence[CurveRow]) -> None:
    """Write the rows as CSV; without a row only the names of the columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in curve:
        writer.writerow([int(row["step"]), *(row[name] for name in COLUMNS[1:])])
    write_bytes(path, text.getvalue().encode())


def mean_of_last(curve: Sequence[CurveRow], share: float = 0.1) -> dict[str, float]:
    """Mean losses over the last ``share`` of the steps, at least one; empty without a step."""
    rows = curve[-max(1, round(len(curve) * share)) :]
    if not rows:
        return {}
    return {name: round(sum(row[name] for row in rows) / len(rows), DIGITS) for name in COLUMNS[1:]}
