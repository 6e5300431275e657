"""Which frames `gestalt show motion` draws, and what it says about the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import gestalt.config
from gestalt import cli, gallery
from gestalt.data.images import read_image
from gestalt.data.manifest import SCHEMA, write_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.shards import INDEX
from gestalt.errors import DataError
from gestalt.gallery import all_frames, draw_sheets, find_frames, worst_frames

BATCHES = ("monday", "tuesday")


def row(batch: str, frame_id: str, reason: str = "") -> dict[str, Any]:
    images = {name: f"{frame_id}.{name}.png" for name in ("left", "right", "left_next", "right_next")}
    return {
        **dict.fromkeys(SCHEMA.names, ""), **images, "batch": batch, "sequence": "s", "frame_id": frame_id,
        "height": 8, "width": 16, "intrinsics": [1.0] * 9, "stereo_baseline": 0.5, "time_step_s": 0.1,
        "status": "broken" if reason else "ok", "reason": reason,
    }  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two batches that share the frame ``s_0``; ``s_2`` of monday is broken."""
    monkeypatch.chdir(tmp_path)
    rows = {
        "monday": [row("monday", "s_0"), row("monday", "s_1"), row("monday", "s_2", "missing image: s_3")],
        "tuesday": [row("tuesday", "s_0")],
    }
    for batch, entries in rows.items():
        write_manifest(pd.DataFrame(entries), Path("data/manifests") / f"{batch}.parquet")
    return Path("data")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sheets are grey; that of ``s_1`` cannot be drawn."""

    def sheet(frame: StereoFrame, *_: object) -> np.ndarray:
        if frame.frame_id == "s_1":
            raise DataError("s_1.left.png is torn")
        return np.full((4, 4, 3), 99, np.uint8)

    monkeypatch.setattr(gallery, "motion_sheet", sheet)


def params() -> Any:
    runtime = SimpleNamespace(device="cpu")
    return SimpleNamespace(batches=BATCHES, frames=None, motion=None, seed=0, runtime=runtime)


def write_results(data: Path, batch: str, rows: list[tuple[str, str, float]]) -> None:
    folder = data / "motion" / batch
    folder.mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["frame_id", "status", "reliable_share"])
    table.to_parquet(folder / "frames.parquet")
    table.to_parquet(folder / "records.parquet")
    pq.write_table(INDEX.empty_table(), folder / "index.parquet")


def names(frames: list[StereoFrame]) -> list[str]:
    return [f"{frame.batch}/{frame.frame_id}" for frame in frames]


def test_a_frame_of_two_batches_is_found_in_both(data: Path) -> None:
    assert names(find_frames(["s_1", "s_0", "s_1"], BATCHES)) == ["monday/s_1", "monday/s_0", "tuesday/s_0"]
    assert names(find_frames(["s_0"], ["tuesday"])) == ["tuesday/s_0"]


def test_a_mistyped_frame_is_answered_with_those_that_look_like_it(data: Path) -> None:
    with pytest.raises(DataError, match=r"s_9 is unknown, there are s_[01], s_[01]; the column frame_id"):
        find_frames(["s_0", "s_9"], BATCHES)


def test_a_broken_frame_is_answered_with_its_reason(data: Path) -> None:
    with pytest.raises(DataError, match=r"s_2 is broken \(missing image: s_3\)"):
        find_frames(["s_2"], BATCHES)


def test_all_frames_are_the_usable_ones(data: Path) -> None:
    assert names(all_frames(BATCHES)) == ["monday/s_0", "monday/s_1", "tuesday/s_0"]


def test_the_worst_frames_failed_or_are_least_reliable(data: Path) -> None:
    write_results(data, "monday", [("s_0", "ok", 0.2), ("s_1", "failed", float("nan"))])
    write_results(data, "tuesday", [("s_0", "empty", 0.1)])
    assert names(worst_frames(2, BATCHES)) == ["monday/s_1", "tuesday/s_0"]
    assert names(worst_frames(9, BATCHES)) == ["monday/s_1", "tuesday/s_0", "monday/s_0"]


def test_the_worst_frames_need_the_stage(data: Path) -> None:
    with pytest.raises(DataError, match="dvc repro motion@monday"):
        worst_frames(1, BATCHES)


def test_a_frame_that_cannot_be_drawn_stops_no_other(data: Path, drawn: None) -> None:
    sheets = draw_sheets(all_frames(BATCHES), params(), Path("outputs"))
    assert [path.as_posix() for path in sheets.paths] == [
        "outputs/monday/s_0.motion.png",
        "outputs/tuesday/s_0.motion.png",
    ]
    assert sheets.failed == (("s_1", "s_1.left.png is torn"),)
    assert (read_image(sheets.paths[0]) == 99).all()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["show", "motion", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def command(data: Path, drawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gestalt.config, "load_params", lambda *_: params())


def test_the_command_prints_the_pictures_and_fails_for_one_that_is_missing(
    command: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("s_0", "s_1", "--batch", "monday", "--out", "here") == 1
    answer = capsys.readouterr()
    assert answer.out == "here/monday/s_0.motion.png\n"
    assert "not drawn: s_1: s_1.left.png is torn" in answer.err
    assert run("s_0") == 0
    assert run("--all", "--batch", "tuesday") == 0
    assert Path("outputs/tuesday/s_0.motion.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name frames, or give --worst N, or --all"),
        (("s_0", "--all"), "name frames, or give --worst N, or --all"),
        (("--worst", "2", "--all"), "name frames, or give --worst N, or --all"),
        (("s_0", "--batch", "sunday"), "--batch is 'sunday'; the batches of params.yaml: monday, tuesday"),
        (("--worst", "2"), "dvc repro motion@monday"),
        (("s_8",), "s_8 is unknown"),
    ],
)
def test_the_command_says_what_it_needs(
    command: None, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()
