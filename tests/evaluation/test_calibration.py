from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.calibration import Calibration, CalibrationHistogram
from gestalt.evaluation.instances import judge_masks, true_objects
from gestalt.evaluation.intersections import intersect, mark_groups_as_crowd
from gestalt.panoptic import VOID
from tests.evaluation.maps import panoptic


def scored(n_masks: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of four digits that are right: a mask of score s hits with chance s."""
    generator = np.random.default_rng(seed)
    scores = generator.random(n_masks).round(4)
    return scores, generator.random(n_masks) < scores


def test_an_example_by_hand() -> None:
    found = CalibrationHistogram.of([0.2, 0.2, 0.6, 0.9], [False, True, False, True]).calibration(2)
    # Bins of two: mean score 0.2 with half hits, mean score 0.75 with half hits.
    assert [(entry.low, entry.high, entry.n_masks) for entry in found.bins] == [(0.2, 0.2, 2), (0.6, 0.9, 2)]
    assert [entry.hit_share for entry in found.bins] == [0.5, 0.5]
    assert found.bins[1].mean_score == pytest.approx(0.75)
    assert found.expected_error == pytest.approx((2 * 0.3 + 2 * 0.25) / 4)
    assert found.largest_error == pytest.approx(0.3)
    assert found.brier == pytest.approx((0.04 + 0.64 + 0.36 + 0.01) / 4)
    # Hits 0.2 and 0.9 against misses 0.2 and 0.6: half a tie, two wins of four pairs.
    assert found.auroc == pytest.approx(2.5 / 4)
    assert (found.n_masks, found.hit_share, found.mean_score) == (4, 0.5, pytest.approx(0.475))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), min_size=1, max_size=60))
def test_brier_and_auroc_are_exact_for_scores_of_four_digits(masks: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in masks]) / 10_000
    hits = np.array([hit for _, hit in masks])
    found = CalibrationHistogram.of(scores, hits).calibration()
    assert found.brier == pytest.approx(brier_score_loss(hits, scores, pos_label=True))
    if 0 < hits.sum() < len(hits):
        assert found.auroc == pytest.approx(roc_auc_score(hits, scores))
    else:
        assert math.isnan(found.auroc)


def test_bins_hold_equal_counts_and_the_error_is_that_of_sorted_masks() -> None:
    scores, hits = scored(3000)
    found = CalibrationHistogram.of(scores, hits).calibration(15)
    assert len(found.bins) == 15
    assert all(abs(entry.n_masks - 200) <= 3 for entry in found.bins)
    order = np.argsort(scores, kind="stable")
    expected = np.mean([abs(scores[part].mean() - hits[part].mean()) for part in np.array_split(order, 15)])
    assert found.expected_error == pytest.approx(expected, abs=0.004)


def test_right_scores_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    scores, hits = scored(20_000)
    right = CalibrationHistogram.of(scores, hits).calibration()
    assert right.expected_error < 0.02
    sure = CalibrationHistogram.of(scores**0.25, hits).calibration()
    assert sure.expected_error > 0.25
    assert sure.auroc == pytest.approx(right.auroc, abs=1e-3)


def test_histograms_of_shards_add_up_in_any_order() -> None:
    scores, hits = scored(500)
    whole = CalibrationHistogram.of(scores, hits)
    parts = [CalibrationHistogram.of(scores[start::7], hits[start::7]) for start in range(7)]
    total = parts[0]
    for part in parts[:0:-1]:
        total = part + total
    assert np.array_equal(total.n_hits, whole.n_hits)
    assert np.array_equal(total.n_misses, whole.n_misses)
    assert total.calibration() == whole.calibration()


def test_equal_scores_are_one_bin() -> None:
    found = CalibrationHistogram.of([1.0] * 8, [True] * 6 + [False] * 2).calibration()
    assert len(found.bins) == 1
    assert found.expected_error == pytest.approx(0.25)
    assert found.auroc == 0.5


def test_no_masks_have_no_numbers() -> None:
    found = CalibrationHistogram.of([], []).calibration()
    assert math.isnan(found.expected_error)
    assert found.bins == ()
    assert found.to_dict()["auroc"] is None


def test_a_calibration_survives_json() -> None:
    for scores in ([], [0.2, 0.9, 0.7]):
        found = CalibrationHistogram.of(scores, [score > 0.5 for score in scores]).calibration()
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert repr(Calibration.from_dict(content)) == repr(
            found
        )  # NaN differs from itself, its text does not


def test_masks_are_judged_and_those_in_void_and_groups_left_out() -> None:
    # A car that is found, a car whose mask is called a person, a mask on road, one in void and one in a group.
    truth = panoptic([[3] * 10 + [0] * 5 + [VOID] * 5 + [3] * 5], [[1] * 5 + [2] * 5 + [0] * 10 + [0] * 5])
    names = [[1] * 5 + [2] * 5 + [3] * 5 + [4] * 5 + [5] * 5]
    prediction = panoptic([[0] * 5 + [1] * 5 + [0] * 15], names)
    table = mark_groups_as_crowd(intersect("a", prediction, truth), [3, 4])
    scores = {("a", number): number / 10 for number in range(1, 6)}
    objects = true_objects(table, [3, 4])
    histogram = CalibrationHistogram.of_masks(judge_masks(table, objects), scores)
    assert np.flatnonzero(histogram.n_hits).tolist() == [1000, 2000]
    assert np.flatnonzero(histogram.n_misses).tolist() == [3000]
    by_class = CalibrationHistogram.of_masks(judge_masks(table, objects, class_of=[3, 4]), scores)
    assert np.flatnonzero(by_class.n_hits).tolist() == [1000]
    assert np.flatnonzero(by_class.n_misses).tolist() == [2000, 3000]
    with pytest.raises(DataError, match=r"1 of 5 masks have no score, such as 1 of a"):
        CalibrationHistogram.of_masks(judge_masks(table, objects), dict.fromkeys(list(scores)[1:], 0.5))


def test_scores_that_are_no_shares_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 of 2 are not, such as 3.5; give probabilities, not logits"):
        CalibrationHistogram.of([0.5, 3.5], [True, False])
    with pytest.raises(DataError, match="such as nan"):
        CalibrationHistogram.of([math.nan], [True])
    with pytest.raises(ShapeError, match=r"must be \(M,\) each. Got: \(2,\) and \(1,\)"):
        CalibrationHistogram.of([0.5, 0.5], [True])
