"""How far to trust a number: intervals over resamples of the images, spread over seeds.

The mapping of pseudo-classes is fixed on the full set, as the number itself is. Images of one drive resemble each
other, so where images belong to sequences whole sequences are drawn: single frames would promise too much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError
from gestalt.runtime import numpy_generator

LEVEL = 0.95
N_RESAMPLES = 1000
# Digits of an interval; more would be noise of the resampling.
DIGITS = 3

# Rows that are 64 bits wide at a time: a thousand resamples of ten thousand images are 80 MB.
ROWS_AT_ONCE = 50

UIntArray = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Interval:
    """A number and the interval that ``LEVEL`` of the resamples fall into, in the number's unit.

    Attributes:
        value: From all images.
        low: Its lower end; NaN, as the upper one is, where nothing can be said.
        high: Its upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval at all."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is more than the choice of the images explains; not where there is no interval."""
        return self.low > 0 or self.high < 0

    def to_list(self) -> list[float] | None:
        """[low, high] for JSON; None where there is no interval."""
        return [round(self.low, DIGITS), round(self.high, DIGITS)] if self.is_known else None


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of one number over runs that differ in the seed only.

    Attributes:
        mean: Over the runs.
        deviation: Sample standard deviation; NaN of a single run.
        n_runs: How many.
    """

    mean: float
    deviation: float
    n_runs: int


def resamples(n_units: int, n_samples: int = N_RESAMPLES, seed: int = 0) -> UIntArray:
    """How often each unit is drawn when as many units as there are are drawn with replacement.

    Args:
        n_units: Images, or sequences.
        n_samples: B.
        seed: Equal seeds give equal draws, so differences between contestants are paired.

    Returns:
        (B, n_units) unsigned integer of as few bytes as will do, rows sum to ``n_units``. No row at all of a single
        unit: drawn every time, it would give an interval without any width, which looks like certainty.

    Raises:
        DataError: There is no unit.
    """
    if n_units < 1:
        raise DataError("there is no image to draw from; the evaluation set is empty")
    if n_units == 1:
        n_samples = 0
    chance = numpy_generator(seed, "bootstrap", n_units)
    drawn = np.empty((n_samples, n_units), np.min_scalar_type(n_units))
    for start in range(0, n_samples, ROWS_AT_ONCE):
        rows = drawn[start : start + ROWS_AT_ONCE]
        rows[:] = chance.multinomial(n_units, np.full(n_units, 1 / n_units), size=len(rows))
    return drawn


def image_resamples(groups: Sequence[str], n_samples: int = N_RESAMPLES, seed: int = 0) -> UIntArray:
    """Draw whole groups of images.

    Args:
        groups: The group of each of N images, such as its sequence; an empty name is a group of its own.
        n_samples: B.
        seed: As for ``resamples``.

    Returns:
        (B, N) unsigned integer, how often each image counts.
    """
    if not any(groups):
        return resamples(len(groups), n_samples, seed)
    names = [group or f"\0{place}" for place, group in enumerate(groups)]
    units = {name: place for place, name in enumerate(sorted(set(names)))}
    drawn = resamples(len(units), n_samples, seed)
    return drawn[:, [units[name] for name in names]]


def interval(value: float, resampled: npt.NDArray[Any], level: float = LEVEL) -> Interval:
    """The percentile interval of a number.

    Args:
        value: From all images.
        resampled: (B,) the same number from each resample, NaN where it is undefined.
        level: Share of the resamples inside.

    Returns:
        Without ends (NaN) where there is no resample, or one that leaves the number undefined.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if not len(resampled) or np.isnan(resampled).any():
        return Interval(float(value), math.nan, math.nan)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation over seeds.

    Raises:
        DataError: There is no value.
    """
    if not values:
        raise DataError("there is no run to average over")
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(statistics.fmean(values), deviation, len(values))
