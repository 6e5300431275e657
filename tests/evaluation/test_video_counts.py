"""Counts of sequences add up, whatever was counted where; and what cannot be counted is explained."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gestalt.errors import DataError
from gestalt.evaluation.panoptic_quality import STANDARD
from gestalt.evaluation.video_counts import merge_video_counts, video_counts
from tests.evaluation.videos import CLASSES, THINGS, Frames, car_frame, video_sets, video_table


@settings(max_examples=15, deadline=None)
@given(video_sets(), st.randoms(use_true_random=False))
def test_shards_merge_in_any_order(videos: dict[str, Frames], chance: random.Random) -> None:
    table, sequence_of = video_table(videos)
    parts = [
        video_counts(*video_table({name: frames}), CLASSES, THINGS)  # one sequence each
        for name, frames in videos.items()
    ]
    chance.shuffle(parts)
    merged, whole = merge_video_counts(parts), video_counts(table, sequence_of, CLASSES, THINGS)
    assert merged.sequences == whole.sequences
    np.testing.assert_array_equal(merged.confusion, whole.confusion)
    np.testing.assert_array_equal(merged.association, whole.association)
    np.testing.assert_array_equal(merged.n_windows, whole.n_windows)
    for first, second in zip(merged.panoptic[STANDARD], whole.panoptic[STANDARD], strict=True):
        np.testing.assert_array_equal(first.iou_sum, second.iou_sum)


def test_windows_are_of_frames_with_ground_truth() -> None:
    """Numbers with gaps make no holes: annotated frames follow each other."""
    counts = video_counts(*video_table({"one": [(car_frame(1), car_frame(1))] * 6}), CLASSES, THINGS)
    assert counts.n_windows.tolist() == [[6, 5, 4, 3]]


def test_a_sequence_counted_in_two_parts_is_refused() -> None:
    counts = video_counts(*video_table({"one": [(car_frame(1), car_frame(1))]}), CLASSES, THINGS)
    with pytest.raises(DataError, match=r"1 sequences were counted in several parts.*one"):
        merge_video_counts([counts, counts])
    with pytest.raises(DataError, match="no sequence to evaluate"):
        merge_video_counts([])
