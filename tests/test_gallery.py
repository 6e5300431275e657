"""Which frames `gestalt show` draws, and what it says about the others."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import gestalt.config
from gestalt import cli, gallery
from gestalt.config.presets import default_settings
from gestalt.data.images import read_image, write_png
from gestalt.data.kitti_maps import pack_disparity
from gestalt.data.manifest import SCHEMA, write_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.shards import INDEX, ShardWriter
from gestalt.errors import DataError
from gestalt.features.dense import save_features
from gestalt.features.fit import fit_features
from gestalt.gallery import all_frames, draw_sheets, find_frames, worst_frames
from gestalt.semantic_sheet import SeenFrame, compose_semantic_sheet
from gestalt.semantics.fit import FitFrame, fit_semantics
from tests.scene import render_scene

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


def run(*arguments: str, what: str = "motion") -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["show", what, *arguments])
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


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with two frames, a third that is torn, features and pseudo-classes; motion knows ``s_0`` only."""
    place, scene = tmp_path_factory.mktemp("street"), render_scene()
    rows = []
    for number, image in enumerate((scene.left, scene.left_next)):
        entry = row("monday", f"s_{number}")
        write_png(place / entry["left"], image)
        rows.append({**entry, "height": image.shape[0], "width": image.shape[1], "stereo_baseline": 0.5})
    (place / "s_2.left.png").write_bytes(b"torn")
    rows.append({**rows[0], "frame_id": "s_2", "left": "s_2.left.png"})
    for entry in rows:
        entry["intrinsics"] = [200.0, 0, 60, 0, 200, 30, 0, 0, 1]
    write_manifest(pd.DataFrame(rows), place / "data/manifests/monday.parquet")
    write_disparity(place / "data/motion/monday", "s_0", scene.disparity)
    dictionary = dataclasses.replace(
        default_settings("features").dictionary, n_patches=2000, n_filters=12, components=4
    )
    features = fit_features([scene.left, scene.left_next], dictionary, seed=0)
    save_features(features, place / "models/features")
    seen = FitFrame("s_0", scene.left, scene.disparity, focal_length=200.0, stereo_baseline=0.5)
    fit_semantics([seen], features, SEMANTICS, seed=0).save(place / "models/semantics")
    return place


SEMANTICS = default_settings("semantics", method="kmeans", n_pseudo_classes=5, n_vectors=1000, restarts=2)


def write_disparity(folder: Path, frame_id: str, disparity: np.ndarray) -> None:
    (folder / "shards").mkdir(parents=True)
    with ShardWriter(folder / "shards" / "00000.tar", "00000.tar") as writer:
        writer.add(frame_id, {"disparity": pack_disparity(disparity)})
        pq.write_table(writer.close(), folder / "index.parquet")
    table = pd.DataFrame({"frame_id": [frame_id], "status": ["ok"], "reliable_share": [1.0]})
    table.to_parquet(folder / "frames.parquet")
    table.to_parquet(folder / "records.parquet")


@pytest.fixture
def at_the_street(street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds the street and nothing drawn yet."""
    shutil.copytree(street, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    full = params()
    full.batches, full.semantics = ("monday",), SEMANTICS
    full.frames = default_settings("frames", height=0, width=0)
    monkeypatch.setattr(gestalt.config, "load_params", lambda *_: full)
    return tmp_path / "place"


def test_sheets_of_semantics_are_drawn_with_and_without_disparity(
    at_the_street: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def compose(frame: SeenFrame, *rest: Any) -> Any:
        seen.append(frame)
        return compose_semantic_sheet(frame, *rest)

    monkeypatch.setattr(gallery, "compose_semantic_sheet", compose)
    assert run("--all", "--pixel", "3,5", what="semantics") == 1
    answer = capsys.readouterr()
    assert answer.out.split() == ["outputs/monday/s_0.semantics.png", "outputs/monday/s_1.semantics.png"]
    assert "not drawn: s_2: " in answer.err
    assert "s_2.left.png" in answer.err
    assert all(read_image(Path(path)).shape[1] > 1000 for path in answer.out.split())
    known, unknown = (frame.disparity for frame in seen)
    np.testing.assert_allclose(known, render_scene().disparity, atol=1 / 256)
    assert unknown is None


def test_one_page_of_clusters_is_drawn_from_the_frames_that_can_be_labelled(
    at_the_street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--batch", "monday", "--out", "here", what="clusters") == 1
    answer = capsys.readouterr()
    assert answer.out == "here/monday/clusters.png\n"
    assert "not drawn: s_2: " in answer.err
    assert read_image(Path("here/monday/clusters.png")).shape[0] > 500
    assert run("--n-frames", "1", what="clusters") == 0


def test_a_page_of_clusters_needs_one_frame(at_the_street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in at_the_street.glob("*.png"):
        path.write_bytes(b"torn")
    assert run(what="clusters") == 1
    assert "no frame could be labelled; the first one: s_0: " in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_missing_pseudo_classes_are_said_once_before_any_frame(
    at_the_street: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("models/semantics")
    for what, arguments in (("semantics", ("--all",)), ("clusters", ())):
        assert run(*arguments, what=what) == 1
        assert "make it with: dvc repro semantics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name frames, or give --all: one of the two"),
        (("s_0", "--all"), "name frames, or give --all: one of the two"),
        (("s_0", "--pixel", "3;4"), "--pixel must be ROW,COLUMN, such as 120,64. Got: '3;4'"),
        (("s_0", "--pixel", "-3,4"), "--pixel must be ROW,COLUMN"),
        (("s_0", "--pixel", "9999,4"), "not drawn: s_0: pixel 9999,4 lies outside the image of"),
        (("s_0", "--batch", "sunday"), "--batch is 'sunday'; the batches of params.yaml: monday"),
        (("s_8",), "s_8 is unknown"),
    ],
)
def test_the_sheet_of_semantics_says_what_it_needs(
    at_the_street: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run(*arguments, what="semantics") == 1
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()
