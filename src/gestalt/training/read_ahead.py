"""What the next step needs from disk, made while the device works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Results of a pure function of step and part; the same part of the next step is made meanwhile.

    Args:
        load: Step and part -> result. It runs in one other thread, one call at a time.
        steps: Nothing is made ahead from this step on.
    """

    def __init__(self, load: Callable[[int, int], T], steps: int) -> None:
        self._load, self._steps = load, steps
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._waiting: dict[tuple[int, int], Future[T]] = {}

    def take(self, step: int, part: int) -> T:
        """The result, whether it was made ahead or not; in whatever order steps are asked for."""
        wanted = self._waiting.pop((step, part), None) or self._pool.submit(self._load, step, part)
        result = wanted.result()
        if step + 1 < self._steps and (step + 1, part) not in self._waiting:
            self._waiting[step + 1, part] = self._pool.submit(self._load, step + 1, part)
        return result

    def close(self) -> None:
        """Let go of what nobody will ask for."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def reading_ahead(load: Callable[[int, int], T], steps: int) -> Iterator[ReadAhead[T]]:
    """A ``ReadAhead`` that is closed when the block ends."""
    ahead = ReadAhead(load, steps)
    try:
        yield ahead
    finally:
        ahead.close()
