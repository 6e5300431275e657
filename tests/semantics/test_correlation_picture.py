"""The picture of correlations shows what the record holds."""

from pathlib import Path
from typing import Any

import pytest

from gestalt.errors import DataError
from gestalt.semantics.correlation_picture import draw_correlations

COUNTS = {"targets": [1, 2, 1, 0], "codes": [0, 0, 4, 4]}


def record() -> dict[str, Any]:
    kinds = ("self", "neighbour", "random")
    checks = [
        {"step": step, "loss": 0.0, "stability": 0.5, "histograms": dict.fromkeys(kinds, COUNTS)}
        for step in (5, 10)
    ]
    return {"selected_step": 10, "checks": checks, "shifts": dict(zip(kinds, (0.1, 0.2, 0.3), strict=True))}


def test_each_kind_of_pair_has_a_panel_with_its_shares_and_its_shift(tmp_path: Path) -> None:
    figure = draw_correlations(record())
    assert len(figure.axes) == 3
    features, codes = figure.axes[1].patches
    assert features.get_data().values.tolist() == [0.25, 0.5, 0.25, 0]
    assert codes.get_data().values.tolist() == [0, 0, 0.5, 0.5]
    assert features.get_data().edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert figure.axes[2].lines[0].get_xdata()[0] == 0.3
    figure.savefig(tmp_path / "correlations.png")
    assert (tmp_path / "correlations.png").stat().st_size > 5000


def test_a_step_that_was_not_compared_is_named() -> None:
    assert draw_correlations(record(), 5).axes
    with pytest.raises(DataError, match=r"5, 10.*Got: 7"):
        draw_correlations(record(), 7)
