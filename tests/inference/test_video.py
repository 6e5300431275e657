"""Reading and writing video files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gestalt.errors import DataError
from gestalt.inference.video import USUAL_FRAME_RATE_HZ, Video, VideoFile, open_video


def grey(level: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def test_pictures_come_back_in_order_with_their_rate(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "drive.mp4", 12.5) as video:
        for level in (0, 60, 120, 180, 240):
            video.add(grey(level))
    read = open_video(tmp_path / "drive.mp4")
    assert (read.n_frames, read.frame_rate_hz) == (5, pytest.approx(12.5))
    frames = list(read.frames)
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 5
    assert [round(float(frame.mean()) / 60) for frame in frames] == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["drive.mp4"]


def test_colours_keep_their_order(tmp_path: Path) -> None:
    red = grey(0)
    red[..., 0] = 250
    with VideoFile(tmp_path / "red.mp4", 10.0) as video:
        video.add(red)
    (frame,) = open_video(tmp_path / "red.mp4").frames
    assert frame[..., 0].mean() > 200
    assert frame[..., 2].mean() < 50


def test_a_video_that_breaks_off_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"old")

    def break_off() -> None:
        with VideoFile(tmp_path / "drive.mp4", 10.0) as video:
            video.add(grey(100))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert [path.name for path in tmp_path.iterdir()] == ["drive.mp4"]
    assert (tmp_path / "drive.mp4").read_bytes() == b"old"


def test_what_a_killed_run_left_of_the_same_video_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    running = os.getppid()
    names = {
        f".drive[1].{ended.pid}.tmp.mp4": False,
        f".drive[1].{running}.tmp.mp4": True,
        f".drive1.{ended.pid}.tmp.mp4": True,
        f".drive[1].old.{ended.pid}.tmp.mp4": True,
        f".drive[1].{ended.pid}.tmp.avi": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with VideoFile(tmp_path / "drive[1].mp4", 10.0) as video:
        video.add(grey(0))
    stays = {name for name, is_kept in names.items() if is_kept}
    assert {path.name for path in tmp_path.iterdir()} == {"drive[1].mp4", *stays}


def test_without_a_picture_there_is_no_file(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "drive.mp4", 10.0):
        pass
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="cannot be written as a video; is the folder writable"),
        VideoFile(tmp_path / "gone" / "drive.mp4", 10.0) as video,
    ):
        video.add(grey(0))


def test_a_file_that_does_not_exist_or_is_no_video_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; give an image, a folder of images or a video"):
        open_video(tmp_path / "drive.mp4")
    (tmp_path / "drive.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot be opened as a video; convert it"):
        open_video(tmp_path / "drive.mp4")


def test_a_few_missing_frames_are_a_miscount_and_more_are_missing() -> None:
    assert [Video(iter(()), 100, 10.0).missing_frames(n) for n in (101, 100, 98, 97, 0)] == [0, 0, 0, 3, 100]
    assert Video(iter(()), None, USUAL_FRAME_RATE_HZ).missing_frames(7) == 0


def test_a_file_that_says_nothing_about_its_rate_gets_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoFile(tmp_path / "drive.mp4", 10.0) as video:
        video.add(grey(0))
    capture = cv2.VideoCapture(str(tmp_path / "drive.mp4"))

    class Silent:
        def get(self, _: int) -> float:
            return 0.0

        def __getattr__(self, name: str) -> object:
            return getattr(capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Silent())
    read = open_video(tmp_path / "drive.mp4")
    assert (read.n_frames, read.frame_rate_hz) == (None, USUAL_FRAME_RATE_HZ)
    assert len(list(read.frames)) == 1
