from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gestalt.errors import DataError
from gestalt.evaluation.bootstrap import Interval, image_resamples, interval, resamples, spread


def test_resamples_draw_as_many_images_as_there_are_and_repeat_with_the_seed() -> None:
    weights = resamples(7, 200, seed=3)
    assert weights.shape == (200, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == resamples(7, 200, seed=3)).all()
    assert (weights != resamples(7, 200, seed=4)).any()
    assert abs(weights.mean() - 1) < 1e-9


def test_whole_sequences_are_drawn_and_single_images_stay_apart() -> None:
    weights = image_resamples(["b", "a", "b", "", ""], 300)
    assert (weights[:, 0] == weights[:, 2]).all()
    for first, second in ((0, 1), (3, 4), (1, 3)):
        assert (weights[:, first] != weights[:, second]).any()


def test_the_interval_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(50, 10, 80)
    weights = resamples(80, 4000)
    found = interval(values.mean(), weights @ values / 80)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.value == values.mean()
    assert found.low == pytest.approx(expected.low, abs=0.3)
    assert found.high == pytest.approx(expected.high, abs=0.3)


def test_an_interval_knows_whether_it_excludes_zero() -> None:
    assert Interval(1.0, 0.2, 2.0).excludes_zero
    assert Interval(-1.0, -2.0, -0.1).excludes_zero
    assert not Interval(1.0, -0.1, 2.0).excludes_zero
    assert Interval(1.0, 0.12345, 2.0).to_list() == [0.123, 2.0]


def test_spread_over_seeds() -> None:
    assert spread([1.0, 2.0, 3.0]).mean == 2
    assert spread([1.0, 2.0, 3.0]).deviation == pytest.approx(1)
    assert np.isnan(spread([5.0]).deviation)
    assert spread([5.0]).n_runs == 1


def test_a_single_image_has_no_interval() -> None:
    weights = resamples(1)
    assert weights.shape == (0, 1)
    found = interval(40.0, weights @ np.array([40.0]))
    assert (found.value, found.is_known, found.excludes_zero, found.to_list()) == (40.0, False, False, None)
    assert image_resamples(["one", "one"]).shape == (0, 2)


def test_a_number_that_a_resample_leaves_undefined_has_no_interval() -> None:
    assert not interval(40.0, np.array([30.0, np.nan, 50.0])).is_known
    assert interval(40.0, np.array([30.0, 50.0])).is_known


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(DataError, match="there is no image to draw from"):
        resamples(0)
    with pytest.raises(DataError, match="there is no run"):
        spread([])
