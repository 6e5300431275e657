"""Frames in files: round trips, refusals, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gestalt.errors import DataError
from gestalt.features.training_images import load_frames, make_images, read_images, write_images
from tests.features.small_distillation import noisy_frames


def test_written_frames_are_read_again(tmp_path: Path) -> None:
    frames = noisy_frames(4)
    write_images(tmp_path / "f.npz", frames, ["a", "a", "b", "b"])
    images = read_images(tmp_path / "f.npz")
    np.testing.assert_array_equal(images.frames, frames)
    assert images.sequences == ("a", "a", "b", "b")
    assert images.size == (40, 64)
    np.save(tmp_path / "f.npy", frames)
    plain = read_images(tmp_path / "f.npy")
    np.testing.assert_array_equal(plain.frames, frames)
    assert isinstance(plain.frames, np.memmap)
    assert plain.sequences is None


def test_frames_of_one_colour_are_counted_and_left_out() -> None:
    frames = noisy_frames(4)
    frames[1] = 200
    frames[2] = 0
    frames[2, 5, 3] = 1  # a single pixel is something to see
    images = make_images(frames, origin="test")
    assert images.usable.tolist() == [0, 2, 3]
    assert (len(images), images.n_constant) == (3, 1)


def test_what_is_no_set_of_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; `python -m gestalt.features.training_images`"):
        read_images(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", pictures=noisy_frames(2))
    with pytest.raises(DataError, match=r"must hold `images`.*Got: pictures"):
        read_images(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="is no NPZ or NPY file"):
        read_images(tmp_path / "text.npz")
    whole = tmp_path / "cut.npz"
    write_images(whole, noisy_frames(2), ["a", "b"])
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(DataError, match="is no NPZ or NPY file"):
        read_images(whole)
    np.save(tmp_path / "float.npy", noisy_frames(2).astype(np.float32))
    with pytest.raises(DataError, match=r"\(N, H, W, 3\) uint8 RGB. Got: \(2, 40, 64, 3\) float32"):
        read_images(tmp_path / "float.npy")
    np.save(tmp_path / "code.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is no NPZ or NPY file"):
        read_images(tmp_path / "code.npy")
    with pytest.raises(DataError, match="each of the 3 frames has one colour only"):
        make_images(np.full((3, 8, 8, 3), 9, np.uint8), origin="test")
    with pytest.raises(DataError, match=r"2 frames need as many sequences\. Got: 1"):
        make_images(noisy_frames(2), ["a"], origin="test")


def test_images_of_a_manifest_are_loaded_once_in_order(tmp_path: Path) -> None:
    import cv2

    from gestalt.config.presets import default_settings
    from gestalt.data.records import StereoFrame

    pictures = noisy_frames(6)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture[..., ::-1])

    def frame(name: str, *numbers: int) -> StereoFrame:
        left, right, left_next, right_next = (paths[number] for number in numbers)
        return StereoFrame(
            batch="b",
            sequence=name,
            frame_id=name,
            left=left,
            right=right,
            left_next=left_next,
            right_next=right_next,
            height=40,
            width=64,
            intrinsics=np.eye(3),
            stereo_baseline=1.0,
            time_step_s=0.1,
        )

    rows = [frame("s", 0, 1, 2, 3), frame("t", 2, 3, 4, 5)]
    settings = default_settings("frames", height=40, width=64)
    loaded, sequences = load_frames(rows, settings, left_only=False)
    np.testing.assert_array_equal(loaded, pictures)
    assert sequences == ["s", "s", "s", "s", "t", "t"]
    left, names = load_frames(rows, settings, left_only=True)
    np.testing.assert_array_equal(left, pictures[[0, 2]])
    assert names == ["s", "t"]
