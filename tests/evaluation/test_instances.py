from __future__ import annotations

import numpy as np
import pytest

from gestalt.evaluation.instances import instance_quality, judge_masks, true_objects
from gestalt.evaluation.intersections import IntersectionTable, intersect, mark_groups_as_crowd, merge_tables
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


def test_every_mask_is_judged_and_named() -> None:
    truth = panoptic([[3] * 6 + [0] * 4 + [VOID] * 4], [[1, 1, 1, 2, 2, 2] + [0] * 8])
    table = intersect(
        "a", panoptic([[0] * 14], [[9] * 3 + [4] * 2 + [0] * 2 + [7] * 2 + [0] + [5] * 4]), truth
    )
    judged = judge_masks(table, true_objects(table, [3]))
    assert judged.instance.tolist() == [4, 5, 7, 9]
    assert judged.is_hit.tolist() == [True, False, False, True]
    assert judged.iou.tolist() == pytest.approx([2 / 3, 0, 0, 1])
    # What lies in void is neither right nor wrong.
    assert judged.counts.tolist() == [True, False, True, True]
    assert judged.n_objects == 2
    assert judged.quality() == instance_quality(table, true_objects(table, [3]))
    assert judged.scores(
        {("a", 4): 0.1, ("a", 5): 0.2, ("a", 7): 0.3, ("a", 9): 0.4, ("b", 1): 1}
    ).tolist() == [
        0.1,
        0.2,
        0.3,
        0.4,
    ]


def test_with_classes_a_mask_must_be_of_the_class_of_its_object() -> None:
    truth = panoptic([[3, 3, 4, 4]], [[1, 1, 2, 2]])
    table = intersect("a", panoptic([[0, 0, 0, 0]], [[1, 1, 2, 2]]), truth)
    objects = true_objects(table, [3, 4])
    assert judge_masks(table, objects).is_hit.tolist() == [True, True]
    assert judge_masks(table, objects, class_of=[3]).is_hit.tolist() == [True, False]
    assert judge_masks(table, objects, class_of=[VOID]).is_hit.tolist() == [False, False]


def test_crowds_are_no_objects_and_masks_in_them_do_not_count() -> None:
    truth = panoptic([[3, 3, 3, 0]], [[0, 0, 0, 0]])
    table = mark_groups_as_crowd(intersect("a", panoptic([[0] * 4], [[1, 1, 2, 2]]), truth), [3])
    judged = judge_masks(table, true_objects(table, [3]))
    assert judged.n_objects == 0
    # Half of mask 2 lies in the crowd, which is not more than half.
    assert judged.counts.tolist() == [False, True]
