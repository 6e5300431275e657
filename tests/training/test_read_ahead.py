from __future__ import annotations

import threading

import pytest

from gestalt.errors import DataError
from gestalt.training.read_ahead import reading_ahead


def test_every_step_is_loaded_once_the_next_one_ahead_and_none_after_the_last() -> None:
    loaded: list[tuple[int, int]] = []
    ahead_is_there = threading.Event()

    def load(step: int, part: int) -> tuple[int, int]:
        loaded.append((step, part))
        if (step, part) == (1, 0):
            ahead_is_there.set()
        return step, part

    with reading_ahead(load, 3) as ahead:
        assert ahead.take(0, 0) == (0, 0)
        assert ahead_is_there.wait(10)  # before anybody asked for it
        for step in range(3):
            for part in range(2):
                if (step, part) != (0, 0):
                    assert ahead.take(step, part) == (step, part)
    assert sorted(loaded) == [(step, part) for step in range(3) for part in range(2)]


def test_an_error_of_the_other_thread_comes_out_where_the_result_is_asked_for() -> None:
    def load(step: int, _: int) -> int:
        if step == 1:
            raise DataError("a broken image")
        return step

    with reading_ahead(load, 5) as ahead:
        assert ahead.take(0, 0) == 0
        with pytest.raises(DataError, match="a broken image"):
            ahead.take(1, 0)


def test_a_step_may_be_asked_for_again() -> None:
    with reading_ahead(lambda step, part: (step, part), 5) as ahead:
        assert [ahead.take(2, 0), ahead.take(2, 0), ahead.take(0, 1)] == [(2, 0), (2, 0), (0, 1)]


def test_several_steps_are_loaded_side_by_side_and_come_in_order() -> None:
    together = threading.Barrier(3)

    def load(step: int, _: int) -> int:
        if step > 0:
            together.wait(10)  # nobody passes unless three are here
        return step

    with reading_ahead(load, 4, threads=3) as ahead:
        assert [ahead.take(step, 0) for step in range(4)] == [0, 1, 2, 3]
