from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.ground_truth import find_ground_truth
from gestalt.data.images import write_png
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.evaluation.label_quality import (
    evaluate_labels,
    evaluate_proposals,
    read_moving_objects,
    read_objects,
    truth_of_frames,
)
from gestalt.evaluation.protocols import load_protocol
from gestalt.panoptic import Vocabulary
from stages.entry import Stage
from stages.label_quality import measure_labels
from tests.evaluation.maps import write_cityscapes_truth, write_maps

SIZE = (30, 40)
FRAMES = ("city_0_0", "city_0_1")
MOVING, PARKED, SMALL = 26000, 26001, 24007


def values() -> np.ndarray:
    """Road, a moving car of 100 px, a parked car of 100 px, a walking person of 70 px."""
    array = np.full(SIZE, 7, np.uint16)
    array[:10] = 11
    array[12:22, 2:12] = MOVING
    array[12:22, 14:24] = PARKED
    array[12:22, 30:37] = SMALL
    return array


def labels() -> dict[str, np.ndarray]:
    """Pseudo-classes 0 building, 1 road, 2 things; only the moving car and the person are masks."""
    array = values()
    semantic = np.select([array == 11, array == 7], [0, 1], 2).astype(np.uint8)
    instance = np.select([array == MOVING, array == SMALL], [1, 2], 0).astype(np.uint16)
    return {"semantic": semantic, "instance": instance}


def write_truth(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_cityscapes_truth(folder, {name: values() for name in (*FRAMES, "city_0_2")})
    rows = [
        {"frame_id": name, "instance": value, "is_moving": value != PARKED}
        for name in FRAMES
        for value in (MOVING, PARKED, SMALL)
    ]
    pd.DataFrame(rows).to_parquet(folder / "objects.parquet")


def write_proposals(folder: Path) -> Any:
    """The moving car, the parked car and a piece of road in the first frame; the second failed."""
    array = values()
    proposals = np.select([array == MOVING, array == PARKED], [1, 2], 0).astype(np.uint16)
    proposals[25:29, 3:9] = 3
    return write_maps(folder, {FRAMES[0]: {"proposals": proposals}, FRAMES[1]: None})


def test_pseudo_labels_are_measured_in_the_protocol(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    folder = write_maps(tmp_path / "labels", dict.fromkeys(FRAMES, labels()))
    evaluation = evaluate_labels(
        folder,
        truth_of_frames(find_ground_truth(tmp_path / "truth"), folder, "test"),
        Vocabulary(things=(2,), stuff=(1, 0)),
        load_protocol("cityscapes19_rendered_min64"),
        label="test",
    )
    assert evaluation.coverage.n_images == 2
    cars = next(entry.id for entry in evaluation.space.classes if entry.name == "car")
    quality = evaluation.panoptic["standard"]
    # The person is labelled with the pseudo-class of the cars; the parked car was left to nobody.
    assert (quality.true_positives[cars], quality.false_positives[cars], quality.false_negatives[cars]) == (
        2,
        2,
        2,
    )
    assert quality.false_negatives[11] == 2
    assert quality.mean([0, 2])["PQ"] == 100


def test_proposals_are_measured_against_moving_and_all_objects(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    proposals = write_proposals(tmp_path / "motion")
    quality = evaluate_proposals(
        proposals,
        truth_of_frames(find_ground_truth(tmp_path / "truth"), proposals, "test"),
        read_moving_objects(tmp_path / "truth"),
        min_object_px=[64, 80],
        label="test",
    )
    moving = quality.moving[80]
    assert (moving.n_masks, moving.n_objects, moving.n_hits) == (3, 2, 1)
    assert quality.moving[64].n_objects == 4
    every = quality.every[64]
    assert (every.n_masks, every.n_objects, every.n_hits) == (3, 6, 2)
    # The first size limit speaks: one of three masks hits one of four moving objects.
    assert quality.headline() == pytest.approx({"precision": 100 / 3, "recall": 100 / 4})
    assert quality.to_dict()["moving_objects"]["min_80_px"]["mean_iou"] == 1.0


def write_scored_proposals(folder: Path, scores: Sequence[float]) -> Any:
    """As ``write_proposals``, with a score of the moving car, the parked car and the piece of road."""
    write_proposals(folder)
    records = [
        {"frame_id": FRAMES[0], "instance": number, "score": score} for number, score in enumerate(scores, 1)
    ]
    pd.DataFrame(records).to_parquet(folder / "records.parquet")
    return ShardFolder(folder)


def test_scores_of_proposals_are_measured_where_there_are_some(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    proposals = write_scored_proposals(tmp_path / "motion", [0.5, 0.25, 0.75])
    truth = truth_of_frames(find_ground_truth(tmp_path / "truth"), proposals, "test")
    moving = read_moving_objects(tmp_path / "truth")
    quality = evaluate_proposals(proposals, truth, moving, min_object_px=[80], label="test")
    # Two moving cars of at least 80 px; by score: road, the moving car, the parked car.
    of_moving = quality.moving_scores[80]
    assert pytest.approx(100 * 51 / 101 / 2) == of_moving.average_precision.AP
    assert pytest.approx(50) == of_moving.average_precision.AR100
    assert of_moving.average_precision.n_objects == 2
    assert of_moving.calibration is not None
    assert of_moving.calibration.brier == pytest.approx((0.5**2 + 0.25**2 + 0.75**2) / 3)
    assert quality.every_scores[80].average_precision.n_objects == 4
    report = quality.to_dict()["all_objects"]["min_80_px"]
    assert report["average_precision"]["AP50"] == quality.every_scores[80].average_precision.AP50
    assert report["precision"] == pytest.approx(2 / 3)
    # An affinity is no chance: its order counts, its value does not.
    other = write_scored_proposals(tmp_path / "cut", [5.0, 2.5, 7.5])
    (affine,) = evaluate_proposals(other, truth, None, min_object_px=[80], label="test").every_scores.values()
    assert affine.calibration is None
    assert affine.average_precision == quality.every_scores[80].average_precision


def test_proposals_without_scores_have_no_average_precision_and_some_scores_are_an_error(
    tmp_path: Path,
) -> None:
    write_truth(tmp_path / "truth")
    proposals = write_proposals(tmp_path / "motion")
    truth = truth_of_frames(find_ground_truth(tmp_path / "truth"), proposals, "test")
    quality = evaluate_proposals(proposals, truth, None, min_object_px=[80], label="test")
    assert quality.every_scores == {}
    assert "average_precision" not in quality.to_dict()["all_objects"]["min_80_px"]
    some = write_scored_proposals(tmp_path / "some", [0.5, 0.25])
    with pytest.raises(DataError, match=r"1 of 3 masks have no score, such as 3 of city_0_0"):
        evaluate_proposals(some, truth, None, min_object_px=[80], label="test")


def test_truth_that_does_not_say_what_moves_gives_no_numbers_about_it(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    (tmp_path / "truth/objects.parquet").unlink()
    assert read_moving_objects(tmp_path / "truth") is None
    proposals = write_proposals(tmp_path / "motion")
    truth = truth_of_frames(find_ground_truth(tmp_path / "truth"), proposals, "test")
    quality = evaluate_proposals(proposals, truth, None, min_object_px=[80], label="test")
    assert quality.to_dict()["moving_objects"] == {}
    assert quality.headline() == {}


def test_objects_keep_the_values_of_the_file(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    objects = read_objects(find_ground_truth(tmp_path / "truth")[0])
    assert np.unique(objects.instance_map).tolist() == [0, SMALL, MOVING, PARKED]


def test_truth_of_another_form_is_refused(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    frame = find_ground_truth(tmp_path / "truth")[0]
    write_png(frame.annotation, np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match=r"16-bit map of Cityscapes instance ids. Got: \(30, 40\) uint8"):
        read_objects(frame)


def test_frames_without_truth_are_named(tmp_path: Path) -> None:
    write_truth(tmp_path / "truth")
    folder = write_maps(tmp_path / "labels", {"city_0_0": labels(), "city_5_5": labels()})
    with pytest.raises(DataError, match=r"monday: 1 of 2 frames have no truth, such as city_5_5"):
        truth_of_frames(find_ground_truth(tmp_path / "truth"), folder, "monday")


def test_a_table_of_objects_without_motion_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"frame_id": ["a"], "instance": [26000]}).to_parquet(tmp_path / "objects.parquet")
    with pytest.raises(DataError, match=r"lacks the columns is_moving. Got: frame_id, instance"):
        read_moving_objects(tmp_path)


def test_the_stage_reports_labels_and_proposals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_truth(Path("data/truth/monday"))
    write_maps(Path("data/pseudo_labels/monday"), dict.fromkeys(FRAMES, labels()))
    for source in ("motion", "normalized_cut"):
        write_proposals(Path("data") / source / "monday")
    Vocabulary(things=(2,), stuff=(0, 1)).save(Path("data/vocabulary.json"))
    params: Any = SimpleNamespace(
        label_quality=default_settings("label_quality"),
        pseudo_labels=default_settings("pseudo_labels", proposals="normalized_cut"),
    )
    outcome = measure_labels(Stage("label_quality", "monday", params))
    assert outcome.metrics["PQ"] > 50
    assert {"precision", "recall"} < set(outcome.metrics)
    report = json.loads(Path("reports/label_quality/monday.json").read_text(encoding="utf-8"))
    assert report["labels"]["coverage"]["n_images"] == 2
    assert set(report["proposals"]) == {"motion", "normalized_cut"}
    assert report["proposals"]["motion"]["all_objects"]["min_64_px"]["n_hits"] == 2
