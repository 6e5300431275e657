from typing import Any

import numpy as np
import pandas as pd
import pytest

from gestalt.audit.measures import measure_labels
from gestalt.config.presets import default_settings
from gestalt.errors import DataError

SETTINGS = default_settings("audit", max_depth_m=80.0, max_speed_m_s=40.0, max_instances_per_frame=4)
RUNS = 8


def frame(frame_id: str, void: int = 10, status: str = "ok") -> dict[str, Any]:
    counts = {"pixels": 100, "void_pixels": void} if status != "failed" else {}
    return {"frame_id": frame_id, "status": status, "reason": "", **counts}


def segment(
    frame_id: str, pseudo_class: int, area: int, instance: int = 0, **values: float
) -> dict[str, Any]:
    known = {"consistency": RUNS, "depth_median_m": 10.0, "speed_m_s": 5.0, "confidence": 0.5}
    return {
        "frame_id": frame_id,
        "pseudo_class": pseudo_class,
        "instance": instance,
        "area_px": area,
        **(known | values),
    }


def measure(frames: list[dict[str, Any]], segments: list[dict[str, Any]], pixels: list[int]) -> Any:
    return measure_labels(
        pd.DataFrame(frames),
        pd.DataFrame(segments),
        class_pixels=np.array(pixels),
        ensemble_runs=RUNS,
        settings=SETTINGS,
    )


def test_measures_of_a_hand_made_batch() -> None:
    measured = measure(
        [frame("a"), frame("b", void=40)],
        [segment("a", 0, 70), segment("a", 1, 20, 1), segment("b", 0, 60)],
        [130, 20],
    )
    rows = measured.frames.set_index("frame_id")
    assert rows.loc["a", "coverage"] == pytest.approx(0.9)
    assert rows.loc["b", "coverage"] == pytest.approx(0.6)
    assert rows["n_instances"].to_dict() == {"a": 1, "b": 0}
    assert rows.loc["a", "largest_instance_share"] == pytest.approx(0.2)
    assert rows.loc["a", "min_consistency"] == pytest.approx(1.0)
    batch = measured.batch.iloc[0]
    assert batch["no_instance_share"] == 0.5
    assert batch["mean_coverage"] == pytest.approx(0.75)
    assert batch["class_drift"] == pytest.approx(0)
    np.testing.assert_allclose(measured.class_shares, [130 / 150, 20 / 150])


def test_surprise_is_the_total_variation_to_the_batch() -> None:
    measured = measure(
        [frame("a"), frame("b")], [segment("a", 0, 50), segment("b", 1, 40), segment("b", 2, 10)], [1, 1, 1]
    )
    rows = measured.frames.set_index("frame_id")
    # The batch has shares 0.5, 0.4, 0.1; frame a has 1, 0, 0; frame b 0, 0.8, 0.2.
    assert rows.loc["a", "surprise"] == pytest.approx(0.5)
    assert rows.loc["b", "surprise"] == pytest.approx(0.5)


def test_drift_compares_with_all_batches() -> None:
    assert measure([frame("a")], [segment("a", 0, 50)], [50, 150]).batch.iloc[0][
        "class_drift"
    ] == pytest.approx(0.75)


def test_failed_and_empty_frames_are_counted_apart_and_a_failed_one_is_the_worst() -> None:
    measured = measure(
        [frame("a"), frame("b", void=100), frame("c", status="failed")], [segment("a", 0, 90)], [90]
    )
    batch = measured.batch.iloc[0]
    assert batch["failed_share"] == pytest.approx(1 / 3)
    assert batch["empty_share"] == pytest.approx(1 / 3)
    assert measured.frames.iloc[0]["frame_id"] == "c"
    assert measured.frames.iloc[0]["why"] == "failed"


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"consistency": 1.0}, "the motion ensemble agrees less than fully"),
        ({"depth_median_m": 500.0}, "depth or speed out of range"),
        ({"speed_m_s": 90.0}, "depth or speed out of range"),
    ],
)
def test_a_frame_with_a_bad_instance_comes_first_with_its_cause(values: dict[str, float], cause: str) -> None:
    frames = [frame(name) for name in "abc"]
    segments = [segment(name, pseudo_class, 40, pseudo_class) for name in "abc" for pseudo_class in (0, 1)]
    segments[3] |= values
    first = measure(frames, segments, [120, 120]).frames.iloc[0]
    assert (first["frame_id"], first["why"]) == ("b", cause)


def test_order_of_the_input_does_not_matter() -> None:
    frames = [frame(name) for name in "abcd"]
    segments = [segment(name, number % 3, 10 + number, number % 2) for number, name in enumerate("aabbccdd")]
    one = measure(frames, segments, [1, 1, 1]).frames
    other = measure(frames[::-1], segments[::-1], [1, 1, 1]).frames
    pd.testing.assert_frame_equal(one, other)


def test_a_batch_without_any_segment_is_measured() -> None:
    measured = measure_labels(
        pd.DataFrame([frame("a", void=100)]),
        pd.DataFrame({"frame_id": []}),
        class_pixels=np.array([5, 5]),
        ensemble_runs=RUNS,
        settings=SETTINGS,
    )
    assert measured.batch.iloc[0]["empty_share"] == 1.0
    assert measured.batch.iloc[0]["mean_coverage"] == 0.0


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="the frame table lacks the columns void_pixels"):
        measure_labels(
            pd.DataFrame([{"frame_id": "a", "status": "ok", "reason": "", "pixels": 1}]),
            pd.DataFrame([segment("a", 0, 1)]),
            class_pixels=np.array([1]),
            ensemble_runs=RUNS,
            settings=SETTINGS,
        )
