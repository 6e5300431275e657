"""What the next steps need from disk, made while the device works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Results of a pure function of step and part; the same part of the next steps is made meanwhile.

    Args:
        load: Step and part -> result. It runs in other threads.
        steps: Nothing is made ahead from this step on.
        threads: So many steps are made ahead, side by side.
    """

    def __init__(self, load: Callable[[int, int], T], steps: int, threads: int = 1) -> None:
        self._load, self._steps, self._threads = load, steps, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
        self._waiting: dict[tuple[int, int], Future[T]] = {}

    def take(self, step: int, part: int) -> T:
        """The result, whether it was made ahead or not; in whatever order steps are asked for."""
        wanted = self._waiting.pop((step, part), None) or self._pool.submit(self._load, step, part)
        result = wanted.result()
        for following in range(step + 1, min(step + 1 + self._threads, self._steps)):
            if (following, part) not in self._waiting:
                self._waiting[following, part] = self._pool.submit(self._load, following, part)
        return result

    def close(self) -> None:
        """Let go of what nobody will ask for."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def reading_ahead(load: Callable[[int, int], T], steps: int, threads: int = 1) -> Iterator[ReadAhead[T]]:
    """A ``ReadAhead`` that is closed when the block ends."""
    ahead = ReadAhead(load, steps, threads)
    try:
        yield ahead
    finally:
        ahead.close()
