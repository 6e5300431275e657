"""Ids over time, on masks that move as they are told."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.config.tracks import TrackSettings
from gestalt.errors import DataError
from gestalt.inference import tracks
from gestalt.inference.predictor import PanopticPrediction
from gestalt.inference.tracks import Tracker, mask_ious
from gestalt.network.merge import Segment
from gestalt.panoptic import PanopticMap

SIZE = (24, 60)
CAR, PERSON = 3, 4

# Class, and top, bottom, left and right of what is visible.
Box = tuple[int, int, int, int, int]


def frame(*boxes: Box, size: tuple[int, int] = SIZE) -> PanopticMap:
    """Boxes on a road; later ones lie before earlier ones. Ids follow the order, as scores would."""
    semantic, instance = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    for number, (thing, top, bottom, left, right) in enumerate(boxes, start=1):
        semantic[top:bottom, left:right], instance[top:bottom, left:right] = thing, number
    return PanopticMap(semantic, instance)


def car(left: int, row: int = 4) -> Box:
    return CAR, row, row + 6, left, left + 12


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(default_settings("tracks"))


def ids(tracker: Tracker, *boxes: Box) -> list[int]:
    """Tracks of the boxes of the next frame."""
    return tracker.link(frame(*boxes))[1:].tolist()


def test_ids_stay_through_motion_whatever_the_order_of_the_detections(tracker: Tracker) -> None:
    for step in range(10):
        one, other = car(2 + 3 * step), car(40 - 3 * step, row=14)
        expected = [1, 2] if step % 2 == 0 else [2, 1]
        assert ids(tracker, *((one, other) if step % 2 == 0 else (other, one))) == expected
    assert tracker.n_tracks == 2


def test_an_object_that_passes_behind_another_one_keeps_its_id(tracker: Tracker) -> None:
    # The nearer car covers the farther one in the third and fourth frame.
    assert ids(tracker, car(20), (PERSON, 0, 20, 0, 5)) == [1, 2]
    assert ids(tracker, car(20), (PERSON, 0, 20, 2, 7)) == [1, 2]
    assert ids(tracker, (PERSON, 0, 20, 4, 9)) == [2]
    assert ids(tracker, (PERSON, 0, 20, 6, 11)) == [2]
    assert ids(tracker, car(22), (PERSON, 0, 20, 8, 13)) == [1, 2]


@pytest.mark.parametrize("hidden", range(4))
def test_an_object_is_remembered_for_as_many_frames_as_the_settings_say(hidden: int) -> None:
    tracker = Tracker(TrackSettings(min_iou=0.3, reach=0, memory_frames=2))
    assert ids(tracker, car(20)) == [1]
    for _ in range(hidden):
        assert ids(tracker) == []
    assert ids(tracker, car(21)) == ([1] if hidden <= 2 else [2])


@pytest.mark.parametrize("n_hidden", [0, 1, 3])
def test_a_hidden_object_is_expected_where_it_was_going(tracker: Tracker, n_hidden: int) -> None:
    assert ids(tracker, car(0)) == [1]
    assert ids(tracker, car(5)) == [1]
    for _ in range(n_hidden):
        assert ids(tracker) == []
    # From two hidden frames on it has left the place where it was seen last.
    assert ids(tracker, car(10 + 5 * n_hidden)) == [1]


def test_what_is_faster_than_its_own_size_is_followed_once_it_is_known(tracker: Tracker) -> None:
    # 4, 8, 12 and 14 pixels a frame; the car is 12 long.
    places = [0, 4, 12, 24, 38]
    assert [ids(tracker, car(left)) for left in places] == [[1]] * 5


def test_an_object_expected_outside_of_the_image_does_no_harm(tracker: Tracker) -> None:
    for left in (30, 37, 44):
        assert ids(tracker, car(left)) == [1]
    assert ids(tracker, car(0)) == [2]
    assert ids(tracker) == []


def test_objects_that_pass_each_other_in_two_rows_do_not_swap(tracker: Tracker) -> None:
    for step in range(16):
        # The rows of the cars share two lines of pixels.
        assert ids(tracker, car(2 * step, row=4), car(40 - 2 * step, row=8)) == [1, 2]


def test_of_two_objects_that_overlap_alike_the_one_seen_last_goes_on(tracker: Tracker) -> None:
    assert ids(tracker, (CAR, 0, 1, 0, 10)) == [1]
    assert ids(tracker, (CAR, 0, 1, 8, 18)) == [2]  # 2 / 18
    assert ids(tracker, (CAR, 0, 1, 4, 14)) == [2]  # 6 / 14 with both


def test_the_links_together_overlap_most(tracker: Tracker) -> None:
    # Row of ten pixels each. The first instance overlaps most with track 2, which the second needs.
    assert ids(tracker, (CAR, 0, 1, 0, 10), (CAR, 0, 1, 10, 20)) == [1, 2]
    # IoU of the first: 4 / 16 and 6 / 14; of the second with track 2 only: 4 / 12.
    assert ids(tracker, (CAR, 0, 1, 6, 16), (CAR, 0, 1, 16, 22)) == [1, 2]


def test_a_new_object_gets_a_new_id_and_no_id_comes_back(tracker: Tracker) -> None:
    assert ids(tracker, car(0)) == [1]
    assert ids(tracker, car(1), car(30)) == [1, 2]
    for _ in range(10):
        assert ids(tracker) == []
    assert ids(tracker, car(30), car(1)) == [3, 4]


def test_another_class_is_another_object(tracker: Tracker) -> None:
    assert ids(tracker, car(10)) == [1]
    assert ids(tracker, (PERSON, *car(10)[1:])) == [2]
    # The car is still remembered.
    assert ids(tracker, car(10)) == [1]


def test_little_overlap_is_no_link() -> None:
    tracker = Tracker(TrackSettings(min_iou=0.5, reach=0, memory_frames=0))
    assert ids(tracker, (CAR, 0, 1, 0, 9)) == [1]
    assert ids(tracker, (CAR, 0, 1, 3, 12)) == [1]  # 6 / 12
    assert ids(tracker, (CAR, 0, 1, 10, 19)) == [2]  # expected at 6..15: 5 / 13
    assert ids(Tracker(TrackSettings(min_iou=0.0, reach=0, memory_frames=0)), car(0), car(30)) == [1, 2]


@pytest.mark.parametrize(
    ("box", "reach", "expected"),
    [
        ((CAR, 10, 13, 14, 17), 2.0, 1),  # moved by 4 pixels, its own 3 and one more
        ((CAR, 10, 13, 17, 20), 2.0, 2),  # by 7: more than twice its size
        ((CAR, 10, 13, 17, 20), 3.0, 1),
        ((CAR, 10, 13, 14, 17), 0.0, 2),
        ((CAR, 10, 14, 14, 19), 2.0, 2),  # as near, and more than twice as large
        ((PERSON, 10, 13, 14, 17), 2.0, 2),
    ],
)
def test_a_small_object_that_overlaps_with_nothing_goes_on_near_where_it_was(
    box: Box, reach: float, expected: int
) -> None:
    tracker = Tracker(TrackSettings(min_iou=0.2, reach=reach, memory_frames=5))
    assert ids(tracker, (CAR, 10, 13, 10, 13)) == [1]
    assert ids(tracker, box) == [expected]


def test_of_several_near_objects_those_go_on_that_are_nearest_together(tracker: Tracker) -> None:
    assert ids(tracker, (CAR, 10, 13, 10, 13), (CAR, 10, 13, 20, 23)) == [1, 2]
    assert ids(tracker, (CAR, 10, 13, 24, 27), (CAR, 10, 13, 14, 17)) == [2, 1]


def test_overlap_goes_before_nearness(tracker: Tracker) -> None:
    assert ids(tracker, car(20)) == [1]
    # The first box overlaps; the second one is new although it is near.
    assert ids(tracker, car(24), car(16, row=12)) == [1, 2]


def test_tracks_that_are_ended_do_not_go_on_and_their_ids_stay_theirs(tracker: Tracker) -> None:
    assert ids(tracker, car(20), car(40)) == [1, 2]
    tracker.end_tracks()
    assert ids(tracker, car(20), car(40)) == [3, 4]
    assert ids(tracker, car(40), car(20)) == [4, 3]
    assert tracker.n_tracks == 4


def test_frames_of_another_size_begin_anew(tracker: Tracker) -> None:
    assert ids(tracker, car(10)) == [1]
    assert tracker.link(frame(car(10), size=(24, 61)))[1:].tolist() == [2]


def test_a_prediction_takes_the_ids_of_the_tracks(tracker: Tracker) -> None:
    ids(tracker, car(0), car(40))
    panoptic = frame(car(41), car(20), car(1))
    segments = [Segment(CAR, number, 0.5 + number / 10, 72) for number in (1, 2, 3)]
    segments.append(Segment(0, 0, 0.9, 24 * 60 - 216))
    followed = tracker.follow(PanopticPrediction(panoptic, segments))
    assert [entry.instance for entry in followed.segments] == [2, 3, 1, 0]
    assert [entry.score for entry in followed.segments] == [entry.score for entry in segments]
    assert (followed.panoptic.semantic_map == panoptic.semantic_map).all()
    assert followed.panoptic.instance_map.dtype == np.uint16
    for old, new in zip(segments, followed.segments, strict=True):
        before, after = panoptic.instance_map == old.instance, followed.panoptic.instance_map == new.instance
        assert (before == after).all()


def test_memory_is_that_of_the_last_frames(tracker: Tracker) -> None:
    for step in range(40):
        ids(tracker, car(step))
    assert len(tracker._frames) == 6
    # Nothing waits in the older ones.
    assert [frame.tracks.tolist() for frame in tracker._frames] == [[]] * 5 + [[1]]


def test_more_tracks_than_ids_are_an_error(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "MAX_TRACKS", 2)
    ids(tracker, car(0), car(30))
    with pytest.raises(DataError, match="can hold 2 tracks, and frame 1 begins more; cut the video"):
        ids(tracker, (PERSON, 14, 20, 0, 12))


def test_ious_are_those_of_the_masks() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.choice(np.array([0, 2, 5, 9], np.uint16), (30, 40)) for _ in range(2))
    rows, columns = np.array([2, 5, 7]), np.array([9, 2])
    ious = mask_ious(first, rows, second, columns)
    for row, one in enumerate(rows):
        for column, other in enumerate(columns):
            union = ((first == one) | (second == other)).sum()
            intersection = ((first == one) & (second == other)).sum()
            assert ious[row, column] == pytest.approx(intersection / union)
    assert mask_ious(first, rows, first, rows)[[0, 1], [0, 1]].tolist() == [1, 1]


def test_random_scenes_keep_the_rules_of_ids() -> None:
    generator, tracker = np.random.default_rng(1), Tracker(default_settings("tracks"))
    seen: dict[int, int] = {}
    last: list[dict[int, int]] = []
    for _ in range(60):
        boxes: list[Box] = [
            (int(generator.integers(3, 5)), top, top + 8, left, left + 12)
            for top, left in generator.integers(0, (16, 48), (int(generator.integers(0, 6)), 2)).tolist()
        ]
        panoptic = frame(*boxes)
        table = tracker.link(panoptic)
        visible = np.unique(panoptic.instance_map[panoptic.instance_map > 0])
        given = table[visible].tolist()
        # One track for one object, none for what is not there, a class per track.
        assert len(set(given)) == len(given)
        assert 0 not in given
        assert not np.delete(table, visible).any()
        classes = {int(table[number]): boxes[number - 1][0] for number in visible}
        assert all(seen.setdefault(track, thing) == thing for track, thing in classes.items())
        last.append(classes)
    new_ones = [min(set(now) - set(seen_before), default=None) for seen_before, now in pairwise(last)]
    assert max(seen) == tracker.n_tracks == len(seen)
    assert any(new_ones)
