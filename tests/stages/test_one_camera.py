"""A batch of one camera, from its folder to checked labels: nothing on the way needs a disparity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from gestalt.audit.expectations import CRITICAL, check_labels
from gestalt.audit.measures import measure_labels
from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings
from gestalt.data.frames import load_left
from gestalt.data.images import write_png
from gestalt.data.manifest import build_manifest, read_manifest, write_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.errors import ConfigError
from gestalt.features.dense import save_features
from gestalt.features.fit import fit_features
from gestalt.motion.proposals import NOT_ASKED, FrameProposer
from gestalt.pseudo_labels.write import FrameLabeller, write_pseudo_labels
from gestalt.semantics import SemanticLabeller
from gestalt.semantics.fit import fit_semantics, load_fit_frames
from stages import motion as motion_stage
from stages.entry import Stage
from tests.data.video import write_folder_video, write_source

SIZE, BLOCK, STEP = (96, 192), (40, 36), 5
FRAMES = default_settings("frames", scale=1.0, height=0, width=0)
P = 4


def texture(size: tuple[int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX))


def write_one_camera(folder: Path, n_frames: int = 3) -> Path:
    """A camera that stands before a wall along which a block moves by ``STEP`` pixels a frame."""
    wall, block = texture(SIZE, 0) // 2 + 60, texture(BLOCK, 1)
    for number in range(n_frames):
        image = wall.copy()
        left = 60 + STEP * number
        image[30 : 30 + BLOCK[0], left : left + BLOCK[1]] = block
        write_png(folder / "left" / f"{number:04d}.png", image)
    calibration = {"fx": 200, "fy": 200, "cx": 95.5, "cy": 40, "frame_rate_hz": 8}
    lines = [f"{key}: {value}" for key, value in calibration.items()]
    (folder / "calibration.yaml").write_text("\n".join(lines))
    return write_source(folder, "folder", monocular=True)


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[StereoFrame]:
    monkeypatch.chdir(tmp_path)
    table = build_manifest(write_one_camera(Path("b")), "b", default_settings("manifest"))
    write_manifest(table, Path("data/manifests/b.parquet"))
    return read_manifest(Path("data/manifests/b.parquet"))


def settings(source: str) -> MotionSettings:
    found = default_settings("motion", source=source, runs=2)
    assert isinstance(found, MotionSettings)
    return found


def propose(frames: list[StereoFrame], source: str, folder: Path) -> Path:
    return sharded(frames, FrameProposer(settings(source), FRAMES, seed=0), folder)


def sharded(frames: list[StereoFrame], process: Callable, folder: Path) -> Path:
    run_sharded(
        frames,
        process,
        out_dir=folder,
        cache_dir=folder.with_name(f".{folder.name}"),
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=0.0,
        label="motion",
    )
    return folder


def test_the_moving_block_becomes_a_checked_label_without_any_depth(
    frames: list[StereoFrame], tmp_path: Path
) -> None:
    assert all(frame.is_monocular and np.isnan(frame.stereo_baseline) for frame in frames)
    motion = propose(frames, "monocular", tmp_path / "motion")
    shards = ShardFolder(motion)
    assert not shards.read_map(frames[0].frame_id, "disparity").any()
    truth = np.zeros(SIZE, np.bool_)
    truth[30 : 30 + BLOCK[0], 60 : 60 + BLOCK[1]] = True
    mask = shards.read_map(frames[0].frame_id, "proposals") > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    table = shards.records()
    assert set(table["source"]) == {"monocular"}
    assert table[["surface_m2", "depth_m", "speed_m_s"]].isna().all(axis=None)
    # Semantics and labels.
    images = [load_left(frame, FRAMES) for frame in frames]
    dictionary = dataclasses.replace(
        default_settings("features").dictionary, n_patches=1000, n_filters=8, components=4
    )
    features = fit_features(images, dictionary, seed=0)
    save_features(features, tmp_path / "features")
    fitting = default_settings("semantics", method="kmeans", n_pseudo_classes=P, n_vectors=400, restarts=1)
    fit_frames = load_fit_frames([(frames, motion)], FRAMES, 2)
    fit_semantics(fit_frames, features, fitting, seed=0).save(tmp_path / "semantics")
    labeller = FrameLabeller(
        SemanticLabeller(tmp_path / "features", tmp_path / "semantics", fitting),
        motion,
        motion,
        FRAMES,
        default_settings("pseudo_labels", border_px=2, min_area_px=16),
        P,
    )
    summary, statistics = write_pseudo_labels(
        frames,
        labeller,
        out_dir=tmp_path / "labels",
        cache_dir=tmp_path / ".labels",
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=0.0,
        label="labels",
    )
    assert (summary.n_failed, int(statistics.instances.sum())) == (0, len(table))
    labels = ShardFolder(tmp_path / "labels")
    instances = labels.records().query("instance > 0")
    assert set(instances["source"]) == {"motion"}
    assert instances[["depth_median_m", "speed_m_s"]].isna().all(axis=None)
    assert (instances["valid_share"] == 0).all()
    # Audit.
    measures = measure_labels(
        labels.frames(),
        labels.records(),
        class_pixels=statistics.pixels,
        ensemble_runs=2,
        settings=default_settings("audit"),
    )
    assert (measures.frames["implausible"] == 0).all()
    assert np.isfinite(measures.frames["suspicion"]).all()
    findings = check_labels(measures, default_settings("audit"), P)
    of_depth = [f for f in findings if f.expectation.column in ("instance_depth_m", "instance_speed_m_s")]
    assert len(of_depth) == 2
    assert {finding.verdict for finding in of_depth} == {"passed"}
    # What a batch of three frames has too little of is no matter of depth.
    of_segments = [f for f in findings if f.expectation.table == "segments"]
    assert not [f for f in of_segments if f.expectation.severity == CRITICAL and f.verdict != "passed"]


def test_without_a_source_frames_are_empty_and_depth_is_still_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = build_manifest(write_folder_video(Path("s"), range(2)), "s", default_settings("manifest"))
    write_manifest(table, Path("s.parquet"))
    (frame,) = read_manifest(Path("s.parquet"))
    result = FrameProposer(settings("none"), FRAMES, seed=0)(frame)
    assert (result.status, result.reason, result.records) == ("empty", NOT_ASKED, [])
    assert not result.maps["proposals"].any()
    known = result.maps["disparity"] > 0
    assert known.mean() > 0.5
    assert np.median(result.maps["disparity"][known]) / 256 == pytest.approx(6, abs=0.3)
    asked = FrameProposer(settings("monocular"), FRAMES, seed=0)(frame)
    # One camera does not know what the other saw.
    assert not asked.maps["disparity"].any()
    assert asked.reason == "no object"


def test_without_a_source_and_a_second_camera_nothing_is_measured(frames: list[StereoFrame]) -> None:
    result = FrameProposer(settings("none"), FRAMES, seed=0)(frames[0])
    assert (result.status, result.reason) == ("empty", NOT_ASKED)
    assert not result.maps["disparity"].any()


def test_stereo_motion_of_one_camera_is_refused_before_the_first_frame(
    frames: list[StereoFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a frame was begun")

    monkeypatch.setattr(motion_stage, "run_sharded", never)
    params: Any = SimpleNamespace(frames=FRAMES, motion=settings("stereo"), seed=0)
    with pytest.raises(ConfigError, match=r"motion\.source is stereo, but 2 of 2 frames of the batch b"):
        motion_stage.propose(Stage("motion", "b", params))


def test_results_do_not_depend_on_where_they_are_computed(frames: list[StereoFrame], tmp_path: Path) -> None:
    whole = ShardFolder(propose(frames, "monocular", tmp_path / "whole"))
    alone = ShardFolder(propose(frames[1:], "monocular", tmp_path / "alone"))
    name = frames[1].frame_id
    assert np.array_equal(whole.read_map(name, "proposals"), alone.read_map(name, "proposals"))
