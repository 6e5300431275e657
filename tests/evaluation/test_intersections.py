from __future__ import annotations

import itertools
from dataclasses import fields

import numpy as np
import pytest

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.intersections import (
    NO_PREDICTION,
    IntersectionTable,
    count_tuples,
    intersect,
    mark_groups_as_crowd,
    merge_tables,
    predicted_segments,
    relabel_predictions,
    true_segments,
    void_predictions_without_instance,
    void_small_objects,
)
from gestalt.panoptic import VOID
from tests.evaluation.maps import panoptic, random_map


def rows(table: IntersectionTable) -> list[tuple[int, ...]]:
    columns = (
        table.image,
        table.predicted_class,
        table.predicted_instance,
        table.true_class,
        table.true_instance,
        table.n_pixels,
    )
    return sorted(zip(*(column.tolist() for column in columns)))


def equal(first: IntersectionTable, second: IntersectionTable) -> bool:
    return first.image_ids == second.image_ids and all(
        np.array_equal(getattr(first, field.name), getattr(second, field.name))
        for field in fields(IntersectionTable)[1:]
    )


def test_a_hand_made_image_gives_a_row_per_pair_of_segments() -> None:
    truth = panoptic([[0, 0, 1, 1], [0, 0, 1, 255]], [[0, 0, 1, 1], [0, 0, 2, 0]])
    prediction = panoptic([[7, 7, 3, 3], [7, 255, 3, 3]], [[0, 0, 5, 5], [0, 0, 5, 5]])
    table = intersect("a", prediction, truth)
    assert rows(table) == sorted(
        [
            (0, 7, 0, 0, 0, 3),
            (0, VOID, 0, 0, 0, 1),
            (0, 3, 5, 1, 1, 2),
            (0, 3, 5, 1, 2, 1),
            (0, 3, 5, VOID, 0, 1),
        ]
    )


def test_counts_equal_those_of_numpy_on_random_maps() -> None:
    generator = np.random.default_rng(1)
    for size in ((1, 1), (1, 17), (13, 1), (20, 30)):
        first = generator.integers(0, 4, size).astype(np.uint8)
        second = generator.integers(0, 60000, size).astype(np.uint16)
        second[generator.random(size) < 0.8] = 7
        (a, b), counts = count_tuples(first, second)
        expected, expected_counts = np.unique(
            np.stack([first.ravel(), second.ravel()], 1).astype(int), axis=0, return_counts=True
        )
        assert np.array_equal(np.stack([a, b], 1), expected)
        assert np.array_equal(counts, expected_counts)


def test_rows_of_an_image_hold_every_pixel_once() -> None:
    generator = np.random.default_rng(2)
    table = intersect("a", random_map(generator), random_map(generator))
    assert table.n_pixels.sum() == 24 * 32
    assert predicted_segments(table).area.sum() == true_segments(table).area.sum() == 24 * 32


def test_segment_areas_are_the_areas_of_their_masks() -> None:
    generator = np.random.default_rng(3)
    truth = random_map(generator)
    segments = true_segments(intersect("a", random_map(generator), truth))
    for class_id, instance, area in zip(segments.class_id, segments.instance, segments.area):
        inside = (truth.semantic_map == class_id) & (truth.instance_map == instance)
        assert area == inside.sum()


def test_void_loses_its_instances_on_both_sides() -> None:
    truth = panoptic([[VOID, VOID]], [[1, 2]])
    prediction = panoptic([[VOID, VOID]], [[3, 4]])
    assert rows(intersect("a", prediction, truth)) == [(0, VOID, 0, VOID, 0, 2)]


def test_tables_merge_to_the_same_bytes_in_any_order_and_grouping() -> None:
    generator = np.random.default_rng(4)
    tables = [intersect(name, random_map(generator), random_map(generator)) for name in ("c", "a", "d", "b")]
    expected = merge_tables(tables)
    assert expected.image_ids == ("a", "b", "c", "d")
    for order in itertools.permutations(tables):
        assert equal(merge_tables(order), expected)
        assert equal(merge_tables([merge_tables(order[:2]), merge_tables(order[2:])]), expected)


def test_an_image_that_occurs_twice_is_refused() -> None:
    table = intersect("same", panoptic([[0]]), panoptic([[0]]))
    with pytest.raises(DataError, match=r"1 images occur twice.*same"):
        merge_tables([table, table])


def test_an_empty_benchmark_is_refused() -> None:
    with pytest.raises(DataError, match="ground truth is empty"):
        merge_tables([])


def test_sizes_that_differ_are_named_and_nothing_is_resized() -> None:
    with pytest.raises(ShapeError, match=r"frame7.*prediction \(1, 2\), ground truth \(2, 2\)"):
        intersect("frame7", panoptic([[0, 0]]), panoptic([[0, 0], [0, 0]]))


def test_an_image_without_prediction_is_not_void() -> None:
    table = intersect("a", None, panoptic([[0, 1]]))
    assert set(table.predicted_class.tolist()) == {NO_PREDICTION}


def test_stuff_of_one_class_merges_and_things_stay_apart() -> None:
    truth = panoptic([[0, 0, 0, 1, 1]], [[0, 0, 0, 1, 1]])
    prediction = panoptic([[2, 3, 3, 4, 5]], [[0, 0, 0, 1, 1]])
    table = relabel_predictions(intersect("a", prediction, truth), [VOID, VOID, 0, 0, 1, 1], [1])
    segments = predicted_segments(table)
    assert sorted(zip(segments.class_id.tolist(), segments.area.tolist())) == [(0, 3), (1, 1), (1, 1)]


def test_small_true_objects_become_void_and_small_stuff_stays() -> None:
    truth = panoptic([[0, 1, 1, 1, 1, 1]], [[0, 1, 1, 1, 2, 2]])
    table = void_small_objects(intersect("a", truth, truth), [1], 3)
    segments = true_segments(table)
    assert list(zip(segments.class_id.tolist(), segments.instance.tolist(), segments.area.tolist())) == [
        (0, 0, 1),
        (1, 1, 3),
        (VOID, 0, 2),
    ]


def test_only_thing_regions_without_instance_become_crowds() -> None:
    truth = panoptic([[0, 1, 1]], [[0, 0, 1]])
    table = mark_groups_as_crowd(intersect("a", truth, truth), [1])
    assert table.is_crowd.tolist() == [
        class_id == 1 and instance == 0 for class_id, instance in zip(table.true_class, table.true_instance)
    ]
    assert table.is_crowd.sum() == 1


def test_loose_thing_pixels_become_void_and_stuff_stays() -> None:
    prediction = panoptic([[0, 1, 1]], [[0, 0, 1]])
    table = void_predictions_without_instance(intersect("a", prediction, panoptic([[0, 0, 0]])), [1])
    assert sorted(table.predicted_class.tolist()) == [0, 1, VOID]
