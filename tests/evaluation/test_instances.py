from __future__ import annotations

import numpy as np
import pytest

from gestalt.evaluation.instances import instance_quality
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.panoptic import VOID, PanopticMap
from tests.evaluation.maps import panoptic, random_map


def masks(instance: object) -> PanopticMap:
    instance = np.asarray(instance)
    return panoptic(np.where(instance > 0, 0, VOID), instance)


def objects_of(table: IntersectionTable) -> np.ndarray:
    return (table.true_class < VOID) & (table.true_instance > 0)


def test_a_hand_made_example() -> None:
    truth = panoptic([[0] * 10, [1] * 10], [[0] * 10, [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]])
    proposals = masks([[9, 9, 0, 0, 0, 0, 0, 0, 0, 0], [5, 5, 5, 0, 6, 6, 6, 7, 0, 0]])
    table = intersect("a", proposals, truth)
    quality = instance_quality(table, objects_of(table))
    # Mask 5 hits with 3/4, mask 6 with 1; mask 7 covers a third of an object, mask 9 background.
    assert quality.n_hits == 2
    assert (quality.precision, quality.recall) == (2 / 4, 2 / 3)
    assert quality.mean_iou == pytest.approx((3 / 4 + 1) / 2)


def test_small_objects_need_not_be_found_and_masks_on_them_do_not_count() -> None:
    truth = panoptic([[1] * 6], [[1, 1, 1, 1, 2, 2]])
    table = intersect("a", masks([[5, 5, 5, 5, 6, 6]]), truth)
    assert instance_quality(table, objects_of(table), 3).to_dict() == {
        "precision": 1.0,
        "recall": 1.0,
        "mean_iou": 1.0,
        "n_masks": 1,
        "n_objects": 1,
        "n_hits": 1,
    }


def test_masks_on_objects_that_are_not_wanted_are_wrong() -> None:
    truth = panoptic([[1] * 6], [[1, 1, 1, 2, 2, 2]])
    table = intersect("a", masks([[5, 5, 5, 6, 6, 6]]), truth)
    quality = instance_quality(table, table.true_instance == 1)
    assert (quality.precision, quality.recall) == (0.5, 1.0)


def test_masks_mostly_in_void_do_not_count() -> None:
    truth = panoptic([[VOID, VOID, VOID, 0]])
    table = intersect("a", masks([[5, 5, 5, 5]]), truth)
    assert instance_quality(table, objects_of(table)).n_masks == 0


def test_frames_without_masks_lower_the_recall() -> None:
    truth = panoptic([[1, 1]], [[1, 1]])
    table = merge_tables([intersect("a", masks([[3, 3]]), truth), intersect("b", None, truth)])
    quality = instance_quality(table, objects_of(table))
    assert (quality.precision, quality.recall) == (1.0, 0.5)


def test_nothing_to_find_and_nothing_found_gives_zeros() -> None:
    table = intersect("a", masks([[0, 0]]), panoptic([[0, 0]]))
    quality = instance_quality(table, objects_of(table))
    assert (quality.precision, quality.recall, quality.n_masks, quality.n_objects) == (0, 0, 0, 0)


def test_random_maps_agree_with_a_loop_over_masks() -> None:
    generator = np.random.default_rng(5)
    for _ in range(20):
        truth = random_map(generator, void_share=0.0)
        instance = np.roll(truth.instance_map, 1, axis=0)
        table = intersect("a", masks(instance), truth)
        hits = [
            inter / union
            for number in np.unique(instance[instance > 0])
            for other in np.unique(truth.instance_map[truth.instance_map > 0])
            if (inter := ((instance == number) & (truth.instance_map == other)).sum())
            / (union := ((instance == number) | (truth.instance_map == other)).sum())
            > 0.5
        ]
        quality = instance_quality(table, objects_of(table))
        assert quality.n_hits == len(hits)
        assert quality.n_masks == len(np.unique(instance[instance > 0]))
        if hits:
            assert quality.mean_iou == pytest.approx(float(np.mean(hits)))
