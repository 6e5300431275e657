from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from gestalt.data.label_spaces import raw_id_table
from gestalt.errors import ConfigError
from gestalt.evaluation.intersections import (
    intersect,
    mark_groups_as_crowd,
    merge_tables,
    relabel_predictions,
)
from gestalt.evaluation.panoptic_quality import PanopticQuality, panoptic_counts, panoptic_quality
from gestalt.panoptic import VOID, PanopticMap, from_instance_ids
from tests.evaluation.maps import SHARED, needs_samples, panoptic, random_map, shifted, slow_quality

THINGS = (3, 4)
CONVENTIONS = ("void_neutral", "standard")


def score(
    prediction: PanopticMap | None, truth: PanopticMap, convention: str, n_classes: int = 5
) -> PanopticQuality:
    return panoptic_quality(intersect("a", prediction, truth), n_classes, convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_truth_against_itself_is_perfect(convention: str) -> None:
    truth = random_map(np.random.default_rng(0))
    quality = score(truth, truth, convention)
    assert quality.mean(range(5)) == {"PQ": 100, "SQ": 100, "RQ": 100, "n_classes": quality.occurs.sum()}


def test_predicted_void_is_free_only_in_the_void_neutral_convention() -> None:
    truth = panoptic([[0] * 4] * 4)
    prediction = panoptic([[0] * 4] * 3 + [[VOID] * 4])
    assert score(prediction, truth, "void_neutral").iou_sum[0] == 1.0
    assert score(prediction, truth, "standard").iou_sum[0] == 12 / 16


def test_truth_mostly_under_predicted_void_is_missed_only_in_the_standard_convention() -> None:
    truth = panoptic([[0] * 4] * 4)
    prediction = panoptic([[VOID] * 4] * 3 + [[1] * 4])
    assert score(prediction, truth, "void_neutral").false_negatives.tolist() == [0, 0, 0, 0, 0]
    assert score(prediction, truth, "standard").false_negatives.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_void_pixels_do_not_count_as_false_positives(convention: str) -> None:
    truth = panoptic([[VOID] * 4] * 3 + [[0] * 4])
    prediction = panoptic([[1] * 4] * 4)
    quality = score(prediction, truth, convention)
    assert quality.false_positives.tolist() == [0, 0, 0, 0, 0]
    assert quality.false_negatives.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_true_void_is_left_out_of_the_union(convention: str) -> None:
    truth = panoptic([[0, 0, VOID, VOID]] * 4)
    assert score(panoptic([[0] * 4] * 4), truth, convention).iou_sum[0] == 1.0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_exactly_half_is_no_match_and_not_forgiven(convention: str) -> None:
    quality = score(panoptic([[0, 0, 1, 1]]), panoptic([[0, 0, 0, 0]]), convention)
    assert quality.true_positives[0] == 0
    assert quality.false_negatives[0] == 1
    half_void = score(panoptic([[1, 1]]), panoptic([[0, VOID]]), convention)
    assert half_void.false_positives[1] == 1


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_an_image_without_prediction_misses_everything(convention: str) -> None:
    quality = score(None, panoptic([[0, 0, 3, 4]], [[0, 0, 1, 2]]), convention)
    assert quality.false_negatives.tolist() == [1, 0, 0, 1, 1]
    assert not quality.false_positives.any()


def test_stuff_of_several_pseudo_classes_merges_before_it_is_matched() -> None:
    truth = panoptic([[0, 0, 0, 0], [1, 1, 1, 1]])
    prediction = panoptic([[0, 0, 2, 2], [1, 1, 1, 1]])
    table = intersect("a", prediction, truth)
    apart = panoptic_quality(relabel_predictions(table, [0, 1, VOID], []), 2, "standard")
    merged = panoptic_quality(relabel_predictions(table, [0, 1, 0], []), 2, "standard")
    assert apart.true_positives.tolist() == [0, 1]
    assert merged.iou_sum.tolist() == [1.0, 1.0]


def test_a_hand_computed_example() -> None:
    truth = panoptic(
        [[0, 0, 0, 0], [0, 0, 0, 0], [3, 3, 3, 3], [3, 3, 3, 3]], [[0] * 4] * 2 + [[1, 1, 2, 2]] * 2
    )
    prediction = panoptic(
        [[0, 0, 0, 0], [0, 0, 0, 3], [3, 3, 3, 3], [3, 3, 4, 4]],
        [[0, 0, 0, 0], [0, 0, 0, 7], [5, 5, 7, 7], [5, 5, 6, 6]],
    )
    quality = score(prediction, truth, "standard")
    assert quality.true_positives.tolist() == [1, 0, 0, 1, 0]
    assert quality.false_positives.tolist() == [0, 0, 0, 1, 1]
    assert quality.false_negatives.tolist() == [0, 0, 0, 1, 0]
    pq, sq, rq = quality.per_class()
    assert pq == pytest.approx([87.5, 0, 0, 50, 0])
    assert sq == pytest.approx([87.5, 0, 0, 100, 0])
    assert rq == pytest.approx([100, 0, 0, 50, 0])
    assert quality.mean(range(5)) == pytest.approx({"PQ": 137.5 / 3, "SQ": 62.5, "RQ": 50, "n_classes": 3})
    summary = quality.to_dict(THINGS, ignored=[4])
    assert summary["thing"] == pytest.approx({"PQ": 50, "SQ": 100, "RQ": 50, "n_classes": 1})
    assert summary["n_classes"] == 2


def test_the_mean_over_all_classes_is_weighted_by_things_and_stuff() -> None:
    generator = np.random.default_rng(8)
    truth = random_map(generator, n_segments=30)
    summary = score(shifted(truth, generator), truth, "standard").to_dict(THINGS)
    thing, stuff = summary["thing"], summary["stuff"]
    n_classes = thing["n_classes"] + stuff["n_classes"]
    expected = (thing["n_classes"] * thing["PQ"] + stuff["n_classes"] * stuff["PQ"]) / n_classes
    assert summary["PQ"] == pytest.approx(expected)


def test_crowds_are_neither_missed_nor_matched_and_forgive_their_class() -> None:
    truth = panoptic([[3, 3, 3, 3], [4, 4, 4, 4]], [[0, 0, 0, 0], [1, 1, 1, 1]])
    prediction = panoptic([[3, 3, 3, 3], [3, 3, 3, 4]], [[1, 1, 1, 1], [2, 2, 2, 3]])
    table = intersect("a", prediction, truth)
    as_segment = panoptic_quality(table, 5, "standard")
    assert (as_segment.true_positives[3], as_segment.false_positives[3]) == (1, 1)
    as_crowd = panoptic_quality(mark_groups_as_crowd(table, THINGS), 5, "standard")
    assert (as_crowd.true_positives[3], as_crowd.false_positives[3], as_crowd.false_negatives[3]) == (0, 1, 0)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("groups_are_crowds", [False, True])
def test_random_maps_agree_with_a_slow_implementation(convention: str, groups_are_crowds: bool) -> None:
    generator = np.random.default_rng(11)
    pairs = []
    for _ in range(40):
        truth = random_map(generator)
        truth.instance_map[truth.instance_map == 5] = 0
        prediction = shifted(truth, generator) if generator.random() < 0.7 else random_map(generator)
        prediction.instance_map[~np.isin(prediction.semantic_map, THINGS)] = 0
        pairs.append((prediction, truth))
    table = merge_tables(intersect(f"{i:03}", ours, theirs) for i, (ours, theirs) in enumerate(pairs))
    table = mark_groups_as_crowd(table, THINGS) if groups_are_crowds else table
    quality = panoptic_quality(table, 5, convention)
    tp, fp, fn, iou_sum = slow_quality(
        pairs, 5, THINGS, is_standard=convention == "standard", groups_are_crowds=groups_are_crowds
    )
    assert quality.true_positives.tolist() == tp
    assert quality.false_positives.tolist() == fp
    assert quality.false_negatives.tolist() == fn
    assert quality.iou_sum == pytest.approx(iou_sum, abs=1e-12)
    assert sum(tp) > 20
    assert sum(fp) > 20


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_random_maps_agree_with_torchmetrics(convention: str) -> None:
    # That implementation leaves predicted void out of the union, so it is the void-neutral convention;
    # without predicted void both conventions are the same.
    from torchmetrics.detection import PanopticQuality as Reference

    generator = np.random.default_rng(12)
    reference = Reference(things=set(THINGS), stuffs={0, 1, 2}, allow_unknown_preds_category=True)
    tables = []
    for number in range(25):
        truth = random_map(generator)
        prediction = (
            random_map(generator, void_share=0.0) if convention == "standard" else shifted(truth, generator)
        )
        prediction.instance_map[~np.isin(prediction.semantic_map, THINGS)] = 0
        tables.append(intersect(f"{number:03}", prediction, truth))
        channels = [
            np.stack([side.semantic_map.astype(np.int64), side.instance_map.astype(np.int64)], -1)
            for side in (prediction, truth)
        ]
        reference.update(*(torch.from_numpy(channel)[None] for channel in channels))
    quality = panoptic_quality(merge_tables(tables), 5, convention)
    order = [reference.cat_id_to_continuous_id[class_id] for class_id in range(5)]
    assert quality.true_positives.tolist() == reference.true_positives[order].tolist()
    assert quality.false_positives.tolist() == reference.false_positives[order].tolist()
    assert quality.false_negatives.tolist() == reference.false_negatives[order].tolist()
    assert quality.mean(range(5))["PQ"] == pytest.approx(
        100 * float(reference.compute()), abs=1e-5
    )  # float32 there


def test_the_bdd_convention_keeps_true_void_in_the_union() -> None:
    truth, prediction = panoptic([[0, 0, 0, VOID]]), panoptic([[0, 0, 0, 0]])
    assert score(prediction, truth, "bdd100k").iou_sum[0] == 0.75
    assert score(panoptic([[1]]), panoptic([[VOID]]), "bdd100k").false_positives[1] == 0


def test_the_mean_over_no_class_is_what_the_caller_says() -> None:
    table = intersect("a", panoptic([[0]]), panoptic([[0]]))
    quality = panoptic_quality(table, 2)
    assert quality.means([1])[0] == 0
    assert np.isnan(quality.means([1], np.nan)).all()
    assert quality.means([0, 1], np.nan)[0] == 100
    assert quality.mean([1])["n_classes"] == 0


def test_an_unknown_convention_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"one of void_neutral, standard, bdd100k. Got: 'official'"):
        score(panoptic([[0]]), panoptic([[0]]), "official")


@needs_samples
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_real_cityscapes_truth_against_itself_is_perfect(convention: str) -> None:
    path = SHARED / "cityscapes/gtFine/train/aachen/aachen_000004_000019_gtFine_instanceIds.png"
    raw = from_instance_ids(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    truth = PanopticMap(raw_id_table("cityscapes", "cityscapes19")[raw.semantic_map], raw.instance_map)
    quality = score(truth, truth, convention, 19)
    assert quality.mean(range(19))["PQ"] == 100
    assert quality.true_positives[11] == 7
    assert quality.true_positives[13] >= 15


def read_bdd(path: str) -> PanopticMap:
    blue, green, red, alpha = cv2.split(cv2.imread(str(SHARED / path), cv2.IMREAD_UNCHANGED))
    assert green is not None
    semantic = np.where(red == 0, VOID, red).astype(np.uint8)
    number = blue.astype(np.uint16) * 256 + alpha
    return PanopticMap(semantic, np.where(red >= 31, number, 0).astype(np.uint16))


@needs_samples
def test_bdd_sample_gives_the_published_numbers() -> None:
    table = merge_tables(
        intersect(
            name,
            read_bdd(f"bdd100k_results/pan_seg/{name}.png"),
            read_bdd(f"bdd100k/labels/pan_seg/bitmasks/val/{name}.png"),
        )
        for name in ("a", "b")
    )
    summary = panoptic_quality(table, 41, "bdd100k").to_dict(range(31, 41))
    expected = {
        "all": (66.46278879162743, 68.35183709387516, 85.29411764705883, 17),
        "stuff": (64.38602380902118, 66.52694521823528, 83.33333333333333, 15),
        "thing": (82.03852616117427, 82.03852616117427, 100.0, 2),
    }
    for group, values in expected.items():
        found = summary if group == "all" else summary[group]
        assert [found[key] for key in ("PQ", "SQ", "RQ", "n_classes")] == pytest.approx(values, abs=1e-4)


@needs_samples
def test_bdd_sample_gives_the_published_counts_per_class() -> None:
    table = intersect(
        "a",
        read_bdd("bdd100k_results/pan_seg/a.png"),
        read_bdd("bdd100k/labels/pan_seg/bitmasks/val/a.png"),
    )
    quality = panoptic_quality(table, 41, "bdd100k")
    # Category: true positives, false positives, false negatives, sum of IoU.
    expected = {
        1: (1, 0, 0, 0.7708830548926014),
        4: (1, 0, 0, 0.6422764227642277),
        7: (1, 0, 0, 0.9655321433716164),
        10: (1, 0, 0, 0.9411398791833123),
        13: (1, 0, 0, 0.5244956772334294),
        16: (1, 0, 0, 0.5889328063241107),
        17: (1, 0, 0, 0.6939252336448598),
        20: (0, 1, 1, 0),
        22: (0, 1, 1, 0),
        26: (1, 0, 0, 0.5384615384615384),
        27: (1, 0, 0, 0.5962732919254659),
        28: (1, 0, 0, 0.9368572838007058),
        29: (1, 0, 0, 0.9642794268243999),
        30: (1, 0, 0, 0.9662389555811991),
        34: (1, 0, 0, 0.8457497612225406),
        35: (4, 0, 0, 3.18008304800378),
    }
    assert np.flatnonzero(quality.occurs).tolist() == list(expected)
    for category, (tp, fp, fn, iou_sum) in expected.items():
        found = quality.true_positives, quality.false_positives, quality.false_negatives
        assert [counts[category] for counts in found] == [tp, fp, fn]
        assert quality.iou_sum[category] == pytest.approx(iou_sum, abs=1e-12)


@needs_samples
def test_deeplab2_sample_gives_the_published_numbers() -> None:
    folder = SHARED / "deeplab2_pq"
    values = cv2.imread(str(folder / "team_gt_instance.png"), cv2.IMREAD_GRAYSCALE)
    colours = cv2.imread(str(folder / "team_pred_class.png"), cv2.IMREAD_COLOR)
    instances = cv2.imread(str(folder / "team_pred_instance.png"), cv2.IMREAD_GRAYSCALE)
    class_of = np.full(256, VOID, np.uint8)
    class_of[[47, 97, 133, 150, 174, 215, 244, 255]] = 1
    class_of[198] = 2
    truth = PanopticMap(class_of[values], values.astype(np.uint16))
    semantic = np.full(values.shape, VOID, np.uint8)
    semantic[colours[..., 0] > 0], semantic[colours[..., 2] > 0] = 1, 2
    prediction = PanopticMap(semantic, instances.astype(np.uint16))
    quality = score(prediction, truth, "standard", 3)
    found = quality.mean([1, 2])
    assert found["PQ"] == pytest.approx(62.156284, abs=1e-4)
    assert found["SQ"] == pytest.approx(64.664984, abs=1e-4)
    assert found["RQ"] == pytest.approx(96.66667, abs=1e-4)
    assert quality.true_positives[1:].mean() == 4
    assert quality.false_negatives[1:].mean() == 0.5
    assert quality.false_positives[1:].mean() == 0


@needs_samples
def test_cityscapes_group_regions_are_counted_as_crowds_or_segments() -> None:
    counts = json.loads((SHARED / "cityscapes/expected_counts.json").read_text())
    name = "cityscapes/gtFine/train/aachen/aachen_000004_000019_gtFine_instanceIds.png"
    raw = from_instance_ids(cv2.imread(str(SHARED / name), cv2.IMREAD_UNCHANGED))
    truth = PanopticMap(raw_id_table("cityscapes", "cityscapes19")[raw.semantic_map], raw.instance_map)
    table = mark_groups_as_crowd(intersect("a", truth, truth), range(11, 19))
    expected = sum(entry["crowd_pixels"] for entry in counts[name].values() if entry["train_id"] >= 11)
    assert table.n_pixels[table.is_crowd].sum() == expected > 0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_counts_of_images_add_up_and_resamples_count_images_as_often_as_drawn(convention: str) -> None:
    generator = np.random.default_rng(5)
    truths = [random_map(generator) for _ in range(6)]
    tables = [intersect(str(n), shifted(truth, generator), truth) for n, truth in enumerate(truths)]
    counts = panoptic_counts(merge_tables(tables), 5, convention)
    whole = panoptic_quality(merge_tables(tables), 5, convention)
    assert whole.mean(range(5)) == counts.total().mean(range(5))
    weights = generator.integers(0, 3, (4, 6))
    resampled = counts.total(weights)
    for row, drawn in enumerate(weights):
        parts = [panoptic_quality(tables[n], 5, convention) for n in np.repeat(np.arange(6), drawn)]
        for name in ("true_positives", "false_positives", "false_negatives", "iou_sum"):
            expected = np.sum([getattr(part, name) for part in parts], axis=0)
            assert np.allclose(getattr(resampled, name)[row], expected)
    singles = counts.of_images().means(range(5))[0]
    assert np.allclose(
        singles, [panoptic_quality(table, 5, convention).mean(range(5))["PQ"] for table in tables]
    )
