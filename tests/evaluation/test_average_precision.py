from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.average_precision import (
    InstanceImage,
    average_precision,
    equal_scores,
    instance_image_of_masks,
    instance_images,
)
from gestalt.evaluation.intersections import IntersectionTable, intersect, merge_tables
from gestalt.panoptic import VOID, PanopticMap
from tests.evaluation.maps import panoptic, random_map, shifted

THINGS = (3, 4)
SIZE = (40, 56)


def pairs_of(seed: int, n_images: int, void_share: float = 0.1) -> dict[str, tuple[PanopticMap, PanopticMap]]:
    generator = np.random.default_rng(seed)
    truths = [random_map(generator, size=SIZE, void_share=void_share) for _ in range(n_images)]
    return {f"image {index}": (shifted(truth, generator), truth) for index, truth in enumerate(truths)}


def table_of(pairs: dict[str, tuple[PanopticMap, PanopticMap]]) -> IntersectionTable:
    return merge_tables(intersect(name, *pair) for name, pair in pairs.items())


def random_scores(table: IntersectionTable, seed: int) -> dict[tuple[str, int], float]:
    generator = np.random.default_rng(seed)
    return {key: round(float(generator.random()), 1) for key in equal_scores(table)}


def encode(mask: Any) -> dict[str, Any]:
    code: dict[str, Any] = codes.encode(np.asfortranarray(mask, np.uint8))
    return code


def official(
    pairs: dict[str, tuple[PanopticMap, PanopticMap]],
    scores: dict[tuple[str, int], float],
    *,
    classes_count: bool,
) -> tuple[float, float, float, float]:
    """AP, AP50, AP75, AR100 by the whole of pycocotools, from masks."""
    images, objects, masks = [], [], []
    categories = list(THINGS) if classes_count else [1]
    for number, (name, (prediction, truth)) in enumerate(pairs.items(), start=1):
        images.append({"id": number, "height": SIZE[0], "width": SIZE[1]})
        regions = [((truth.semantic_map == VOID), category, 1) for category in categories]
        for class_id in THINGS:
            inside = truth.semantic_map == class_id
            for instance in np.unique(truth.instance_map[inside]):
                own = inside & (truth.instance_map == instance)
                regions.append((own, class_id if classes_count else 1, int(instance == 0)))
        for own, category, crowd in regions:
            if own.any():
                objects.append(
                    {"id": len(objects) + 1, "image_id": number, "category_id": category, "iscrowd": crowd}
                    | {"segmentation": encode(own), "area": int(own.sum()), "bbox": [0, 0, 1, 1]}
                )
        for class_id in np.unique(prediction.semantic_map[prediction.semantic_map != VOID]):
            inside = prediction.semantic_map == class_id
            if classes_count and class_id not in THINGS:
                continue
            for instance in np.unique(prediction.instance_map[inside]):
                if instance:
                    own = inside & (prediction.instance_map == instance)
                    masks.append(
                        {"image_id": number, "category_id": int(class_id) if classes_count else 1}
                        | {"segmentation": encode(own), "score": scores[name, int(instance)]}
                    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {
            "images": images,
            "annotations": objects,
            "categories": [{"id": category} for category in categories],
            "info": {},
        }
        truth_set.createIndex()
        judge = COCOeval(truth_set, truth_set.loadRes(masks), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0] * 100, judge.stats[1] * 100, judge.stats[2] * 100, judge.stats[8] * 100


@pytest.mark.parametrize("classes_count", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_the_official_evaluation_from_masks(seed: int, classes_count: bool) -> None:
    pairs = pairs_of(seed, 6)
    table = table_of(pairs)
    scores = random_scores(table, seed)
    ours = average_precision(
        instance_images(table, scores, thing_classes=THINGS, class_of=range(5) if classes_count else None)
    )
    assert 0 < ours.AP < 100
    assert ours.AP <= ours.AP50
    assert tuple(ours.headline().values()) == pytest.approx(
        official(pairs, scores, classes_count=classes_count), abs=1e-9
    )


def objects_of_one_row(scores: list[float]) -> tuple[IntersectionTable, dict[tuple[str, int], float]]:
    """Objects of 10 px: mask 1 hits one with IoU 8/10, mask 2 hits none, mask 3 hits the other exactly."""
    truth = panoptic([[3] * 20 + [0] * 20], [[1] * 10 + [2] * 10 + [0] * 20])
    prediction = panoptic(
        [[3] * 8 + [VOID] * 2 + [3] * 20 + [0] * 10],
        [[1] * 8 + [0] * 2 + [3] * 10 + [2] * 10 + [0] * 10],
    )
    table = intersect("a", prediction, truth)
    return table, {("a", number): score for number, score in zip((1, 2, 3), scores, strict=True)}


def test_an_example_by_hand() -> None:
    table, scores = objects_of_one_row([0.7, 0.8, 0.9])
    found = average_precision(instance_images(table, scores, thing_classes=THINGS))
    # By score: hit, miss, hit up to IoU 0.8. Precision is 1 up to recall 1/2 (51 of 101 points), then 2/3.
    full, half = 51 / 101 + 50 / 101 * 2 / 3, 51 / 101
    assert pytest.approx(100 * full) == found.AP50
    assert pytest.approx(100 * full) == found.AP75
    assert pytest.approx(100 * (7 * full + 3 * half) / 10) == found.AP
    assert pytest.approx(100 * (7 + 3 * 0.5) / 10) == found.AR100
    assert (found.n_masks, found.n_objects, found.n_images, found.has_ranking) == (3, 2, 1, True)
    assert found.per_class == {0: pytest.approx(found.AP)}


def test_the_miss_hurts_most_with_the_highest_score_and_recall_does_not_care() -> None:
    results = []
    for scores in ([0.7, 0.8, 0.9], [0.7, 0.9, 0.8], [0.9, 0.1, 0.8]):
        table, named = objects_of_one_row(scores)
        results.append(average_precision(instance_images(table, named, thing_classes=THINGS)))
    first, worst, best = results
    assert worst.AP50 < first.AP50 < best.AP50 == pytest.approx(100)
    assert first.AR100 == worst.AR100 == best.AR100


def test_masks_in_void_in_groups_and_on_small_objects_count_for_nothing() -> None:
    truth = panoptic(
        [[3] * 10 + [VOID] * 10 + [3] * 10 + [4] * 4 + [0] * 6],
        [[1] * 10 + [0] * 20 + [2] * 4 + [0] * 6],
    )
    names = np.array([[1] * 10 + [2] * 10 + [5] * 5 + [6] * 5 + [7] * 4 + [0] * 6])
    table = intersect("a", panoptic(np.where(names > 0, 3, VOID), names), truth)
    scores = {("a", 1): 0.1} | {("a", number): 0.9 for number in (2, 5, 6, 7)}
    found = average_precision(instance_images(table, scores, thing_classes=THINGS, min_area_px=5))
    assert (found.AP, found.n_objects, found.n_masks) == (pytest.approx(100), 1, 5)
    # Without the limit the small object is found too; where classes count, mask 7 has the wrong one and is ignored
    # by nobody.
    assert average_precision(instance_images(table, scores, thing_classes=THINGS)).n_objects == 2
    classes = average_precision(instance_images(table, scores, thing_classes=THINGS, class_of=range(5)))
    assert classes.per_class[3] == pytest.approx(50)
    assert classes.per_class[4] == 0


def test_objects_that_are_not_wanted_are_background() -> None:
    table, scores = objects_of_one_row([0.7, 0.8, 0.9])
    is_target = table.true_instance == 1
    found = average_precision(instance_images(table, scores, thing_classes=THINGS, is_target=is_target))
    assert (found.n_objects, found.AP50) == (1, pytest.approx(100 / 3))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_truth_itself_has_a_hundred_and_order_does_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truths = {str(index): random_map(generator) for index in range(3)}
    table = merge_tables(intersect(name, truth, truth) for name, truth in truths.items())
    images = list(instance_images(table, random_scores(table, seed), thing_classes=THINGS, class_of=range(5)))
    found = average_precision(images)
    assert found.n_objects == 0 or tuple(found.headline().values()) == pytest.approx((100, 100, 100, 100))
    assert average_precision(images[::-1]).headline() == pytest.approx(found.headline(), nan_ok=True)


def test_workers_may_hand_images_back_in_any_order_even_with_ties() -> None:
    pairs = pairs_of(3, 6)
    table = table_of(pairs)
    scores = equal_scores(table)
    whole = average_precision(instance_images(table, scores, thing_classes=THINGS))
    parts = [
        image
        for name in sorted(pairs, reverse=True)
        for image in instance_images(intersect(name, *pairs[name]), scores, thing_classes=THINGS)
    ]
    assert average_precision(parts) == whole
    assert not whole.has_ranking


def test_images_without_masks_and_without_objects() -> None:
    truth = panoptic([[3, 3]], [[1, 1]])
    missed = average_precision(instance_images(intersect("a", None, truth), {}, thing_classes=THINGS))
    assert (missed.AP, missed.AR100, missed.n_objects) == (0, 0, 1)
    empty = average_precision(
        instance_images(intersect("a", None, panoptic([[0]])), {}, thing_classes=THINGS)
    )
    assert math.isnan(empty.AP)
    assert empty.to_dict()["AP"] is None


def test_what_cannot_be_measured_is_refused() -> None:
    table, scores = objects_of_one_row([0.7, 0.8, 0.9])
    with pytest.raises(DataError, match=r"1 of 3 masks have no score, such as 3 of a; average precision"):
        list(instance_images(table, {key: scores[key] for key in list(scores)[:2]}, thing_classes=THINGS))
    with pytest.raises(DataError, match=r"scores must be finite numbers. Got: nan for mask 1 of a"):
        list(instance_images(table, scores | {("a", 1): math.nan}, thing_classes=THINGS))
    images = list(instance_images(table, scores, thing_classes=THINGS))
    with pytest.raises(DataError, match=r"images occur twice .* such as a"):
        average_precision(images * 2)
    with pytest.raises(DataError, match="there is no image to evaluate"):
        average_precision([])
    square, wide = encode(np.ones((4, 4))), encode(np.ones((4, 5)))
    with pytest.raises(ShapeError, match=r"one size \(H, W\). Got: \[\(4, 4\), \(4, 5\)\]"):
        instance_image_of_masks("a", [square], [1.0], [wide])
    with pytest.raises(DataError, match=r"a: scores must be finite numbers. Got: nan"):
        instance_image_of_masks("a", [square], [math.nan], [square])
    with pytest.raises(ShapeError, match=r"a: scores must have the shape \(1,\). Got: \(2,\)"):
        instance_image_of_masks("a", [square], [1.0, 0.5], [square])
    none = np.zeros(0)
    with pytest.raises(ShapeError, match=r"overlap must be \(masks, objects\) = \(0, 0\). Got: \(2, 2\)"):
        InstanceImage("a", none, none.astype(int), none.astype(int), none > 0, none > 0, np.ones((2, 2)))
