"""Curves as CSV and as means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gestalt.data.curve import RunningMeans, mean_of_rows, write_rows


def test_rows_are_written_in_the_order_of_the_columns(tmp_path: Path) -> None:
    rows = [{"loss": 0.5, "step": 1.0, "more": 9.0}, {"step": 2.0, "loss": 0.25}]
    write_rows(tmp_path / "c.csv", rows, ("step", "loss"))
    assert (tmp_path / "c.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
    write_rows(tmp_path / "none.csv", [], ("step", "loss"))
    assert (tmp_path / "none.csv").read_text() == "step,loss\n"


def test_means_are_those_of_the_last_rows() -> None:
    rows = [{"loss": float(number)} for number in range(20)]
    assert mean_of_rows(rows, ["loss"]) == {"loss": 18.5}
    assert mean_of_rows(rows[:3], ["loss"]) == {"loss": 2.0}
    assert mean_of_rows([], ["loss"]) == {}
    assert mean_of_rows([{"loss": 1 / 3}], ["loss"])["loss"] == pytest.approx(1 / 3, abs=1e-5)


def test_running_means_are_of_the_steps_since_the_last_row() -> None:
    means = RunningMeans()
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value), "other": torch.tensor(-value)})
    assert {name: float(value) for name, value in means.take().items()} == {"loss": 3.0, "other": -3.0}
    assert means.take() == {}
    means.add({"loss": torch.tensor(5.0)})
    assert float(means.take()["loss"]) == 5.0
