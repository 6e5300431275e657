from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gestalt.audit.comparison_pictures import GREEN, RED, class_layer, draw_frames, mark_layer
from gestalt.data.ground_truth import find_ground_truth
from gestalt.evaluation.comparison import Comparison, compare_predictions
from gestalt.evaluation.predicted_side import shard_predicted
from gestalt.evaluation.truth_side import frame_truth
from gestalt.panoptic import VOID
from tests.audit.workspace import HEIGHT, VOCABULARY, WIDTH
from tests.evaluation.maps import panoptic
from tests.rivals import BENCHMARK, PROTOCOL, frame_id, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


def compare(project: Path) -> Comparison:
    predictions = {
        name: shard_predicted(project / "data/predictions" / BENCHMARK / name, VOCABULARY)
        for name in ("guided", "self_trained")
    }
    frames = find_ground_truth(project / "data/benchmarks" / BENCHMARK)
    truth = frame_truth(frames, PROTOCOL, PROTOCOL.dataset)
    return compare_predictions(BENCHMARK, predictions, {}, truth, order=list(predictions))


def test_a_layer_of_classes_is_transparent_where_void_and_outlines_objects() -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[1], palette[2] = (10, 20, 30), (40, 50, 60)
    layer = class_layer(panoptic([[1, 2, 2, 2, 2, VOID]], [[0, 7, 7, 7, 7, 0]]), palette)
    assert layer[0].tolist() == [
        [10, 20, 30, 255],
        [255, 255, 255, 255],
        [40, 50, 60, 255],
        [40, 50, 60, 255],
        [255, 255, 255, 255],
        [0, 0, 0, 0],
    ]


def test_marks_lie_over_each_other_in_their_order() -> None:
    first, second = np.array([[True, True, False]]), np.array([[False, True, False]])
    layer = mark_layer([(first, RED), (second, GREEN)], (1, 3))
    assert layer[0].tolist() == [[*RED, 255], [*GREEN, 255], [0, 0, 0, 0]]


def test_frames_hold_the_truth_and_every_contestant(project: Path) -> None:
    comparison = compare(project)
    truth = find_ground_truth(project / "data/benchmarks" / BENCHMARK)
    (frame,) = draw_frames(comparison, truth, [frame_id(2)], width_px=WIDTH // 2)
    assert frame.size == (HEIGHT // 2, WIDTH // 2)
    assert [cell.name for cell in frame.cells] == ["", "guided", "self_trained"]
    assert [sorted(cell.layers) for cell in frame.cells] == [
        ["classes"],
        ["classes", "errors"],
        ["changes", "classes", "errors"],
    ]
    names = [comparison.space.classes[place].name for place in frame.classes]
    assert names == ["road", "building", "sky", "car"]
    reference, other = frame.cells[1:]
    assert (reference.difference, frame.cells[0].quality) == (None, None)
    assert other.quality is not None
    assert reference.quality is not None
    assert other.difference == pytest.approx(other.quality - reference.quality)
    place = comparison.image_ids.index(frame_id(2))
    assert other.quality == comparison.results["self_trained"].image_quality[place]


def test_a_benchmark_without_images_still_shows_its_maps(project: Path, tmp_path: Path) -> None:
    comparison = compare(project)
    truth = find_ground_truth(project / "data/benchmarks" / BENCHMARK)
    image = truth[0].image
    hidden = image.rename(tmp_path / "hidden.png")
    try:
        (frame,) = draw_frames(comparison, truth, [truth[0].frame_id], width_px=WIDTH)
    finally:
        hidden.rename(image)
    assert frame.photo.startswith("data:image/jpeg")
    assert len(frame.cells) == 3
