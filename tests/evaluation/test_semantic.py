from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from gestalt.evaluation.intersections import intersect, merge_tables
from gestalt.evaluation.matching import Assignment, confusion_matrix, match_pseudo_classes
from gestalt.evaluation.semantic import semantic_counts, semantic_quality
from gestalt.panoptic import VOID
from tests.evaluation.maps import panoptic, random_map


def identity(n_classes: int) -> Assignment:
    return Assignment(tuple(range(n_classes)), ("hungarian",) * n_classes, (1,) * n_classes)


def test_a_hand_computed_example_leaves_void_out() -> None:
    truth = panoptic([[0, 0, 0, 1, 1, VOID]])
    prediction = panoptic([[0, 0, 1, 1, VOID, 0]])
    quality = semantic_quality(intersect("a", prediction, truth), identity(3), 3)
    assert quality.iou[:2] == pytest.approx([200 / 3, 50])
    assert np.isnan(quality.iou[2])
    assert quality.mean_iou == pytest.approx((200 / 3 + 50) / 2)
    assert quality.pixel_accuracy == pytest.approx(75)


def test_random_maps_agree_with_torchmetrics() -> None:
    import torch
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    generator = np.random.default_rng(3)
    prediction, truth = random_map(generator, void_share=0.0), random_map(generator)
    quality = semantic_quality(intersect("a", prediction, truth), identity(5), 5)
    images = [torch.from_numpy(side.semantic_map.astype(np.int64)) for side in (prediction, truth)]
    per_class = MulticlassJaccardIndex(5, average="none", ignore_index=VOID)(*images)
    assert np.nan_to_num(quality.iou) == pytest.approx(100 * per_class.numpy(), abs=1e-4)
    accuracy = MulticlassAccuracy(5, average="micro", ignore_index=VOID)(*images)
    assert quality.pixel_accuracy == pytest.approx(100 * float(accuracy), abs=1e-4)


def test_permuting_pseudo_classes_changes_nothing() -> None:
    generator = np.random.default_rng(4)
    truth, prediction = random_map(generator), random_map(generator, n_classes=8)
    order = np.append(generator.permutation(8), np.arange(8, 256)).astype(np.uint8)
    moved = panoptic(order[prediction.semantic_map], prediction.instance_map)
    results = []
    for side in (prediction, moved):
        table = intersect("a", side, truth)
        assignment = match_pseudo_classes(confusion_matrix(table, 8, 5), [(range(8), range(5))])
        results.append(semantic_quality(table, assignment, 5))
    assert results[0].mean_iou == results[1].mean_iou > 0
    assert results[0].pixel_accuracy == results[1].pixel_accuracy


def test_pixels_without_prediction_or_class_are_wrong() -> None:
    truth = panoptic([[0, 0, 1, 1]])
    table = merge_tables([intersect("a", panoptic([[0, 0, 1, 1]]), truth), intersect("b", None, truth)])
    quality = semantic_quality(table, identity(2), 2)
    assert quality.pixel_accuracy == 50
    assert quality.mean_iou == 50
    unmatched = Assignment((0, VOID), ("hungarian", "none"), (2, 0))
    assert semantic_quality(intersect("a", truth, truth), unmatched, 2).pixel_accuracy == 50


def test_ignored_classes_are_in_no_mean() -> None:
    truth, prediction = panoptic([[0, 0, 1, 1]]), panoptic([[0, 0, 0, 0]])
    quality = semantic_quality(intersect("a", prediction, truth), identity(2), 2, ignored=[1])
    assert quality.mean_iou == quality.pixel_accuracy == 100


def test_an_image_of_void_gives_zero_and_no_warning() -> None:
    quality = semantic_quality(intersect("a", panoptic([[0]]), panoptic([[VOID]])), identity(1), 1)
    assert (quality.mean_iou, quality.pixel_accuracy) == (0.0, 0.0)


def test_predicted_void_is_wrong_only_where_the_rules_say_so() -> None:
    truth, prediction = panoptic([[0, 0, 1, VOID]]), panoptic([[0, VOID, 1, VOID]])
    table = intersect("a", prediction, truth)
    free = semantic_counts(table, identity(2), 2).total()
    strict = semantic_counts(table, identity(2), 2, void_is_wrong=True).total()
    assert (free.mean_iou, free.pixel_accuracy) == (100.0, 100.0)
    assert strict.iou.tolist() == [50.0, 100.0]
    assert strict.pixel_accuracy == pytest.approx(200 / 3)
    # As scikit-learn has it: void is one more answer, in the union of no class but those it was missed for.
    answers = [2 if value == VOID else value for value in (0, VOID, 1)]
    assert strict.iou == pytest.approx(100 * jaccard_score([0, 0, 1], answers, labels=[0, 1], average=None))


def test_a_resample_without_a_pixel_that_counts_is_undefined() -> None:
    images = [("a", panoptic([[0]]), panoptic([[0]])), ("b", panoptic([[0]]), panoptic([[VOID]]))]
    counts = semantic_counts(merge_tables(intersect(*image) for image in images), identity(1), 1)
    quality = counts.total(np.array([[1, 1], [2, 0], [0, 2]]))
    assert quality.mean_iou == pytest.approx([100, 100, np.nan], nan_ok=True)
    assert quality.pixel_accuracy == pytest.approx([100, 100, np.nan], nan_ok=True)
