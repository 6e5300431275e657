from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.panoptic_quality import main
from gestalt.data.coco_files import CocoPanoptic, read_coco_panoptic, read_segment_ids
from gestalt.data.images import write_png
from gestalt.errors import DataError
from gestalt.evaluation.coco import intersect_coco
from gestalt.evaluation.intersections import intersect, mark_groups_as_crowd
from gestalt.evaluation.panoptic_quality import panoptic_quality
from gestalt.panoptic import ids_to_rgb, segment_ids, segments_info
from tests.evaluation.maps import SHARED, needs_samples, random_map, shifted

CATEGORIES = [{"id": 10 + index, "name": f"class {index}", "isthing": int(index >= 3)} for index in range(5)]


def write_side(folder: Path, images: dict[str, Any], *, categories: bool) -> Path:
    """Write id maps with their segments: {image id: (ids, segments_info)}."""
    folder.mkdir()
    annotations = []
    for image_id, (ids, segments) in images.items():
        write_png(folder / f"{image_id}.png", ids_to_rgb(np.asarray(ids)))
        annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments})
    content = {"annotations": annotations, **({"categories": CATEGORIES} if categories else {})}
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def both(
    tmp_path: Path, truth: dict[str, Any], prediction: dict[str, Any]
) -> tuple[CocoPanoptic, CocoPanoptic]:
    write_side(tmp_path / "truth", truth, categories=True)
    write_side(tmp_path / "prediction", prediction, categories=False)
    return (
        read_coco_panoptic(tmp_path / "truth.json", tmp_path / "truth"),
        read_coco_panoptic(tmp_path / "prediction.json", tmp_path / "prediction"),
    )


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return [
        *("--ground-truth", str(tmp_path / "truth.json"), "--ground-truth-folder", str(tmp_path / "truth")),
        *("--predictions", str(tmp_path / "prediction.json")),
        *("--predictions-folder", str(tmp_path / "prediction"), *more),
    ]


SEGMENTS = [
    {"id": 1, "category_id": 10, "area": 3, "iscrowd": 0},
    {"id": 70000, "category_id": 13, "area": 1, "iscrowd": 0},
]
IDS = [[1, 1], [1, 70000]]


def test_files_and_maps_give_the_same_quality(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    truth = random_map(generator)
    truth.instance_map[truth.instance_map == 9] = 0
    prediction = shifted(truth, generator)
    sides = []
    for side, things in ((truth, (3, 4)), (prediction, ())):
        segments = [
            {**record, "category_id": record["category_id"] + 10} for record in segments_info(side, things)
        ]
        sides.append({"a": (segment_ids(side), segments)})
    table = mark_groups_as_crowd(intersect("a", prediction, truth), (3, 4))
    from_files = intersect_coco(*both(tmp_path, *sides))
    for convention in ("standard", "void_neutral"):
        expected = panoptic_quality(table, 5, convention)
        found = panoptic_quality(from_files, 5, convention)
        assert found.mean(range(5)) == expected.mean(range(5))
        assert found.false_positives.tolist() == expected.false_positives.tolist()
        assert found.false_negatives.tolist() == expected.false_negatives.tolist()


def test_a_thousand_random_maps_agree_with_torchmetrics(tmp_path: Path) -> None:
    # Without predicted void that implementation's convention is the standard one.
    from torchmetrics.detection import PanopticQuality as Reference

    generator = np.random.default_rng(1)
    truths = [random_map(generator, size=(12, 16)) for _ in range(1000)]
    predictions = []
    for truth in truths:
        prediction = shifted(truth, generator)
        prediction.semantic_map[prediction.semantic_map == 255] = 0
        prediction.instance_map[prediction.semantic_map < 3] = 0
        predictions.append(prediction)
    reference = Reference(things={3, 4}, stuffs={0, 1, 2}, allow_unknown_preds_category=True)
    stacked = [
        np.stack([np.stack([side.semantic_map, side.instance_map], -1) for side in sides]).astype(np.int64)
        for sides in (predictions, truths)
    ]
    reference.update(*(torch.from_numpy(channels) for channels in stacked))
    files = [
        {
            f"{number:04}": (
                segment_ids(side),
                [{**info, "category_id": info["category_id"] + 10} for info in segments_info(side)],
            )
            for number, side in enumerate(sides)
        }
        for sides in (truths, predictions)
    ]
    quality = panoptic_quality(intersect_coco(*both(tmp_path, *files)), 5, "standard")
    order = [reference.cat_id_to_continuous_id[class_id] for class_id in range(5)]
    assert quality.true_positives.tolist() == reference.true_positives[order].tolist()
    assert quality.false_positives.tolist() == reference.false_positives[order].tolist()
    assert quality.false_negatives.tolist() == reference.false_negatives[order].tolist()
    assert quality.iou_sum == pytest.approx(reference.iou_sum[order].numpy(), abs=1e-3)  # float32 there
    assert quality.true_positives.min() > 100


def test_only_the_last_crowd_of_a_class_forgives(tmp_path: Path) -> None:
    crowds = [{"id": 1, "category_id": 13, "iscrowd": 1}, {"id": 2, "category_id": 13, "iscrowd": 1}]
    prediction = [{"id": 5, "category_id": 13}, {"id": 6, "category_id": 13}]
    table = intersect_coco(
        *both(tmp_path, {"a": ([[1, 1, 2, 2]], crowds)}, {"a": ([[5, 5, 6, 6]], prediction)})
    )
    assert panoptic_quality(table, 5, "standard").false_positives[3] == 1


def test_ids_use_all_three_colours(tmp_path: Path) -> None:
    ids = np.array([[0, 255, 256], [65535, 65536, 16777215]])
    write_png(tmp_path / "a.png", ids_to_rgb(ids))
    assert read_segment_ids(tmp_path / "a.png").tolist() == ids.tolist()
    with_alpha = np.dstack([ids_to_rgb(ids), np.full(ids.shape, 77, np.uint8)])
    write_png(tmp_path / "b.png", with_alpha)
    assert read_segment_ids(tmp_path / "b.png").tolist() == ids.tolist()


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("side", "change", "message"),
    [
        ("truth", lambda entry: entry.update(area=2), "segment 1 should have 2 pixels. Got: 3"),
        ("truth", lambda entry: entry.update(id=8), r"ids 1 are in the picture but not in segments_info"),
        (
            "prediction",
            lambda entry: entry.update(id=8),
            r"ids 1 are in the picture but not in segments_info",
        ),
        ("prediction", lambda entry: entry.update(id=70000), "a segment id is listed twice"),
        (
            "prediction",
            lambda entry: entry.update(category_id=99),
            "category 99, which is none of 10, 11, 12, 13, 14",
        ),
    ],
)
def test_json_and_picture_must_agree(tmp_path: Path, side: str, change: Change, message: str) -> None:
    sides: dict[str, Any] = {}
    for name in ("truth", "prediction"):
        segments = [dict(entry) for entry in SEGMENTS]
        if name == side:
            change(segments[0])
        sides[name] = {"a": (IDS, segments)}
    with pytest.raises(DataError, match=message):
        intersect_coco(*both(tmp_path, sides["truth"], sides["prediction"]))


def test_a_segment_without_pixels_is_named(tmp_path: Path) -> None:
    extra = [*SEGMENTS, {"id": 9, "category_id": 11}]
    with pytest.raises(DataError, match="ids 9 are in segments_info but have no pixel"):
        intersect_coco(*both(tmp_path, {"a": (IDS, SEGMENTS)}, {"a": (IDS, extra)}))


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    sides = both(tmp_path, {"a": (IDS, SEGMENTS)}, {"a": ([[1, 1, 1, 70000]], SEGMENTS)})
    with pytest.raises(
        DataError, match=r"a: prediction and .*prediction/a.png \(1, 4\).*truth/a.png \(2, 2\)"
    ):
        intersect_coco(*sides)


def test_pictures_that_are_not_colours_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", np.zeros((2, 2), np.uint16))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_png(tmp_path / "grey8.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=r"8-bit RGB picture.*Got: 16-bit grey; `gestalt data convert`"):
        read_segment_ids(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"8-bit RGB picture.*Got: 8-bit grey"):
        read_segment_ids(tmp_path / "grey8.png")
    with pytest.raises(DataError, match=r"broken.png is not a PNG \(10 bytes\)"):
        read_segment_ids(tmp_path / "broken.png")
    write_png(tmp_path / "whole.png", ids_to_rgb(np.arange(4096).reshape(64, 64)))
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "short.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"short.png is cut short"):
        read_segment_ids(tmp_path / "short.png")
    with pytest.raises(DataError, match="does not exist, but the JSON file names it"):
        read_segment_ids(tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is not JSON"),
        ('{"images": []}', "not in COCO panoptic form: KeyError"),
        ('{"annotations": [{"image_id": 1}]}', "not in COCO panoptic form"),
        ("[]", "not in COCO panoptic form"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_coco_panoptic(tmp_path / "a.json", tmp_path)


def test_missing_files_and_empty_ground_truth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.json does not exist"):
        read_coco_panoptic(tmp_path / "a.json", tmp_path)
    truth, prediction = both(tmp_path, {}, {"a": (IDS, SEGMENTS)})
    with pytest.raises(DataError, match="annotates no image"):
        intersect_coco(truth, prediction)
    with pytest.raises(DataError, match="lists no categories"):
        intersect_coco(prediction, truth)


def test_the_benchmark_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both(tmp_path, {"a": (IDS, SEGMENTS), "b": (IDS, SEGMENTS)}, {"a": (IDS, SEGMENTS), "c": (IDS, SEGMENTS)})
    assert main(arguments(tmp_path)) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["PQ"] == pytest.approx(200 / 3)
    assert result["per_class"]["13"] == pytest.approx(
        {"name": "class 3", "PQ": 200 / 3, "SQ": 100, "RQ": 200 / 3, "TP": 1, "FP": 0, "FN": 1}
    )
    assert {"SQ", "RQ", "thing", "stuff", "seconds"} <= set(result)
    assert result["missing_predictions"] == ["b"]
    assert result["extra_predictions"] == ["c"]
    assert "1 images have no prediction and count as missed" in captured.err


def test_the_benchmark_explains_errors_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both(tmp_path, {"a": (IDS, SEGMENTS)}, {"a": (IDS, SEGMENTS)})
    (tmp_path / "prediction" / "a.png").unlink()
    assert main(arguments(tmp_path)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "prediction/a.png does not exist" in captured.err


def test_crowds_are_ordinary_segments_in_the_void_neutral_convention(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crowd = [{"id": 1, "category_id": 13, "iscrowd": 1}]
    both(tmp_path, {"a": ([[1, 1]], crowd)}, {"a": ([[5, 5]], [{"id": 5, "category_id": 13}])})
    found = {}
    for convention in ("standard", "void-neutral"):
        assert main(arguments(tmp_path, "--convention", convention)) == 0
        found[convention] = json.loads(capsys.readouterr().out)["per_class"]["13"]["TP"]
    assert found == {"standard": 0, "void-neutral": 1}
    assert main(arguments(tmp_path, "--convention", "void-neutral", "--group-regions", "crowd")) == 0
    assert json.loads(capsys.readouterr().out)["n_classes"] == 0


REAL = {
    "cityscapes": (
        "cityscapes_results/panoptic/gt_train_two_frames.json",
        "cityscapes/gtFine/cityscapes_panoptic_train",
        "cityscapes_results/panoptic/pred_train_two_frames.json",
        "cityscapes_results/panoptic/pred_train_two_frames",
        "cityscapes_results/panoptic/expected_cityscapesscripts.json",
    ),
    "coco": (
        "coco_panoptic_sample/panoptic_examples.json",
        "coco_panoptic_sample/panoptic_examples",
        "coco_panoptic_results/pred.json",
        "coco_panoptic_results/pred",
        "coco_panoptic_results/expected_panopticapi.json",
    ),
}


@needs_samples
@pytest.mark.parametrize("name", REAL)
def test_real_predictions_give_the_numbers_of_the_official_tools(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, truth_folder, prediction, prediction_folder, expected_file = (SHARED / path for path in REAL[name])
    names = ("--ground-truth", "--ground-truth-folder", "--predictions", "--predictions-folder")
    paths = (truth, truth_folder, prediction, prediction_folder)
    assert main([word for pair in zip(names, map(str, paths)) for word in pair]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = json.loads(expected_file.read_text(encoding="utf-8"))
    for group, values in (("All", found), ("Things", found["thing"]), ("Stuff", found["stuff"])):
        assert values["n_classes"] == expected[group]["n"]
        for metric in ("PQ", "SQ", "RQ"):
            assert values[metric] == pytest.approx(100 * expected[group][metric.lower()], abs=1e-6)
    for class_id, record in expected["per_class"].items():
        for metric in ("PQ", "SQ", "RQ"):
            assert found["per_class"][class_id][metric] == pytest.approx(
                100 * record[metric.lower()], abs=1e-6
            )


@needs_samples
def test_real_coco_truth_against_itself_is_perfect() -> None:
    folder = SHARED / "coco_panoptic_sample"
    truth = read_coco_panoptic(folder / "panoptic_examples.json", folder / "panoptic_examples")
    table = intersect_coco(truth, truth)
    for convention in ("standard", "void_neutral"):
        assert panoptic_quality(table, len(truth.categories), convention).mean(range(133))["PQ"] == 100
