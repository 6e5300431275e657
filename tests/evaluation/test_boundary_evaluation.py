from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gestalt.errors import DataError
from gestalt.evaluation.boundary_evaluation import BoundaryEvaluation, evaluate_boundaries
from gestalt.evaluation.evaluate import Evaluation, evaluate_table
from gestalt.evaluation.intersections import intersect, merge_tables
from gestalt.evaluation.protocols import Protocol, load_protocol
from gestalt.panoptic import VOID, PanopticMap
from tests.evaluation.maps import random_map

# Classes road, sidewalk and building as stuff, car and bicycle as things; pseudo-classes are a permutation of them.
CLASSES = (0, 1, 2, 13, 18)
PSEUDO = (4, 2, 3, 1, 0)
THINGS, STUFF = (1, 0), (2, 3, 4)
SIZE = (60, 80)

Images = list[tuple[str, PanopticMap | None, PanopticMap]]


def images(*, perfect: bool = False) -> Images:
    generator = np.random.default_rng(7)
    to_class, to_pseudo = (np.array([*table, *[VOID] * 251], np.uint8) for table in (CLASSES, PSEUDO))
    found: Images = []
    for index in range(6):
        drawn = random_map(generator, size=SIZE, void_share=0.0)
        truth = PanopticMap(to_class[drawn.semantic_map], drawn.instance_map)
        move = 0 if perfect else 1 + index % 3
        semantic, instance = (np.roll(side, move, 1) for side in (drawn.semantic_map, drawn.instance_map))
        found.append((f"image {index}", PanopticMap(to_pseudo[semantic], instance), truth))
    return found


def evaluate(pairs: Images, protocol: Protocol) -> Evaluation:
    table = merge_tables(intersect(*pair) for pair in pairs)
    return evaluate_table(table, protocol, things=THINGS, stuff=STUFF)


def both(
    protocol: Protocol, share: float = 0.02, *, perfect: bool = False
) -> tuple[Evaluation, BoundaryEvaluation]:
    pairs = images(perfect=perfect)
    evaluation = evaluate(pairs, protocol)
    return evaluation, evaluate_boundaries(pairs[::-1], evaluation, dilation_share=share)


def test_the_truth_in_pseudo_classes_has_a_hundred() -> None:
    _, found = both(load_protocol("cityscapes19_rendered_min64"), perfect=True)
    assert found.headline() == pytest.approx(dict.fromkeys(found.headline(), 100.0))


def test_with_wide_boundaries_the_numbers_are_those_of_the_evaluation() -> None:
    for name in ("cityscapes19_rendered_min64", "cityscapes19_official"):
        protocol = dataclasses.replace(
            load_protocol(name), image_size=None, min_stuff_px=90, min_object_px=40
        )
        evaluation, wide = both(protocol, share=1.0)
        for convention in protocol.conventions:
            expected, ours = evaluation.numbers(convention), wide.numbers(convention)
            assert expected["PQ"] < 100
            for number in ("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff"):
                assert float(ours[f"boundary_{number}"]) == pytest.approx(float(expected[number])), number


def test_outlines_are_worse_than_areas_and_intervals_hold_the_number() -> None:
    evaluation, found = both(load_protocol("cityscapes19_rendered_min64"))
    assert found.headline()["boundary_PQ"] < evaluation.headline()["PQ"]
    assert found.headline()["boundary_mIoU"] < evaluation.headline()["mIoU"]
    interval = found.intervals(n_samples=200)["standard"]["boundary_PQ"]
    assert interval.low <= interval.value <= interval.high
    assert found.to_dict()["standard"]["boundary_PQ"] == interval.value
    assert found.to_dict()["protocol"] == evaluation.protocol.label


def test_borders_between_pseudo_classes_of_one_class_are_none() -> None:
    # Pseudo-classes 0 and 1 are both road; split in the middle, their border is not an outline.
    semantic = np.repeat([[0] * 40 + [1] * 40], 60, axis=0).astype(np.uint8)
    semantic[:20] = 2
    truth = PanopticMap(np.where(semantic == 2, 2, 0).astype(np.uint8), np.zeros(SIZE, np.uint16))
    prediction = PanopticMap(semantic, np.zeros(SIZE, np.uint16))
    protocol = load_protocol("cityscapes19_rendered_min64")
    table = intersect("a", prediction, truth)
    evaluation = evaluate_table(table, protocol, things=(), stuff=(0, 1, 2))
    assert evaluation.assignment.class_of[0] == evaluation.assignment.class_of[1] == 0
    found = evaluate_boundaries([("a", prediction, truth)], evaluation)
    assert found.headline()["boundary_PQ"] == found.headline()["boundary_mIoU"] == 100


def test_pixels_of_things_without_an_instance_may_be_void() -> None:
    pairs = images(perfect=True)
    loose: Images = [
        (name, PanopticMap(side.semantic_map, np.zeros_like(side.instance_map)), truth)
        for name, side, truth in pairs
        if side is not None
    ]
    protocol = load_protocol("cityscapes19_rendered_min64")
    table = merge_tables(intersect(*pair) for pair in loose)
    numbers = []
    for is_void in (False, True):
        evaluation = evaluate_table(
            table, protocol, things=THINGS, stuff=STUFF, void_unseparated_things=is_void
        )
        found = evaluate_boundaries(
            loose, evaluation, dilation_share=1.0, void_unseparated_things=is_void
        ).numbers("standard")
        assert float(found["boundary_PQ"]) == pytest.approx(float(evaluation.numbers("standard")["PQ"]))
        numbers.append(float(found["boundary_PQ_thing"]))
    assert numbers[0] != numbers[1]


def test_images_must_be_those_of_the_evaluation() -> None:
    pairs = images()
    evaluation = evaluate(pairs, load_protocol("cityscapes19_rendered_min64"))
    with pytest.raises(DataError, match=r"2 are in one only, such as image 0, other"):
        evaluate_boundaries([("other", *pairs[0][1:]), *pairs[1:]], evaluation)
    with pytest.raises(DataError, match="image 0 occurs twice"):
        evaluate_boundaries([pairs[0], pairs[0]], evaluation)
    missing = [(name, None, truth) for name, _, truth in pairs]
    assert evaluate_boundaries(missing, evaluation).headline()["boundary_PQ"] == 0
