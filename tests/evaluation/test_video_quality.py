"""STQ and VPQ: hand-computed videos, slow implementations from the definition, and what must not change them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.bootstrap import resamples
from gestalt.evaluation.intersections import (
    build_table,
    intersect,
    mark_groups_as_crowd,
    merge_tables,
    relabel_predictions,
)
from gestalt.evaluation.panoptic_quality import STANDARD, VOID_NEUTRAL, panoptic_quality
from gestalt.evaluation.video_quality import VideoQuality, evaluate_video
from gestalt.panoptic import VOID, PanopticMap
from tests.evaluation.maps import SHARED, needs_samples, panoptic
from tests.evaluation.videos import (
    CAR,
    CLASSES,
    ROAD,
    THINGS,
    Frames,
    car_frame,
    random_video,
    row,
    slow_stq,
    slow_vpq,
    video_sets,
    video_table,
)


def evaluate(**videos: Frames) -> VideoQuality:
    return evaluate_video(*video_table(videos), CLASSES, THINGS)


def test_a_perfect_video_scores_everything() -> None:
    frames = [(car_frame(7), car_frame(7))] * 4
    headline = evaluate(one=frames).headline()
    assert {name: float(value) for name, value in headline.items()} == pytest.approx(
        dict.fromkeys(("STQ", "AQ", "SQ", "VPQ", "VPQ_thing", "VPQ_stuff"), 100.0)
    )


def test_an_id_switch_costs_what_the_definition_says() -> None:
    # True tube: 8 pixels in 4 frames. Predicted tubes: 2 pixels (1 frame) and 6 pixels (3 frames).
    # AQ = (2 * 2/8 + 6 * 6/8) / 8 = 0.625; the classes are all right, so SQ = 1 and STQ = sqrt(0.625).
    frames = [(car_frame(1), car_frame(7))] + [(car_frame(2), car_frame(7))] * 3
    quality = evaluate(one=frames)
    scores = quality.counts.total()
    assert scores.association_quality() == pytest.approx(0.625)
    assert scores.segmentation_quality() == 1.0
    assert scores.tracking_quality() == pytest.approx(math.sqrt(0.625))
    # Windows that hold the switch, by length: of 2 frames 1 of 3, where both halves have IoU 1/2 (no match: 2 FP and
    # 1 FN); of 3 frames 1 of 2, where 4 of 6 pixels match (TP 2/3, 1 FP); of 4 frames the only one (TP 3/4, 1 FP).
    per_window = [4 / 4, 2 / (2 + 0.5 * 2 + 0.5 * 1), (1 + 2 / 3) / (2 + 0.5), 0.75 / (1 + 0.5)]
    assert scores.window_quality(STANDARD, [CAR]) == pytest.approx(per_window)
    assert scores.panoptic_quality(STANDARD, [CAR]) == pytest.approx(np.mean(per_window))


def test_association_ignores_crowds_and_counts_tubes_on_void_and_stuff() -> None:
    # A car of 4 pixels; the predicted tube covers 2 of them, 1 of a crowd, 1 of void and 1 of road.
    truth = row([CAR, CAR, CAR, CAR, CAR, VOID, ROAD], [5, 5, 5, 5, 0, 0, 0])
    prediction = row([ROAD, ROAD, CAR, CAR, CAR, CAR, CAR], [0, 0, 9, 9, 9, 9, 9])
    scores = evaluate(one=[(prediction, truth)]).counts.total()
    # TPA 2, tube 4, predicted 4 without the crowd: 2/4 * 2/6.
    assert scores.association_quality() == pytest.approx(2 / 4 * 2 / 6)
    # Car: 3 right, 5 true, 3 + 1 predicted outside void: 3/6. Road: 0 right.
    assert scores.class_iou()[[ROAD, CAR]] == pytest.approx([0.0, 0.5])


def test_predicted_void_is_one_more_class_in_the_public_rule_only() -> None:
    truth = row([ROAD, ROAD, ROAD, CAR], [0, 0, 0, 1])
    scores = evaluate(one=[(row([ROAD, ROAD, VOID, CAR], [0, 0, 0, 1]), truth)]).counts.total()
    assert scores.segmentation_quality() == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.segmentation_quality(void_is_class=False) == pytest.approx((2 / 3 + 1) / 2)


def test_frames_and_sequences_without_prediction_count_as_missed() -> None:
    frames: Frames = [(car_frame(1), car_frame(1)), (None, car_frame(1))]
    half = evaluate(one=frames).counts.total()
    # Half of the tube is followed by a tube that is right wherever it is.
    assert half.association_quality() == pytest.approx(0.5 * 0.5)
    assert half.class_iou()[[ROAD, CAR]] == pytest.approx([0.5, 0.5])
    perfect: Frames = [(car_frame(1), car_frame(1))] * 2
    both = evaluate(one=perfect, two=[(None, car_frame(1))] * 2)
    assert both.counts.total().association_quality() == 0.5
    records = {record["sequence"]: record for record in both.to_dict()["per_sequence"]}
    assert (records["one"]["STQ"], records["two"]["STQ"]) == (100.0, 0.0)


def test_a_missing_prediction_is_never_better_than_void() -> None:
    frames = random_video(np.random.default_rng(0), 5)
    void = panoptic(np.full(frames[0][1].size, VOID))
    missing = evaluate(one=[(None, truth) for _, truth in frames]).headline()
    empty = evaluate(one=[(void, truth) for _, truth in frames]).headline()
    assert all(missing[name] <= empty[name] for name in missing)


@settings(max_examples=25, deadline=None)
@given(video_sets())
def test_stq_is_that_of_the_definition(videos: dict[str, Frames]) -> None:
    table, sequence_of = video_table(videos)
    for ignored in ((), (4,), (1, 2)):
        scores = evaluate_video(table, sequence_of, CLASSES, THINGS, ignored).counts.total()
        expected = slow_stq(videos, ignored)
        found = {
            "AQ": float(scores.association_quality()),
            "SQ": float(scores.segmentation_quality()),
            "STQ": float(scores.tracking_quality()),
        }
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(video_sets())
def test_vpq_is_that_of_the_definition(videos: dict[str, Frames]) -> None:
    scores = evaluate(**videos).counts.total()
    longest = max(len(frames) for frames in videos.values())
    for classes in (range(CLASSES), THINGS):
        expected = [slow_vpq(videos, k, list(classes)) if k <= longest else math.nan for k in (1, 2, 3, 4)]
        found = scores.window_quality(STANDARD, classes)
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(video_sets())
def test_windows_of_one_frame_are_panoptic_quality(videos: dict[str, Frames]) -> None:
    table, sequence_of = video_table(videos)
    groups = {STANDARD: "crowd", VOID_NEUTRAL: "segment"}
    scores = evaluate_video(
        table, sequence_of, CLASSES, THINGS, windows=[1], group_regions=groups
    ).counts.total()
    for convention, treated in (
        (STANDARD, mark_groups_as_crowd(table, THINGS)),
        (VOID_NEUTRAL, table),
    ):
        expected = panoptic_quality(treated, CLASSES, convention)
        (found,) = scores.panoptic[convention]
        np.testing.assert_array_equal(found.true_positives, expected.true_positives)
        np.testing.assert_array_equal(found.false_positives, expected.false_positives)
        np.testing.assert_array_equal(found.false_negatives, expected.false_negatives)
        np.testing.assert_allclose(found.iou_sum, expected.iou_sum, rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(video_sets(), st.permutations(range(30)))
def test_names_and_ids_do_not_matter(videos: dict[str, Frames], order: list[int]) -> None:
    """Renumbered objects, on either side and differently in each sequence, change no score."""
    table, sequence_of = video_table(videos)
    renamed = np.concatenate([[0], 1 + np.array(order * 2)[:40] + 50 * (np.arange(40) // 30)])
    moved = build_table(
        table.image_ids,
        image=table.image,
        predicted_class=table.predicted_class,
        predicted_instance=np.where(
            table.predicted_instance > 0, renamed[np.minimum(table.predicted_instance, 40)], 0
        ),
        true_class=table.true_class,
        true_instance=np.where(table.true_instance > 0, 1000 - table.true_instance, 0),
        is_crowd=table.is_crowd,
        n_pixels=table.n_pixels,
    )
    expected = evaluate_video(table, sequence_of, CLASSES, THINGS).headline()
    found = evaluate_video(moved, sequence_of, CLASSES, THINGS).headline()
    assert found == pytest.approx(expected, nan_ok=True)


def test_pseudo_classes_are_assigned_after_the_pixels_were_read() -> None:
    """Permuted pseudo-classes that are named afterwards score as the classes themselves."""
    frames = random_video(np.random.default_rng(3), 4)
    names = np.full(256, VOID, np.uint8)
    names[:CLASSES] = [4, 2, 0, 1, 3]  # pseudo-class of each class
    pseudo: Frames = [
        (PanopticMap(names[ours.semantic_map], ours.instance_map) if ours else None, truth)
        for ours, truth in frames
    ]
    table, sequence_of = video_table({"one": pseudo})
    class_of = [names.tolist().index(index) for index in range(CLASSES)]
    matched = evaluate_video(relabel_predictions(table, class_of, THINGS), sequence_of, CLASSES, THINGS)
    assert matched.headline() == pytest.approx(evaluate(one=frames).headline())


def test_weights_are_repeated_sequences_and_give_intervals() -> None:
    generator = np.random.default_rng(1)
    videos = {f"s{index}": random_video(generator, 5) for index in range(4)}
    quality = evaluate(**videos)
    twice = evaluate(**videos, again=videos["s2"]).headline()
    weighted = quality.headline(quality.counts.total(np.array([[1, 1, 2, 1]])))
    assert {name: float(value[0]) for name, value in weighted.items()} == pytest.approx(
        {name: float(value) for name, value in twice.items()}
    )
    drawn = quality.headline(quality.counts.total(resamples(4, 200, seed=5)))
    interval = quality.intervals(200, seed=5)["STQ"]
    assert interval.value == pytest.approx(float(quality.headline()["STQ"]))
    assert drawn["STQ"].min() <= interval.low < interval.value < interval.high <= drawn["STQ"].max()


def test_sequences_are_rows_of_their_own() -> None:
    generator = np.random.default_rng(4)
    videos = {f"s{index}": random_video(generator, 4 + index) for index in range(2)}
    report = evaluate(**videos).to_dict(["road", "grass", "sky", "car", "person"])
    for record in report["per_sequence"]:
        alone = evaluate(**{record["sequence"]: videos[record["sequence"]]}).headline()
        assert record["n_tubes"] > 0
        assert {name: record[name] for name in alone} == pytest.approx(
            {name: float(value) for name, value in alone.items()}
        )
    assert [entry["class"] for entry in report["per_class"]] == ["road", "grass", "sky", "car", "person"]
    assert [entry["is_thing"] for entry in report["per_class"]] == [False, False, False, True, True]
    assert report["n_frames"] == 9
    windows = report["VPQ"][STANDARD]["windows"]
    assert report["VPQ"][STANDARD]["all"] == pytest.approx(
        np.mean([entry["PQ"] for entry in windows.values()])
    )


def test_what_is_undefined_is_none_and_not_zero() -> None:
    """No thing tube: no AQ. Two frames: no windows of 3, and no mean over windows."""
    road = row([ROAD, ROAD], [0, 0])
    quality = evaluate(one=[(road, road)] * 2)
    report = quality.to_dict()
    assert set(evaluate(one=[(road, road)] * 2, two=[(road, road)] * 2).intervals(10)) == {"SQ"}
    # Of a single sequence nothing has one: it would be drawn every time.
    assert quality.intervals(10) == report["intervals"] == {}
    assert report["headline"]["SQ"] == 100.0
    json.dumps(report, allow_nan=False)
    assert (report["AQ"], report["STQ"], report["SQ"]) == (None, None, 100.0)
    vpq = report["VPQ"][STANDARD]
    assert vpq["all"] is None
    assert vpq["windows"]["2"]["PQ"] == 100.0
    assert vpq["windows"]["3"] is None
    assert report["per_class"][ROAD]["VPQ"] == {STANDARD: None}


def test_images_without_a_sequence_are_named() -> None:
    table = intersect("single", car_frame(1), car_frame(1))
    with pytest.raises(DataError, match=r"1 of 1 images belong to no sequence.*single"):
        evaluate_video(table, {}, CLASSES, THINGS)
    with pytest.raises(DataError, match="belong to no sequence"):
        evaluate_video(table, {"single": ("", 0)}, CLASSES, THINGS)


def test_two_frames_with_one_number_are_named() -> None:
    table = merge_tables(intersect(name, car_frame(1), car_frame(1)) for name in ("a", "b"))
    with pytest.raises(DataError, match=r"different numbers.*a and b \(drive, number 3\)"):
        evaluate_video(table, {"a": ("drive", 3), "b": ("drive", 3)}, CLASSES, THINGS)


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"windows": []}, "at least one window length"),
        ({"windows": [0]}, "at least 1 frame"),
        ({"group_regions": {}}, "one convention"),
        ({"group_regions": {STANDARD: "crowds"}}, "`crowd` or `segment`"),
        ({"group_regions": {"official": "crowd"}}, "convention must be one of"),
    ],
)
def test_settings_that_cannot_be_are_explained(settings_given: dict[str, object], message: str) -> None:
    table, sequence_of = video_table({"one": [(car_frame(1), car_frame(1))]})
    with pytest.raises(ConfigError, match=message):
        evaluate_video(table, sequence_of, CLASSES, THINGS, **settings_given)  # type: ignore[arg-type]


def test_areas_beyond_single_precision_are_exact() -> None:
    """A tube of more than 2**24 pixels, of which one pixel per frame is missed."""
    height, width, n_frames = 2048, 4096, 3
    truth = panoptic(np.full((height, width), CAR), np.full((height, width), 1))
    ours = PanopticMap(truth.semantic_map.copy(), truth.instance_map.copy())
    ours.semantic_map[0, 0], ours.instance_map[0, 0] = ROAD, 0
    area = height * width
    scores = evaluate(one=[(ours, truth)] * n_frames).counts.total()
    assert float(scores.association_quality()) == pytest.approx(((area - 1) / area) ** 2, rel=1e-15)


@needs_samples
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_real_video_scores_as_the_public_evaluation_says() -> None:
    """KITTI-MOTS annotations against themselves, moved by 5 px, every third object with a new id from frame 20 on.

    Expected values: the public NumPy evaluation of STQ, with sums in double precision, and that of VPQ.
    """
    truth = read_mots_text(SHARED / "kitti_mots" / "instances_txt" / "0014.txt", n_frames=40)
    moved = [
        panoptic(np.roll(frame.semantic_map, 5, axis=1), np.roll(frame.instance_map, 5, axis=1))
        for frame in truth
    ]
    for prediction in moved[20:]:
        instances = prediction.instance_map
        instances[(instances % 3 == 0) & (instances > 0)] += 300
    quality = evaluate(one=list(zip(moved, truth, strict=True)))
    headline = quality.headline()
    expected = {"STQ": 39.63995185012654, "AQ": 30.987993470657354, "SQ": 50.70756788974558}
    assert {name: float(headline[name]) for name in expected} == pytest.approx(expected, rel=1e-12)
    windows = quality.to_dict()["VPQ"][STANDARD]["windows"]
    assert [windows[k]["PQ"] for k in "1234"] == pytest.approx(
        [48.22071577084869, 48.22786275199322, 48.23700475024381, 48.24612075968893], rel=1e-12
    )


def read_mots_text(path: Path, n_frames: int) -> list[PanopticMap]:
    """Cars (1), people (2) and ignored regions (10) of a KITTI-MOTS text file; the rest is road."""
    from pycocotools import mask

    rows = [line.split() for line in path.read_text().splitlines()]
    size = int(rows[0][3]), int(rows[0][4])
    frames = [PanopticMap(np.full(size, ROAD, np.uint8), np.zeros(size, np.uint16)) for _ in range(n_frames)]
    for number, identity, kind, _, _, rle in rows:
        if int(number) < n_frames:
            frame = frames[int(number)]
            inside = mask.decode({"size": list(size), "counts": rle.encode()}).astype(bool)
            frame.semantic_map[inside] = {"1": CAR, "2": THINGS[1], "10": VOID}[kind]
            frame.instance_map[inside] = 0 if kind == "10" else int(identity)
    return frames
