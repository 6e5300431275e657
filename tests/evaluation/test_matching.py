from __future__ import annotations

import itertools

import numpy as np
import pytest

from gestalt.data.label_spaces import load_label_space
from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.intersections import intersect, merge_tables
from gestalt.evaluation.matching import confusion_matrix, known_classes, match_pseudo_classes
from gestalt.panoptic import VOID
from tests.evaluation.maps import panoptic, random_map


def best_by_trying_all(confusion: np.ndarray) -> int:
    n_rows, n_columns = confusion.shape
    if n_rows > n_columns:
        return best_by_trying_all(confusion.T)
    return max(
        sum(int(confusion[row, column]) for row, column in enumerate(choice))
        for choice in itertools.permutations(range(n_columns), n_rows)
    )


@pytest.mark.parametrize("n_pseudo_classes", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("n_classes", [1, 3, 6])
def test_the_hungarian_method_finds_what_trying_all_finds(n_pseudo_classes: int, n_classes: int) -> None:
    generator = np.random.default_rng(10 * n_pseudo_classes + n_classes)
    for _ in range(20):
        confusion = generator.integers(0, 50, (n_pseudo_classes, n_classes))
        everything = [(range(n_pseudo_classes), range(n_classes))]
        assignment = match_pseudo_classes(confusion, everything, "void")
        assert sum(assignment.n_pixels) == best_by_trying_all(confusion)
        matched = [class_id for class_id in assignment.class_of if class_id != VOID]
        assert len(matched) == len(set(matched))


def test_left_overs_take_the_class_with_their_largest_count() -> None:
    confusion = np.array([[90, 0, 0], [40, 10, 0], [0, 80, 5], [3, 2, 60], [30, 31, 0]])
    assignment = match_pseudo_classes(confusion, [(range(5), range(3))])
    assert assignment.class_of == (0, 0, 1, 2, 1)
    assert assignment.found_by == ("hungarian", "largest", "hungarian", "hungarian", "largest")
    assert assignment.n_pixels == (90, 40, 80, 60, 31)


def test_one_to_one_leaves_left_overs_void() -> None:
    assignment = match_pseudo_classes(np.array([[9], [5]]), [(range(2), range(1))], "void")
    assert assignment.class_of == (0, VOID)
    assert assignment.found_by == ("hungarian", "none")


def test_fewer_pseudo_classes_than_classes_leave_classes_unpredicted() -> None:
    assignment = match_pseudo_classes(np.array([[1, 9, 4]]), [(range(1), range(3))])
    assert assignment.class_of == (1,)


def test_things_and_stuff_are_matched_apart() -> None:
    confusion = np.array([[1, 100], [100, 1]])
    apart = match_pseudo_classes(confusion, [([0], [0]), ([1], [1])])
    jointly = match_pseudo_classes(confusion, [([0, 1], [0, 1])])
    assert apart.class_of == (0, 1)
    assert jointly.class_of == (1, 0)


def test_a_pair_that_shares_no_pixel_is_no_match() -> None:
    # The method alone would give one of the last two to the class that never occurs.
    confusion = np.array([[50, 20, 0], [10, 70, 0], [30, 5, 0]])
    assignment = match_pseudo_classes(confusion, [(range(3), range(3))])
    assert assignment.class_of == (0, 1, 0)


def test_a_pseudo_class_without_any_pixel_takes_the_most_frequent_class() -> None:
    confusion = np.array([[5, 0], [0, 90], [0, 0]])
    assignment = match_pseudo_classes(confusion, [(range(3), range(2))])
    assert assignment.class_of == (0, 1, 1)
    assert assignment.found_by[2] == "frequent"


def test_permuting_pseudo_classes_permutes_the_assignment() -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        confusion = generator.integers(0, 1000, (7, 4)) * (generator.random((7, 4)) < 0.6)
        order = generator.permutation(7)
        blocks = [([0, 1, 2], [0, 1]), ([3, 4, 5, 6], [2, 3])]
        position = np.argsort(order)
        moved_blocks = [([int(position[k]) for k in rows], columns) for rows, columns in blocks]
        plain = match_pseudo_classes(confusion, blocks)
        moved = match_pseudo_classes(confusion[order], moved_blocks)
        assert moved.class_of == tuple(plain.class_of[k] for k in order)
        assert moved.found_by == tuple(plain.found_by[k] for k in order)


def test_the_confusion_matrix_leaves_out_void_on_both_sides_and_missing_predictions() -> None:
    table = merge_tables(
        [
            intersect("a", panoptic([[0, 0, 1, 255]]), panoptic([[0, 1, 255, 1]])),
            intersect("b", None, panoptic([[0, 1]])),
        ]
    )
    assert confusion_matrix(table, 2, 2).tolist() == [[1, 1], [0, 0]]


def test_the_confusion_matrix_counts_pixels() -> None:
    generator = np.random.default_rng(6)
    prediction, truth = random_map(generator), random_map(generator)
    confusion = confusion_matrix(intersect("a", prediction, truth), 5, 5)
    for row, column in itertools.product(range(5), range(5)):
        assert (
            confusion[row, column]
            == ((prediction.semantic_map == row) & (truth.semantic_map == column)).sum()
        )


def test_records_name_classes() -> None:
    assignment = match_pseudo_classes(np.array([[4, 0], [3, 0]]), [(range(2), range(2))], "void")
    records = assignment.to_records(load_label_space("mots2"), [1], [8, 3])
    assert [record["class"] for record in records] == ["background", "void"]
    assert [record["cluster"] for record in records] == [8, 3]
    assert [record["is_thing"] for record in records] == [False, True]


def test_an_unknown_left_over_rule_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"left_over must be one of largest, void. Got: 'nearest'"):
        match_pseudo_classes(np.zeros((1, 1), int), [([0], [0])], "nearest")  # type: ignore[arg-type]


def test_a_network_that_learnt_classes_is_matched_with_nothing() -> None:
    confusion = np.array([[1, 9], [4, 2], [0, 0]])
    assignment = known_classes(confusion, [0, 1, 1])
    assert assignment.class_of == (0, 1, 1)
    assert assignment.n_pixels == (1, 2, 0)
    assert set(assignment.found_by) == {"known"}
    with pytest.raises(DataError, match=r"each of 3 outputs needs a class 0\.\.1"):
        known_classes(confusion, [0, 1])
    with pytest.raises(DataError, match=r"Got: \[0, 1, 2\]"):
        known_classes(confusion, [0, 1, 2])
