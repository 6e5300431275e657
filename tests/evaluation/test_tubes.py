"""Tubes and windows against one wide image made of all their frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gestalt.errors import ConfigError
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.evaluation.tubes import SequencePairs, split_sequences, window_table
from gestalt.panoptic import PanopticMap
from tests.evaluation.maps import panoptic
from tests.evaluation.videos import Frames, random_video, video_table

COLUMNS = [field.name for field in dataclasses.fields(IntersectionTable)][2:]


def side_by_side(frames: Frames, start: int, n_frames: int) -> IntersectionTable:
    """The table of one image that holds the frames next to each other; those without prediction are left out."""

    def wide(maps: list[PanopticMap]) -> PanopticMap:
        return PanopticMap(
            np.hstack([entry.semantic_map for entry in maps]),
            np.hstack([entry.instance_map for entry in maps]),
        )

    pairs = [(ours, true) for ours, true in frames[start : start + n_frames] if ours is not None]
    return intersect("wide", wide([ours for ours, _ in pairs]), wide([true for _, true in pairs]))


def predicted_video(seed: int, n_frames: int) -> Frames:
    """A random video that was predicted in all its frames."""
    generator = np.random.default_rng(seed)
    frames: Frames = []
    while len(frames) < n_frames:
        frames += [entry for entry in random_video(generator, 1) if entry[0] is not None]
    return frames


def gather(*videos: Frames) -> list[SequencePairs]:
    return list(split_sequences(*video_table({f"s{index}": frames for index, frames in enumerate(videos)})))


def assert_same_rows(found: IntersectionTable, expected: IntersectionTable) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), err_msg=column)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_sequence_is_the_table_of_its_frames_side_by_side(seed: int, n_frames: int) -> None:
    first, second = predicted_video(seed, n_frames), predicted_video(seed + 1, 3)
    for pairs, frames in zip(gather(first, second), (first, second), strict=True):
        assert_same_rows(pairs.tubes, side_by_side(frames, 0, len(frames)))
        assert pairs.n_frames == len(frames)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_window_is_the_table_of_its_frames_side_by_side(seed: int, n_frames: int) -> None:
    frames = predicted_video(seed, 5)
    (pairs,) = gather(frames)
    table = window_table(pairs, n_frames)
    assert len(table.image_ids) == 5 - n_frames + 1
    for start in range(len(table.image_ids)):
        rows = table.image == start
        found = dataclasses.replace(
            table, image=table.image[rows], **{column: getattr(table, column)[rows] for column in COLUMNS}
        )
        assert_same_rows(found, side_by_side(frames, start, n_frames))


def test_all_windows_together_hold_each_pixel_as_often_as_they_overlap() -> None:
    (pairs,) = gather(predicted_video(0, 6))
    n_pixels = int(pairs.n_pixels.sum()) // 6
    for n_frames in (1, 2, 3, 6):
        assert window_table(pairs, n_frames).n_pixels.sum() == n_pixels * n_frames * (6 - n_frames + 1)


def test_a_window_longer_than_the_video_is_none() -> None:
    (pairs,) = gather(predicted_video(0, 2))
    table = window_table(pairs, 3)
    assert (len(table), table.image_ids) == (0, ())
    with pytest.raises(ConfigError, match="at least 1 frame"):
        window_table(pairs, 0)


def test_frames_come_in_the_order_of_their_numbers_whatever_their_names() -> None:
    frames = {"b": 2, "a": 9, "c": 4}
    tables = [intersect(name, panoptic([[number]]), panoptic([[0]])) for name, number in frames.items()]
    sequence_of = {name: ("drive", number) for name, number in frames.items()}
    (pairs,) = split_sequences(merge_tables(tables), sequence_of)
    observed = dict(zip(pairs.frame.tolist(), pairs.tubes.predicted_class[pairs.pair].tolist(), strict=True))
    assert observed == {0: 2, 1: 4, 2: 9}


def test_names_of_images_that_are_not_evaluated_are_allowed() -> None:
    table = intersect("one", panoptic([[0]]), panoptic([[0]]))
    (pairs,) = split_sequences(table, {"one": ("drive", 7), "other": ("drive", 6)})
    assert (pairs.n_frames, pairs.frame.tolist()) == (1, [0])
