from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.adapters.bdd import read_bitmask
from gestalt.data.ground_truth import GroundTruthFrame, find_ground_truth, read_ground_truth
from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.average_precision import average_precision, instance_images
from gestalt.evaluation.boundary_evaluation import evaluate_boundaries
from gestalt.evaluation.calibration import CalibrationHistogram
from gestalt.evaluation.evaluate import Coverage, evaluate_folder, evaluate_table
from gestalt.evaluation.instances import judge_masks, true_objects
from gestalt.evaluation.intersections import intersect, merge_tables, relabel_predictions
from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.video_quality import evaluate_video
from gestalt.panoptic import VOID, PanopticMap
from stages.entry import Stage
from stages.evaluate import evaluate_benchmark
from tests.evaluation.maps import (
    SHARED,
    maps_of,
    needs_samples,
    panoptic,
    random_map,
    shifted,
    write_cityscapes_truth,
    write_maps,
)

PROTOCOL = dataclasses.replace(load_protocol("cityscapes19"), image_size=None)
# Raw ids: road 7, building 11, car 26; pseudo-classes: 0, 1 stuff, 2 thing.
TRUTH = [[7, 7, 7, 11], [26000, 26000, 26001, 26001]]
PREDICTION = panoptic([[1, 1, 1, 0], [2, 2, 2, 2]], [[0, 0, 0, 0], [4, 4, 9, 9]])


def evaluate(folder: Path, predictions: dict[str, Any], **options: Any) -> Any:
    truth = folder / "truth"
    truth.mkdir(exist_ok=True)
    write_cityscapes_truth(truth, {"city_0_0": TRUTH, "city_0_1": TRUTH})
    maps = {name: None if side is None else maps_of(side) for name, side in predictions.items()}
    return evaluate_folder(
        write_maps(folder / "predictions", maps),
        find_ground_truth(truth),
        options.pop("protocol", PROTOCOL),
        things=[2],
        stuff=[0, 1],
        label="test",
        **options,
    )


def test_a_perfect_prediction_in_other_ids_scores_hundred(tmp_path: Path) -> None:
    result = evaluate(tmp_path, {"city_0_0": PREDICTION, "city_0_1": PREDICTION}).to_dict()
    for convention in ("void_neutral", "standard"):
        assert result[convention]["PQ"] == 100
        assert result[convention]["thing"]["n_classes"] == 1
        assert result[convention]["stuff"]["n_classes"] == 2
    assert result["mIoU"] == result["pixel_accuracy"] == 100
    assert [record["class"] for record in result["assignment"]] == ["building", "road", "car"]
    assert result["protocol"] == PROTOCOL.label
    json.dumps(result, allow_nan=False)


def test_a_missing_prediction_counts_as_missed_and_is_named(tmp_path: Path) -> None:
    for predictions in ({"city_0_0": PREDICTION}, {"city_0_0": PREDICTION, "city_0_1": None}):
        evaluation = evaluate(tmp_path, predictions)
        result = evaluation.to_dict()
        assert result["coverage"]["missing"] == ["city_0_1"]
        for convention in ("void_neutral", "standard"):
            assert result[convention]["SQ"] == 100
            assert result[convention]["RQ"] == pytest.approx(100 * 2 / 3)
        assert result["pixel_accuracy"] == 50


def test_an_extra_prediction_is_named_and_counts_for_nothing(tmp_path: Path) -> None:
    sides = {"city_0_0": PREDICTION, "city_0_1": PREDICTION, "city_9_9": panoptic([[1]])}
    result = evaluate(tmp_path, sides).to_dict()
    assert result["coverage"]["extra"] == ["city_9_9"]
    assert result["void_neutral"]["PQ"] == 100


def test_predictions_of_other_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 2 images.*such as city_0_0. Got: other"):
        evaluate(tmp_path, {"other": PREDICTION})


def test_ids_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    wrong = panoptic([[1, 1, 1, 3], [2, 2, 2, VOID]])
    with pytest.raises(DataError, match=r"city_0_0: pseudo-classes must be 0..2, or 255 .*Got: 3;"):
        evaluate(tmp_path, {"city_0_0": wrong})


def test_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"city_0_0: .*prediction \(1, 1\), ground truth \(2, 4\)"):
        evaluate(tmp_path, {"city_0_0": panoptic([[1]])})


def test_a_protocol_with_a_size_refuses_ground_truth_of_another(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cityscapes19 is defined for images of \(1024, 2048\).*Got: \(2, 4\)"
    ):
        evaluate(tmp_path, {"city_0_0": PREDICTION}, protocol=load_protocol("cityscapes19"))


def test_permuting_pseudo_classes_changes_no_metric() -> None:
    generator = np.random.default_rng(1)
    truths = [random_map(generator, n_classes=19, things=range(11, 19), n_segments=40) for _ in range(6)]
    pairs = [(shifted(truth, generator, n_classes=19), truth) for truth in truths]
    things, stuff = list(range(11, 19)), list(range(11))
    order = np.append(generator.permutation(19), np.arange(19, 256)).astype(np.uint8)
    results = []
    for lookup in (np.arange(256, dtype=np.uint8), order):
        table = merge_tables(
            intersect(str(index), PanopticMap(lookup[ours.semantic_map], ours.instance_map), theirs)
            for index, (ours, theirs) in enumerate(pairs)
        )
        evaluation = evaluate_table(
            table, PROTOCOL, things=[int(lookup[k]) for k in things], stuff=[int(lookup[k]) for k in stuff]
        )
        results.append((evaluation.headline(), evaluation.to_dict()["per_class"]))
    assert results[0] == results[1]
    assert 5 < results[0][0]["PQ"] < 95


def test_permuting_pseudo_classes_changes_no_number_of_any_kind() -> None:
    """Intervals, outlines, average precision, calibration and video too, to the last digit."""
    generator = np.random.default_rng(2)
    things, stuff = list(range(11, 19)), list(range(11))
    truths = [random_map(generator, n_classes=19, things=things, n_segments=40) for _ in range(6)]
    pairs = {f"{n}": (shifted(truth, generator, n_classes=19), truth) for n, truth in enumerate(truths)}
    scores = {(name, number): (7 * number % 11) / 11 for name in pairs for number in range(41)}
    # Two pseudo-classes take the pixels of two others, so two are left without any.
    merged = np.arange(256, dtype=np.uint8)
    merged[[3, 14]] = 5, 15
    order = np.append(generator.permutation(19), np.arange(19, 256)).astype(np.uint8)
    results = []
    for lookup in (np.arange(256, dtype=np.uint8), order):
        own = {
            name: (PanopticMap(lookup[merged[ours.semantic_map]], ours.instance_map), theirs)
            for name, (ours, theirs) in pairs.items()
        }
        table = merge_tables(intersect(name, *sides) for name, sides in own.items())
        evaluation = evaluate_table(
            table, PROTOCOL, things=[int(lookup[k]) for k in things], stuff=[int(lookup[k]) for k in stuff]
        )
        class_of = evaluation.assignment.class_of
        boundaries = evaluate_boundaries([(name, *sides) for name, sides in own.items()], evaluation)
        judged = judge_masks(table, true_objects(table, things), class_of=class_of)
        video = evaluate_video(
            relabel_predictions(table, class_of, things),
            {name: (f"street {int(name) % 3}", int(name)) for name in own},
            19,
            things,
        )
        found = {
            "evaluation": evaluation.to_dict(),
            "boundary": [
                boundaries.to_dict(),
                boundaries.intervals(200)["standard"]["boundary_PQ"].to_list(),
            ],
            "precision": [
                average_precision(
                    instance_images(table, scores, thing_classes=things, class_of=wanted)
                ).to_dict()
                for wanted in (None, class_of)
            ],
            "calibration": CalibrationHistogram.of_masks(judged, scores).calibration().to_dict(),
            "video": video.to_dict(),
        }
        for name in ("assignment", "semantic_assignment"):
            del found["evaluation"][name]
        results.append(json.dumps(found, allow_nan=False))
    assert results[0] == results[1]


def test_tiny_objects_are_void_where_the_protocol_says_so() -> None:
    truth = panoptic([[0, 0, 0, 0], [13, 13, 13, 13]], [[0] * 4, [1, 1, 1, 2]])
    prediction = panoptic([[0, 0, 0, 0], [1, 1, 1, 0]], [[0] * 4, [1, 1, 1, 0]])
    table = intersect("a", prediction, truth)
    with_tiny = evaluate_table(table, PROTOCOL, things=[1], stuff=[0])
    without = evaluate_table(
        table,
        dataclasses.replace(PROTOCOL, min_object_px=2),
        things=[1],
        stuff=[0],
        coverage=Coverage(1, (), ()),
    )
    assert with_tiny.panoptic["standard"].false_negatives[13] == 1
    assert without.headline()["PQ"] == 100


def test_joint_matching_lets_stuff_become_a_thing() -> None:
    table = intersect("a", panoptic([[0, 0, 1, 1]]), panoptic([[13, 13, 0, 0]], [[1, 1, 0, 0]]))
    apart = evaluate_table(table, PROTOCOL, things=[], stuff=[0, 1])
    joint = evaluate_table(table, dataclasses.replace(PROTOCOL, matching="joint"), things=[], stuff=[0, 1])
    assert 13 not in apart.assignment.class_of
    assert joint.assignment.class_of == (13, 0)
    assert joint.headline()["PQ"] == 100
    assert apart.headline()["mIoU"] == joint.headline()["mIoU"] == 100


def test_loose_thing_pixels_are_void_only_for_pseudo_labels() -> None:
    truth = panoptic([[13, 13, 13, 13]], [[1, 1, 2, 2]])
    prediction = panoptic([[0, 0, 0, 0]], [[5, 5, 0, 0]])
    table = intersect("a", prediction, truth)
    as_prediction = evaluate_table(table, PROTOCOL, things=[0], stuff=[])
    as_label = evaluate_table(table, PROTOCOL, things=[0], stuff=[], void_unseparated_things=True)
    assert as_prediction.panoptic["standard"].true_positives[13] == 2
    assert as_label.panoptic["standard"].true_positives[13] == 1
    assert as_label.semantic.pixel_accuracy == 100


def test_ignored_classes_are_in_no_table() -> None:
    table = intersect("a", panoptic([[0, 1]]), panoptic([[0, 3]]))
    protocol = dataclasses.replace(PROTOCOL, ignored_classes=("wall",))
    result = evaluate_table(table, protocol, things=[], stuff=[0, 1]).to_dict()
    assert "wall" not in [record["class"] for record in result["per_class"]]
    assert all(record["class"] != "wall" for record in result["assignment"])


def write_project(folder: Path) -> Any:
    write_cityscapes_truth_in(folder / "data/benchmarks/streets")
    for network in ("guided", "self_trained"):
        write_maps(folder / "data/predictions/streets" / network, {"city_0_0": maps_of(PREDICTION)})
        card = folder / "models" / network / "card.json"
        card.parent.mkdir(parents=True)
        card.write_text(json.dumps({"vocabulary": {"things": [0], "stuff": [2, 1]}}), encoding="utf-8")
    return SimpleNamespace(evaluate=default_settings("evaluate"))


def write_cityscapes_truth_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_cityscapes_truth(folder, {"city_0_0": TRUTH, "city_0_1": TRUTH})


def test_the_stage_writes_a_report_with_every_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = write_project(tmp_path)
    outcome = evaluate_benchmark(Stage("evaluate", "streets", params))
    protocol = load_protocol("cityscapes19_rendered_min64")
    assert list(outcome.metrics) == [
        "PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy", "PQ_guided",
    ]  # fmt: skip
    path = Path("reports/evaluation/streets.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["protocol"]["hash"] == protocol.hash
    assert report["networks"]["self_trained"]["boundary"]["standard"]["boundary_PQ"] > 0
    assert "average_precision" not in report["networks"]["self_trained"]  # these predictions have no scores
    assert "boundary" not in report["networks"]["guided"]
    clusters = [record["cluster"] for record in report["networks"]["guided"]["assignment"]]
    assert clusters == [2, 1, 0]
    before = path.read_bytes()
    evaluate_benchmark(Stage("evaluate", "streets", params))
    assert path.read_bytes() == before


def test_the_stage_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = write_project(tmp_path)
    Path("models/guided/card.json").unlink()
    with pytest.raises(DataError, match=r"models/guided/card.json does not exist; train that network"):
        evaluate_benchmark(Stage("evaluate", "streets", params))


def read_bdd_sample(path: Path) -> PanopticMap:
    frame = GroundTruthFrame(path.stem, path, path, partial(read_bitmask, path))
    return read_ground_truth(frame, "bdd40", "bdd")


@needs_samples
def test_the_official_bdd_protocol_gives_the_published_numbers_of_the_sample() -> None:
    table = merge_tables(
        intersect(
            name,
            read_bdd_sample(SHARED / f"bdd100k_results/pan_seg/{name}.png"),
            read_bdd_sample(SHARED / f"bdd100k/labels/pan_seg/bitmasks/val/{name}.png"),
        )
        for name in ("a", "b")
    )
    evaluation = evaluate_table(
        table,
        load_protocol("bdd40_official"),
        things=range(30, 40),
        stuff=range(30),
        classes=range(40),
    )
    expected = {
        "PQ": 66.46278879162743,
        "SQ": 68.35183709387516,
        "RQ": 85.29411764705883,
        "PQ_stuff": 64.38602380902118,
        "PQ_thing": 82.03852616117427,
    }
    found = evaluation.headline()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_intervals_hold_the_number_and_shrink_with_more_images() -> None:
    generator = np.random.default_rng(0)
    truths = [random_map(generator, n_classes=2, things=(1,)) for _ in range(60)]
    tables = [
        intersect(f"{n:03d}", shifted(truth, generator, n_classes=2), truth) for n, truth in enumerate(truths)
    ]
    widths = []
    for n_images in (15, 60):
        evaluation = evaluate_table(
            merge_tables(tables[:n_images]), load_protocol("mots2"), things=[1], stuff=[0], classes=[0, 1]
        )
        for convention, intervals in evaluation.intervals().items():
            assert set(intervals) == {"PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy"}
            assert all(found.low <= found.value <= found.high for found in intervals.values())
            assert intervals["PQ"].value == evaluation.numbers(convention)["PQ"]
        widths.append(
            evaluation.intervals()["standard"]["PQ"].high - evaluation.intervals()["standard"]["PQ"].low
        )
    assert widths[1] < widths[0]


def test_one_image_and_resamples_without_objects_give_no_interval() -> None:
    car, road = panoptic([[0, 1]], [[0, 1]]), panoptic([[0, 0]])
    for truths, known in (
        ([car], set()),
        ([car, road], {"PQ", "SQ", "RQ", "PQ_stuff", "mIoU", "pixel_accuracy"}),
        ([road, road], {"PQ", "SQ", "RQ", "PQ_stuff", "mIoU", "pixel_accuracy"}),
    ):
        table = merge_tables(intersect(str(n), truth, truth) for n, truth in enumerate(truths))
        evaluation = evaluate_table(table, load_protocol("mots2"), things=[1], stuff=[0])
        for intervals in evaluation.intervals().values():
            assert {name for name, found in intervals.items() if found.is_known} == known
        report = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
        assert (report["standard"]["intervals"]["PQ_thing"] is None) == ("PQ_thing" not in known)


def test_unlabelled_pixels_are_errors_of_every_metric_in_an_official_protocol() -> None:
    truth, prediction = panoptic([[0, 0, 0, 0]]), panoptic([[0, 0, 0, VOID]])
    table = intersect("a", prediction, truth)
    for name, expected in (("mots2", 100.0), ("mots2_official", 75.0)):
        found = evaluate_table(table, load_protocol(name), things=[1], stuff=[0]).headline()
        assert found["PQ"] == found["mIoU"] == found["pixel_accuracy"] == expected


def test_sequences_are_drawn_whole_where_the_protocol_says_so() -> None:
    truth = panoptic([[0, 0, 1, 1]], [[0, 0, 1, 1]])
    table = merge_tables(intersect(str(n), truth, truth) for n in range(4))
    sequences = {"0": "a", "1": "a", "2": "b", "3": "b"}
    for name, is_whole in (("mots2", True), ("cityscapes19", False)):
        protocol = dataclasses.replace(load_protocol(name), label_space="mots2")
        evaluation = evaluate_table(table, protocol, things=[1], stuff=[0], sequences=sequences)
        weights = evaluation.resamples(50)
        assert (weights[:, 0] == weights[:, 1]).all() == is_whole


def test_small_predicted_stuff_is_void_where_the_protocol_says_so() -> None:
    prediction = panoptic([[0, 0, 0, 1, 2]], [[0, 0, 0, 0, 1]])
    truth = panoptic([[0, 0, 0, 0, 1]], [[0, 0, 0, 0, 1]])
    protocol = dataclasses.replace(load_protocol("mots2"), min_stuff_px=2)
    for limit, accuracy in ((0, 80.0), (2, 100.0)):
        evaluation = evaluate_table(
            intersect("a", prediction, truth),
            dataclasses.replace(protocol, min_stuff_px=limit, left_over="void"),
            things=[2],
            stuff=[0, 1],
        )
        assert evaluation.headline()["pixel_accuracy"] == accuracy


def test_a_part_of_a_benchmark_is_said_to_be_one() -> None:
    truth = panoptic([[0, 1]], [[0, 1]])
    evaluation = evaluate_table(intersect("a", truth, truth), load_protocol("mots2"), things=[1], stuff=[0])
    assert evaluation.coverage.is_partial
    assert evaluation.to_dict()["coverage"]["n_expected"] == 2862
