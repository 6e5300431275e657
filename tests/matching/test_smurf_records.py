"""What a training keeps on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gestalt.data.training_state import load_state, save_state
from gestalt.errors import DataError
from gestalt.matching.smurf_records import (
    COLUMNS,
    CurveRow,
    last_losses,
    read_label,
    write_curve,
    write_label,
)


def row(step: int, total: float) -> CurveRow:
    return dict.fromkeys(COLUMNS, 0.0) | {"step": float(step), "phase": 1.0, "total": total}


def test_labels_come_back_to_a_64th_of_a_pixel(tmp_path: Path) -> None:
    optical_flow = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)) * 50
    known = torch.rand(6, 8, generator=torch.Generator().manual_seed(1)) > 0.3
    optical_flow[0, 0, 0] = 9999.0  # does not fit, so it is not known
    known[0, 0] = True
    write_label(tmp_path / "1.npz", optical_flow, known)
    found, found_known = read_label(tmp_path / "1.npz")
    assert not bool(found_known[0, 0])
    assert torch.equal(found_known.flatten()[1:], known.flatten()[1:])
    assert float((found - optical_flow)[:, found_known].abs().max()) <= 1 / 128
    assert float(found[:, ~found_known].abs().max()) == 0


def test_a_broken_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "1.npz"
    with pytest.raises(DataError, match="damaged"):
        read_label(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"1\.npz is damaged"):
        read_label(path)


def test_a_state_comes_back_and_there_may_be_none(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    save_state(tmp_path, {"weights": torch.arange(3), "step": 4})
    found = load_state(tmp_path)
    assert found is not None
    assert found["step"] == 4
    assert torch.equal(found["weights"], torch.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_the_curve_has_a_line_per_row_and_the_losses_are_those_of_its_end(tmp_path: Path) -> None:
    curve = [row(step, float(step)) for step in range(10, 210, 10)]
    write_curve(tmp_path / "curve.csv", curve)
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1].startswith("10,1,10.0,")
    assert len(lines) == 21
    assert last_losses(curve)["total"] == 195  # the last two of twenty
    assert last_losses([]) == {}
