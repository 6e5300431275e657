"""What is kept of the latest images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gestalt.matching.recent import Recent


def image(value: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


class Sum:
    """A function of images that counts its calls."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, *images: np.ndarray) -> int:
        self.n_calls += 1
        return int(sum(int(one.sum()) for one in images))


def test_equal_images_are_computed_once_and_others_anew() -> None:
    compute = Sum()
    recent = Recent(compute)
    assert recent(image(1), image(2)) == recent(image(1), image(2)) == 20 * 30 * 3 * 3
    assert compute.n_calls == 1
    recent(image(2), image(1))
    assert compute.n_calls == 2
    recent(image(1, 30, 20), image(2, 30, 20))
    assert compute.n_calls == 3


def test_a_single_other_value_anywhere_is_another_image() -> None:
    compute = Sum()
    recent = Recent(compute)
    values = [recent(image(1))]
    for row, column in ((0, 0), (19, 29), (7, 3)):
        other = image(1)
        other[row, column, 1] = 2
        values.append(recent(other))
    assert values == [1800, 1801, 1801, 1801]
    assert compute.n_calls == 4


def test_an_array_that_is_written_into_is_another_image_then() -> None:
    recent = Recent(Sum())
    reused = image(1)
    assert recent(reused) == 1800
    reused[:] = 2
    assert recent(reused) == 3600
    assert recent(image(1)) == 1800


def test_the_one_that_was_not_used_for_longest_is_forgotten() -> None:
    compute = Sum()
    recent = Recent(compute, size=2)
    for value in (1, 2, 1, 3, 1):  # 3 takes the place of 2
        recent(image(value))
    assert compute.n_calls == 3
    recent(image(2))
    assert compute.n_calls == 4
    recent(image(1))
    assert compute.n_calls == 4


def test_threads_get_the_values_of_their_own_images() -> None:
    recent = Recent(Sum(), size=3)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: recent(image(n % 7)), range(200)))
    assert found == [1800 * (n % 7) for n in range(200)]
