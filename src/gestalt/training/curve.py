"""Learning curves: a row of losses per step, as CSV for ``dvc plots`` and as numbers for the metrics file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gestalt.data.curve import mean_of_rows, write_rows

# One step: its number under ``step``, the sum of losses under ``total``, every loss by its name, and the norm of the
# gradient before clipping.
CurveRow = dict[str, float]

GRADIENT_NORM = "gradient_norm"
COLUMNS = ("step", "total", "semantic", "objectness", "proposal_box", "class", "box", "mask", GRADIENT_NORM)


def write_curve(path: Path, curve: Sequence[CurveRow]) -> None:
    """Write the rows as CSV; without a row only the names of the columns."""
    write_rows(path, curve, COLUMNS)


def mean_of_last(curve: Sequence[CurveRow], share: float = 0.1) -> dict[str, float]:
    """Mean losses over the last ``share`` of the steps, at least one; empty without a step."""
    return mean_of_rows(curve, COLUMNS[1:-1], share)
