"""Reading the frames that semantics is fitted on."""

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.errors import DataError
from gestalt.semantics.fit import load_fit_frames

FRAME_SETTINGS = default_settings("frames", scale=1.0, height=0, width=0)


def stereo_frame(folder: Path, number: int) -> StereoFrame:
    path = folder / f"{number}.png"
    write_png(path, np.full((12, 16, 3), number, np.uint8))
    return StereoFrame(
        "a", "s", f"f{number}", path, path, path, path, 12, 16, np.eye(3), 0.1 * (number + 1), 0.1
    )


def measure(frame: StereoFrame) -> FrameResult:
    if frame.frame_id == "f1":
        return FrameResult("f1", "failed", "no luck")
    rows = 16 if frame.frame_id == "f3" else 12
    disparity = np.full((rows, 16), 256 * int(frame.frame_id[1:]) + 128, np.uint16)
    return FrameResult(frame.frame_id, maps={"disparity": disparity})


def open_threads() -> Executor:
    return ThreadPoolExecutor(1)


def motion_folder(frames: list[StereoFrame], folder: Path) -> Path:
    run_sharded(
        frames,
        measure,
        out_dir=folder / "motion",
        cache_dir=folder / "cache",
        key={},
        shard_size=2,
        open_executor=open_threads,
        max_failed_share=1.0,
        label="motion",
    )
    return folder / "motion"


def test_frames_come_with_their_disparity_in_pixels_and_failed_ones_are_left_out(tmp_path: Path) -> None:
    frames = [stereo_frame(tmp_path, number) for number in range(3)]
    loaded = load_fit_frames([(frames, motion_folder(frames, tmp_path))], FRAME_SETTINGS, 10)
    assert [frame.frame_id for frame in loaded] == ["f0", "f2"]
    assert loaded[1].disparity.dtype == np.float32
    assert (loaded[1].disparity == 2.5).all()
    assert (loaded[1].image == 2).all()
    assert loaded[1].stereo_baseline == pytest.approx(0.3)


def test_a_disparity_of_another_size_is_refused(tmp_path: Path) -> None:
    frames = [stereo_frame(tmp_path, 3)]
    with pytest.raises(DataError, match=r"disparity of f3 is \(16, 16\).*dvc repro motion"):
        load_fit_frames([(frames, motion_folder(frames, tmp_path))], FRAME_SETTINGS, 10)


def test_batches_without_any_disparity_are_refused(tmp_path: Path) -> None:
    frames = [stereo_frame(tmp_path, 1)]
    with pytest.raises(DataError, match="no frame of the fit_batches has a disparity map"):
        load_fit_frames([(frames, motion_folder(frames, tmp_path))], FRAME_SETTINGS, 10)
