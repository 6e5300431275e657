"""Unpacked shard folders: the same pixels, and previews in which ids differ."""

import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gestalt.data.images import read_png
from gestalt.data.sharded_run import FrameResult, run_sharded
from gestalt.errors import DataError
from gestalt.export import colour_preview, unpack
from gestalt.panoptic import VOID


def maps_of(frame_id: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(len(frame_id))
    return {
        "semantic": generator.choice([0, 1, 26, VOID], (12, 16)).astype(np.uint8),
        "instance": generator.choice([0, 1, 65535], (12, 16)).astype(np.uint16),
        "disparity": generator.integers(0, 5000, (12, 16)).astype(np.uint16),
    }


def label(item: types.SimpleNamespace) -> FrameResult:
    records = [{"frame_id": item.frame_id, "instance": 1}]
    return FrameResult(item.frame_id, "ok", "", maps_of(item.frame_id), records, {"instances": 1})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    run_sharded(
        [types.SimpleNamespace(frame_id=name) for name in ("a", "bb", "ccc")],
        label,
        out_dir=tmp_path / "shards",
        cache_dir=tmp_path / ".cache",
        key={},
        shard_size=2,
        open_executor=None,
        max_failed_share=0.0,
        label="test",
    )
    return tmp_path / "shards"


def test_unpacked_maps_have_the_pixels_of_the_shards(shards: Path, tmp_path: Path) -> None:
    assert unpack(shards, tmp_path / "out") == 3
    for frame_id in ("a", "bb", "ccc"):
        for kind, array in maps_of(frame_id).items():
            assert np.array_equal(read_png(tmp_path / "out" / f"{frame_id}.{kind}.png"), array)
            assert read_png(tmp_path / "out" / f"{frame_id}.{kind}.colour.png").shape == (12, 16, 3)
    assert pd.read_csv(tmp_path / "out" / "frames.csv")["frame_id"].tolist() == ["a", "bb", "ccc"]
    assert len(pd.read_csv(tmp_path / "out" / "records.csv")) == 3


def test_only_the_frames_asked_for_and_no_previews(shards: Path, tmp_path: Path) -> None:
    assert unpack(shards, tmp_path / "out", frame_ids=["bb"], previews=False) == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "bb.disparity.png",
        "bb.instance.png",
        "bb.semantic.png",
    ]
    for table in ("frames", "records"):
        assert pd.read_csv(tmp_path / "out" / f"{table}.csv")["frame_id"].tolist() == ["bb"]


def test_an_unknown_frame_is_an_error_that_shows_a_known_one(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no maps of frame 'zebra'; it has 'a'"):
        unpack(shards, tmp_path / "out", frame_ids=["zebra"])


def test_ids_get_different_colours_and_void_is_black() -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    coloured = colour_preview(ids, "semantic").reshape(-1, 3)
    assert not coloured[VOID].any()
    assert len(np.unique(coloured[:27], axis=0)) == 27
    distance = np.abs(coloured[:27, None].astype(int) - coloured[None, :27].astype(int)).sum(-1)
    assert distance[~np.eye(27, dtype=bool)].min() > 20
    instances = colour_preview(ids.astype(np.uint16), "instance").reshape(-1, 3)
    assert not instances[0].any()
    assert instances[1:].any(axis=1).all()


def test_near_is_redder_than_far_and_missing_disparity_is_black() -> None:
    coloured = colour_preview(np.array([[0, 300, 5000]], np.uint16), "disparity")
    assert not coloured[0, 0].any()
    assert coloured[0, 1, 2] > coloured[0, 1, 0]
    assert coloured[0, 2, 0] > coloured[0, 2, 2]


def test_an_empty_disparity_map_is_black() -> None:
    assert not colour_preview(np.zeros((3, 3), np.uint16), "disparity").any()
