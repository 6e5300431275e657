"""The benchmark of optical flow: its errors by hand, and a whole run on a rendered batch."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import optical_flow
from gestalt.config.presets import default_settings
from gestalt.matching.raft import Raft
from gestalt.matching.raft_weights import save_network
from gestalt.scenes.write import render_batch


def test_errors_are_those_computed_by_hand() -> None:
    truth, found = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    truth[0] = [[0, 100], [10, np.nan]]
    found[:, 0, 0] = 3, 4  # 5 px off: an outlier
    found[0, 0, 1], found[0, 1, 0] = 104, 12  # 4 px of 100 and 2 px: no outliers
    moving = np.array([[False, True], [True, True]])
    errors = optical_flow.Errors()
    errors.add(found, truth, moving)
    assert errors.report() == {
        "epe_px": pytest.approx(11 / 3, abs=1e-4),
        "epe_moving_px": 3.0,
        "fl_all_percent": pytest.approx(100 / 3, abs=1e-4),
    }
    assert optical_flow.Errors().report() == {"epe_px": None, "epe_moving_px": None, "fl_all_percent": None}


def test_network_and_search_are_measured_on_the_same_exact_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = default_settings("scenes", n_snippets=2, height=64, width=128, exact_frames=2)
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    render_batch(
        0, "day", settings, video_dir=raw, truth_dir=truth, work_dir=tmp_path / "work",
        open_executor=lambda: ThreadPoolExecutor(1),
    )  # fmt: skip
    torch.manual_seed(0)
    save_network(Raft("small"), tmp_path / "network", {})
    folders = ["--weights", str(tmp_path / "network"), "--raw", str(raw), "--truth", str(truth)]
    optical_flow.main([*folders, "--device", "cpu", "--updates", "2"])
    report = json.loads(capsys.readouterr().out)
    assert report["n_frames"] == 2
    assert 0 < report["dense_inverse_search"]["epe_px"] < report["network"]["epe_px"]
    assert report["ratio"]["epe_px"] == pytest.approx(
        report["network"]["epe_px"] / report["dense_inverse_search"]["epe_px"], rel=0.01
    )
    with pytest.raises(SystemExit):
        optical_flow.main([*folders[:4], "--truth", str(tmp_path)])
    assert "the stage `scenes` makes it" in capsys.readouterr().err
