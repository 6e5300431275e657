"""Pairs to learn from, of a manifest or of one file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.records import StereoFrame
from gestalt.errors import DataError
from gestalt.matching.training_pairs import TrainingPairs, pairs_of_frames, read_pairs, write_pairs
from tests.matching.small_training import moving_pairs


@pytest.fixture
def frames(tmp_path: Path) -> list[StereoFrame]:
    """Two sequences of three and of two times, as the manifest lists them."""
    found = []
    for sequence, length in (("a", 3), ("b", 2)):
        paths = {}
        for time in range(length):
            for side in ("left", "right"):
                paths[side, time] = tmp_path / f"{sequence}_{time}_{side}.png"
                value = np.random.default_rng(len(found) * 10 + time).integers(0, 256, (16, 24, 3), np.uint8)
                write_png(paths[side, time], value if side == "left" else 255 - value)
        for time in range(length - 1):
            found.append(
                StereoFrame(
                    batch="day",
                    sequence=sequence,
                    frame_id=f"{sequence}_{time}",
                    left=paths["left", time],
                    right=paths["right", time],
                    left_next=paths["left", time + 1],
                    right_next=paths["right", time + 1],
                    height=16,
                    width=24,
                    intrinsics=np.eye(3),
                    stereo_baseline=0.5,
                    time_step_s=0.1,
                )
            )
    return found


def small_frames() -> object:
    return default_settings("frames", scale=1.0, height=0, width=0)


@pytest.mark.parametrize("keep", [True, False])
def test_frames_give_pairs_in_time_and_between_the_views(frames: list[StereoFrame], keep: bool) -> None:
    pairs = pairs_of_frames(frames, small_frames(), keep_in_memory=keep, threads=2)
    # Five times have two views each; three steps in time are seen by two cameras.
    assert len(pairs) == 5 + 3 * 2
    assert int(pairs.is_stereo.sum()) == 5
    assert pairs.size == (16, 24)
    for index in np.flatnonzero(pairs.is_stereo):
        left, right = pairs.load(int(index))
        assert np.array_equal(right, 255 - left)
    # Only the second step of the first sequence has a frame before, once per camera.
    middles = pairs.middles()
    assert len(middles) == 2
    for index in middles:
        before = pairs.load(int(pairs.previous[index]))
        assert np.array_equal(before[1], pairs.load(int(index))[0])


def test_frames_without_right_images_give_pairs_in_time_alone(frames: list[StereoFrame]) -> None:
    left_only = [dataclasses.replace(frame, right=None, right_next=None) for frame in frames]
    pairs = pairs_of_frames(left_only, small_frames(), keep_in_memory=True, threads=1)
    assert len(pairs) == 3
    assert not pairs.is_stereo.any()
    assert set(pairs.draw(20, 1.0, np.random.default_rng(0))) == {0, 1, 2}


def test_the_share_of_stereo_pairs_is_as_asked() -> None:
    pairs = moving_pairs()
    for share in (0.0, 0.3, 1.0):
        drawn = pairs.draw(2000, share, np.random.default_rng(0))
        assert abs(float(pairs.is_stereo[drawn].mean()) - share) < 0.04
    assert set(pairs.draw(2000, 0.5, np.random.default_rng(0))) == set(range(len(pairs)))


def test_one_file_holds_what_the_frames_hold(tmp_path: Path) -> None:
    pairs = moving_pairs()
    write_pairs(tmp_path / "pairs.npz", pairs)
    found = read_pairs(tmp_path / "pairs.npz")
    assert found.size == pairs.size
    assert np.array_equal(found.is_stereo, pairs.is_stereo)
    assert np.array_equal(found.previous, pairs.previous)
    assert all(np.array_equal(found.load(index), pairs.load(index)) for index in range(len(pairs)))
    with np.load(tmp_path / "pairs.npz") as stored:
        assert len(stored["images"]) == 18  # each image once, though most belong to two pairs or three


def test_a_plain_array_of_pairs_will_do(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 10, 3), np.uint8)
    np.savez(tmp_path / "pairs.npz", pairs=images)
    pairs = read_pairs(tmp_path / "pairs.npz")
    assert all(np.array_equal(pairs.load(index), images[index]) for index in range(4))
    assert not pairs.is_stereo.any()
    assert len(pairs.middles()) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "must hold"),
        ({"pairs": np.zeros((2, 2, 4, 4, 3), np.float32)}, r"Got: pairs \(2, 2, 4, 4, 3\) float32"),
        ({"pairs": np.zeros((2, 3, 4, 4, 3), np.uint8)}, "must hold"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "pairs": np.array([[0, 2]])}, "number 2 images"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "pairs": np.zeros((0, 2), int)}, "at least one pair"),
        ({"pairs": np.zeros((2, 2, 4, 4, 3), np.uint8), "is_stereo": np.zeros(3, bool)}, "Got: 3 and 2"),
        ({"pairs": np.zeros((2, 2, 4, 4, 3), np.uint8), "previous": np.array([0, 2])}, r"-1\.\.1"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "pairs.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "pairs.npz")


def test_missing_files_and_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(tmp_path / "pairs.npz")
    (tmp_path / "pairs.npz").write_text("text")
    with pytest.raises(DataError, match="no NPZ file"):
        read_pairs(tmp_path / "pairs.npz")


def test_images_of_another_size_are_named() -> None:
    pairs = moving_pairs()
    odd = TrainingPairs(
        lambda number: np.zeros((8, 8, 3), np.uint8), pairs.pairs, pairs.is_stereo, pairs.previous, pairs.size
    )
    with pytest.raises(DataError, match=r"must be \(40, 64, 3\).*frames\.height"):
        odd.load(0)
