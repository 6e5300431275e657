from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt.data.ground_truth import find_ground_truth
from gestalt.data.label_spaces import load_label_space
from gestalt.errors import DataError
from gestalt.evaluation.bootstrap import Interval, interval, resamples
from gestalt.evaluation.comparison import (
    METRICS,
    Comparison,
    Result,
    compare_predictions,
    matched_map,
    right_pixels,
    seed_spreads,
    worst_images,
)
from gestalt.evaluation.evaluate import evaluate_table
from gestalt.evaluation.intersections import intersect, merge_tables
from gestalt.evaluation.predicted_side import PredictedSide, shard_predicted
from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.truth_side import frame_truth
from gestalt.panoptic import VOID, PanopticMap, Vocabulary
from tests.evaluation.maps import maps_of, panoptic, random_map, shifted, write_cityscapes_truth, write_maps

PROTOCOL = dataclasses.replace(load_protocol("cityscapes19"), image_size=None, n_images=None)
SPACE = load_label_space("cityscapes19")
NO_TRUTH = frame_truth([], PROTOCOL, "cityscapes")
# Classes of the random maps 0..4 (3 and 4 are things) -> raw ids of Cityscapes: road, building, sky, person, car.
RAW_IDS = np.array([7, 11, 23, 24, 26])
CLASSES = (0, 2, 10, 11, 13)


def truth_of(truth: PanopticMap) -> Any:
    raw = np.where(truth.semantic_map == VOID, 0, RAW_IDS[np.minimum(truth.semantic_map, 4)])
    return np.where(truth.instance_map > 0, raw.astype(int) * 1000 + truth.instance_map, raw)


@pytest.fixture
def sides() -> tuple[dict[str, PanopticMap], dict[str, PanopticMap], dict[str, PanopticMap]]:
    """Truth, a fair and a poorer prediction of six images."""
    generator = np.random.default_rng(3)
    truth = {f"city_0_{number}": random_map(generator) for number in range(6)}
    fair = {name: shifted(side, generator) for name, side in truth.items()}
    poor = {name: shifted(shifted(side, generator), generator) for name, side in truth.items()}
    return truth, fair, poor


def stored(folder: Path, maps: dict[str, PanopticMap], **options: Any) -> PredictedSide:
    write_maps(folder, {name: maps_of(side) for name, side in maps.items()})
    return dataclasses.replace(shard_predicted(folder, Vocabulary((3, 4), (0, 1, 2))), **options)


def compare(
    folder: Path, truth: dict[str, PanopticMap], *, recorded: Any = None, **contestants: Any
) -> Comparison:
    write_cityscapes_truth(folder / "truth", {name: truth_of(side) for name, side in truth.items()})
    return compare_predictions(
        "streets",
        contestants,
        recorded or {},
        frame_truth(find_ground_truth(folder / "truth"), PROTOCOL, "cityscapes"),
        order=[*contestants, *(recorded or {})],
    )


def test_a_renumbered_prediction_differs_by_nothing(tmp_path: Path, sides: Any) -> None:
    truth, fair, _ = sides
    order = np.array([2, 0, 1, 4, 3] + [VOID] * 251, np.uint8)
    renumbered = {
        name: PanopticMap(order[side.semantic_map], side.instance_map) for name, side in fair.items()
    }
    result = compare(
        tmp_path, truth, one=stored(tmp_path / "a/1", fair), two=stored(tmp_path / "b/1", renumbered)
    )
    assert result.reference == "one"
    for convention in PROTOCOL.conventions:
        for metric in METRICS:
            difference = result.results["two"].differences[convention][metric]
            assert difference == Interval(0.0, 0.0, 0.0)
            assert not difference.excludes_zero
    assert not result.results["one"].differences
    np.testing.assert_array_equal(result.image_differences()["two"], 0)


def test_differences_are_drawn_over_the_same_images_for_both_sides(tmp_path: Path, sides: Any) -> None:
    """Against evaluating every drawn set of images from its maps, image by image."""
    truth, fair, poor = sides
    result = compare(
        tmp_path,
        truth,
        fair=stored(tmp_path / "a/1", fair, classes=CLASSES),
        poor=stored(tmp_path / "b/1", poor, classes=CLASSES),
    )
    names = sorted(truth)
    assert list(result.image_ids) == names

    def quality(side: dict[str, PanopticMap], counts: Any) -> dict[str, float]:
        tables = []
        for name, count in zip(names, counts):
            semantic = truth[name].semantic_map
            true = PanopticMap(
                np.where(semantic == VOID, VOID, np.array(CLASSES)[np.minimum(semantic, 4)]).astype(np.uint8),
                truth[name].instance_map,
            )
            tables += [intersect(f"{name}-{copy}", side[name], true) for copy in range(count)]
        found = evaluate_table(
            merge_tables(tables), PROTOCOL, things=(3, 4), stuff=(0, 1, 2), classes=CLASSES
        )
        return found.headline()

    draws = resamples(len(names), 1000)[:12]
    ours = result.results["poor"].evaluation, result.results["fair"].evaluation
    for metric in METRICS:
        slow = [quality(poor, counts)[metric] - quality(fair, counts)[metric] for counts in draws]
        fast = [
            float(
                ours[0].numbers("void_neutral", counts)[metric]
                - ours[1].numbers("void_neutral", counts)[metric]
            )  # type: ignore[union-attr]
            for counts in draws
        ]
        np.testing.assert_allclose(fast, slow, atol=1e-9)
    weights = resamples(len(names), 1000)
    drawn = [side.numbers("void_neutral", weights)["PQ"] for side in ours]  # type: ignore[union-attr]
    value = quality(poor, [1] * 6)["PQ"] - quality(fair, [1] * 6)["PQ"]
    expected = interval(value, drawn[0] - drawn[1])
    found = result.results["poor"].differences["void_neutral"]["PQ"]
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found.value == pytest.approx(expected.value)


def test_qualities_of_classes_average_to_the_headline(tmp_path: Path, sides: Any) -> None:
    truth, fair, poor = sides
    result = compare(
        tmp_path, truth, fair=stored(tmp_path / "a/1", fair), poor=stored(tmp_path / "b/1", poor)
    )
    for side in result.results.values():
        assert np.mean(list(side.class_quality.values())) == pytest.approx(
            side.numbers["void_neutral"]["PQ"].value
        )
    mine, base = result.results["poor"], result.results["fair"]
    for place, change in mine.class_differences.items():
        assert change.value == pytest.approx(mine.class_quality[place] - base.class_quality.get(place, 0.0))


def test_recorded_numbers_stand_beside_measured_ones_without_intervals(tmp_path: Path, sides: Any) -> None:
    truth, fair, _ = sides
    recorded = {"old": {"void_neutral": dict.fromkeys(METRICS, 50.0)}}
    result = compare(tmp_path, truth, recorded=recorded, fair=stored(tmp_path / "a/1", fair))
    old = result.results["old"]
    assert old.numbers["void_neutral"]["PQ"].value == 50
    assert math.isnan(old.numbers["void_neutral"]["PQ"].low)
    measured = result.results["fair"].numbers["void_neutral"]["PQ"].value
    assert old.differences["void_neutral"]["PQ"].value == pytest.approx(50 - measured)
    assert not old.differences["void_neutral"]["PQ"].excludes_zero
    assert "old" not in result.image_differences()


def test_recorded_numbers_alone_are_compared_too() -> None:
    recorded = {name: {"standard": dict.fromkeys(METRICS, value)} for name, value in (("a", 1.0), ("b", 3.0))}
    result = compare_predictions("streets", {}, recorded, NO_TRUTH, order=["a", "b"])
    assert result.reference == "a"
    assert result.results["b"].differences["standard"]["mIoU"].value == 2
    assert worst_images(result, 4) == []


def test_nobody_is_an_error() -> None:
    with pytest.raises(DataError, match="streets: there is nothing to compare"):
        compare_predictions("streets", {}, {}, NO_TRUTH, order=["a"])


def imagined(**qualities: list[float]) -> Comparison:
    results = {
        name: Result({}, {}, image_quality=np.array(values, np.float64)) for name, values in qualities.items()
    }
    names = tuple(f"image{number}" for number in range(5))
    return Comparison("streets", PROTOCOL, SPACE, next(iter(qualities)), names, results, "")


def test_worst_images_go_from_the_greatest_loss_to_the_greatest_gain() -> None:
    comparison = imagined(base=[50, 50, 50, 50, 50], other=[40, 90, 50, 49, 60])
    assert worst_images(comparison, 4) == ["image0", "image3", "image4", "image1"]
    assert worst_images(comparison, 3) == ["image0", "image3", "image1"]
    assert worst_images(comparison, 99) == ["image0", "image3", "image2", "image4", "image1"]
    assert worst_images(comparison, 0) == []


def test_any_contestant_can_make_an_image_worth_showing() -> None:
    comparison = imagined(base=[50] * 5, one=[50, 50, 20, 50, 50], two=[50, 50, 50, 50, 80])
    assert worst_images(comparison, 2) == ["image2", "image4"]


def test_means_and_spreads_over_seeds() -> None:
    def result(value: float) -> Result:
        numbers = {"void_neutral": {metric: Interval(value, value, value) for metric in METRICS}}
        return Result(numbers, {})

    comparison = Comparison(
        "streets",
        PROTOCOL,
        SPACE,
        "a",
        (),
        {name: result(value) for name, value in (("a", 1), ("b", 2), ("c", 6))},
        PROTOCOL.label,
    )
    found = seed_spreads(comparison, ["a", "b", "c"])
    assert set(found) == {"void_neutral"}
    assert found["void_neutral"]["PQ"].mean == 3
    assert found["void_neutral"]["PQ"].deviation == pytest.approx(math.sqrt(7))
    assert found["void_neutral"]["PQ"].n_runs == 3


def test_an_object_is_right_where_its_segment_covers_more_than_half_of_the_true_one() -> None:
    truth = panoptic([[11] * 4 + [0, VOID], [13] * 4 + [0, 0]], [[1] * 4 + [0, 0], [2] * 4 + [0, 0]])
    # The person is cut in the ratio 3 : 1, the car in 2 : 2; one road pixel is called building.
    prediction = panoptic(
        [[11] * 4 + [0, 5], [13] * 4 + [2, 0]], [[7] * 3 + [8, 0, 0], [4] * 2 + [5, 5, 0, 0]]
    )
    expected = [[True] * 3 + [False, True, True], [False] * 4 + [False, True]]
    np.testing.assert_array_equal(right_pixels(prediction, truth, SPACE.thing_ids), expected)
    assert right_pixels(truth, truth, SPACE.thing_ids).all()


def test_a_matched_map_has_classes_and_instances_on_things_only(tmp_path: Path, sides: Any) -> None:
    truth, fair, _ = sides
    result = compare(tmp_path, truth, fair=stored(tmp_path / "a/1", fair, classes=CLASSES))
    evaluation = result.results["fair"].evaluation
    assert evaluation is not None
    side = fair["city_0_1"]
    matched = matched_map(side, evaluation)
    expected = np.where(side.semantic_map == VOID, VOID, np.array(CLASSES)[np.minimum(side.semantic_map, 4)])
    np.testing.assert_array_equal(matched.semantic_map, expected)
    np.testing.assert_array_equal(matched.instance_map, side.instance_map)
    all_void = matched_map(panoptic([[VOID]], [[0]]), evaluation)
    assert all_void.semantic_map.item() == VOID


def test_whose_predictions_are_of_other_images_is_named(tmp_path: Path, sides: Any) -> None:
    truth, fair, _ = sides
    strangers = {f"stranger_{name}": side for name, side in fair.items()}
    with pytest.raises(
        DataError, match=r"streets lost: none of the \d+ images with ground truth has a pred.* stranger_"
    ):
        compare(tmp_path, truth, lost=stored(tmp_path / "a/1", strangers))
    with pytest.raises(DataError, match=r"streets fair: the ground truth holds no image"):
        compare_predictions("streets", {"fair": stored(tmp_path / "b/1", fair)}, {}, NO_TRUTH, order=["fair"])
