"""`gestalt evaluate` as it is typed: numbers, names of what is missing, and files that contradict each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt import cli
from gestalt.data.images import read_png, write_png
from gestalt.evaluation.evaluate import evaluate_table
from gestalt.evaluation.intersections import intersect, merge_tables
from gestalt.evaluation.protocols import load_protocol
from gestalt.panoptic import PanopticMap, ids_to_rgb, segment_ids, segments_info
from tests.evaluation.maps import SHARED, maps_of, needs_samples, panoptic, random_map, shifted, write_maps

# Classes of Cityscapes and their label ids: three stuff, two thing classes.
NAMES = {7: "road", 11: "building", 23: "sky", 24: "person", 26: "car"}
CLASS_OF = {7: 0, 11: 2, 23: 10, 24: 11, 26: 13}
LABEL_IDS = np.array(list(NAMES))
THINGS = (24, 26)
CATEGORIES = [{"id": key, "name": name, "isthing": int(key in THINGS)} for key, name in NAMES.items()]


def write_coco(
    path: Path,
    maps: dict[str, PanopticMap],
    *,
    categories: Sequence[dict[str, Any]] = CATEGORIES,
    ids: Sequence[int] = tuple(NAMES),
    scored: bool = False,
    sequence: str = "",
) -> Path:
    """Maps of classes 0..4 as COCO panoptic files with the categories ``ids``."""
    annotations, images = [], []
    for number, (image_id, side) in enumerate(maps.items()):
        write_png(path.with_suffix("") / f"{image_id}_panoptic.png", ids_to_rgb(segment_ids(side)))
        segments = segments_info(side, (3, 4))
        for place, segment in enumerate(segments):
            segment["category_id"] = ids[segment["category_id"]]
            if scored:
                segment["score"] = 1 - place / 100
        file_name = f"{image_id}_panoptic.png"
        annotations.append({"image_id": image_id, "file_name": file_name, "segments_info": segments})
        images.append(
            {"id": image_id, "file_name": f"{image_id}.png", "sequence": sequence, "number": number}
        )
    content = {"images": images, "annotations": annotations, "categories": list(categories)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def example(n_images: int = 4) -> tuple[dict[str, PanopticMap], dict[str, PanopticMap]]:
    generator = np.random.default_rng(8)
    truths = {f"image{number}": random_map(generator) for number in range(n_images)}
    return truths, {name: shifted(truth, generator) for name, truth in truths.items()}


def run(*words: object) -> int:
    """Exit code of the command."""
    try:
        cli.main(["evaluate", *map(str, words)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def sides(truth: Path, prediction: Path) -> list[object]:
    return ["--ground-truth", truth, "--predictions", prediction]


def report(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    return content


def test_known_classes_give_the_numbers_of_the_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths, predictions = example()
    files = sides(
        write_coco(tmp_path / "truth.json", truths), write_coco(tmp_path / "prediction.json", predictions)
    )
    assert run(*files, "--protocol", "cityscapes7", "--out", tmp_path / "none") == 1
    assert "defined for images of" in capsys.readouterr().err
    protocol = tmp_path / "small.yaml"
    protocol.write_text("extends: cityscapes19\nimage_size: null\nn_images: 5\n", encoding="utf-8")
    assert run(*files, "--protocol", protocol, "--out", tmp_path / "out") == 0
    table = np.array([CLASS_OF[key] for key in NAMES] + [255] * 251, np.uint8)

    def as_classes(side: PanopticMap) -> PanopticMap:
        return PanopticMap(table[side.semantic_map], side.instance_map)

    expected = evaluate_table(
        merge_tables(
            intersect(name, as_classes(predictions[name]), as_classes(truth))
            for name, truth in truths.items()
        ),
        load_protocol(str(protocol)),
        things=range(11, 19),
        stuff=range(11),
        classes=range(19),
    ).to_dict()
    found = report(tmp_path / "out")
    for convention in ("void_neutral", "standard"):
        assert found[convention] == expected[convention]
    assert found["per_class"] == expected["per_class"]
    said = capsys.readouterr()
    assert f"protocol {expected['protocol']}" in said.out
    assert "categories known by their ids, those of cityscapes" in said.out
    assert "the benchmark of protocol small has 5 images" in said.err
    assert read_png(tmp_path / "out" / "worst_images.png").shape[2] == 3


def test_names_tell_categories_whose_ids_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths, predictions = example()
    renamed = [{**entry, "id": place} for place, entry in enumerate(CATEGORIES)]
    truth = write_coco(tmp_path / "truth.json", truths)
    by_id = write_coco(tmp_path / "by_id.json", predictions)
    by_name = write_coco(tmp_path / "by_name.json", predictions, categories=renamed, ids=range(5))
    assert run(*sides(truth, by_id), "--out", tmp_path / "a") == 0
    assert "predictions: categories known by their ids, those of the ground truth" in capsys.readouterr().out
    assert run(*sides(truth, by_name), "--out", tmp_path / "b") == 0
    assert "predictions: categories known by their names" in capsys.readouterr().out
    assert report(tmp_path / "a")["standard"] == report(tmp_path / "b")["standard"]
    strangers = [{**entry, "name": f"thing {entry['id']}"} for entry in CATEGORIES]
    other = write_coco(tmp_path / "other.json", predictions, categories=strangers)
    assert run(*sides(truth, other)) == 1
    assert "give --classes match where they are pseudo-classes" in capsys.readouterr().err


def test_pseudo_classes_are_matched_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths, _ = example()
    order = (2, 0, 1, 4, 3)
    named = [{"id": place, "name": f"pseudo {place}", "isthing": int(place >= 3)} for place in range(5)]
    truth = write_coco(tmp_path / "truth.json", truths)
    prediction = write_coco(tmp_path / "prediction.json", truths, categories=named, ids=order)
    assert run(*sides(truth, prediction), "--classes", "match", "--out", tmp_path / "out") == 0
    found = report(tmp_path / "out")
    # Group regions are crowds in the standard convention; nothing else is wrong.
    assert found["standard"]["SQ"] == found["standard"]["RQ"] == 100
    assert {entry["name"]: entry["class"] for entry in found["assignment"]} == {
        f"pseudo {pseudo}": list(NAMES.values())[place] for place, pseudo in enumerate(order)
    }
    assert "pseudo 2" in capsys.readouterr().out


def test_void_categories_are_void_and_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths, predictions = example()
    marked = [{**entry, "supercategory": "void" if entry["name"] == "sky" else "any"} for entry in CATEGORIES]

    def without_sky(side: PanopticMap) -> PanopticMap:
        is_sky = side.semantic_map == 2
        return PanopticMap(
            np.where(is_sky, 255, side.semantic_map).astype(np.uint8),
            np.where(is_sky, 0, side.instance_map).astype(np.uint16),
        )

    found = {}
    for name, categories, change in (
        ("marked", marked, lambda side: side),
        ("removed", [entry for entry in CATEGORIES if entry["name"] != "sky"], without_sky),
    ):
        files = [
            write_coco(
                tmp_path / f"{name}_{kind}.json",
                {key: change(side) for key, side in maps.items()},
                categories=categories,
            )
            for kind, maps in (("truth", truths), ("prediction", predictions))
        ]
        assert run(*sides(*files), "--out", tmp_path / name) == 0
        assert "no protocol: the 4 categories" in capsys.readouterr().out
        found[name] = report(tmp_path / name)
    assert [entry["class"] for entry in found["marked"]["per_class"]] == ["road", "building", "person", "car"]
    for part in ("standard", "void_neutral", "per_class", "mIoU", "protocol"):
        assert found["marked"][part] == found["removed"][part]


def test_missing_and_extra_predictions_are_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths, predictions = example(13)
    truth = write_coco(tmp_path / "truth.json", truths)
    few = {"image0": predictions["image0"], "stranger": predictions["image1"]}
    assert run(*sides(truth, write_coco(tmp_path / "few.json", few)), "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "12 images have no prediction and count as missed: image1, image10, image11" in said
    assert "and 2 more" in said
    assert "1 predictions have no ground truth and count for nothing: stranger" in said
    coverage = report(tmp_path / "out")["coverage"]
    assert (coverage["n_images"], coverage["n_missing"], coverage["n_extra"]) == (13, 12, 1)
    none = write_coco(tmp_path / "none.json", {"stranger": predictions["image1"]})
    assert run(*sides(truth, none)) == 1
    assert "none of the 13 images with ground truth has a prediction" in capsys.readouterr().err


def spoil_size(folder: Path) -> None:
    path = folder / "prediction" / "image1_panoptic.png"
    write_png(path, read_png(path)[:-1])


def spoil_bits(folder: Path) -> None:
    path = folder / "prediction" / "image1_panoptic.png"
    write_png(path, read_png(path)[..., 0])


def spoil_json(folder: Path) -> None:
    path = folder / "prediction.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segments_info"].pop()
    path.write_text(json.dumps(content))


def empty_json(folder: Path) -> None:
    path = folder / "prediction.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))


def empty_truth(folder: Path) -> None:
    path = folder / "truth.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))


def lose_picture(folder: Path) -> None:
    (folder / "prediction" / "image1_panoptic.png").unlink()


def cut_json(folder: Path) -> None:
    path = folder / "prediction.json"
    path.write_text(path.read_text()[:-10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            spoil_size,
            "1 of 4 images cannot be compared:\n  image1: prediction and ground truth must have one size",
        ),
        (spoil_bits, "image1_panoptic.png must be an 8-bit RGB picture"),
        (spoil_json, "are in the picture but not in segments_info"),
        (empty_json, "prediction.json annotates no image; there is nothing to evaluate"),
        (empty_truth, "truth.json annotates no image; there is nothing to evaluate"),
        (lose_picture, "image1_panoptic.png does not exist, but the JSON file names it"),
        (cut_json, "prediction.json is not JSON, or cut short"),
    ],
)
def test_files_that_contradict_each_other_print_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], message: str
) -> None:
    truths, predictions = example()
    files = sides(
        write_coco(tmp_path / "truth.json", truths), write_coco(tmp_path / "prediction.json", predictions)
    )
    spoil(tmp_path)
    assert run(*files, "--out", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_only_the_first_ten_faults_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths, predictions = example(12)
    truth = write_coco(tmp_path / "truth.json", truths)
    prediction = write_coco(tmp_path / "prediction.json", predictions)
    for path in (tmp_path / "prediction").iterdir():
        write_png(path, read_png(path)[1:])
    assert run(*sides(truth, prediction)) == 1
    said = capsys.readouterr().err
    assert "12 of 12 images cannot be compared" in said
    assert said.count(": prediction and ground truth must have one size") == 10
    assert "and 2 more" in said


def test_scores_sequences_and_borders_add_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths, predictions = example()
    truth = write_coco(tmp_path / "truth.json", truths, sequence="street")
    same = write_coco(tmp_path / "same.json", truths, scored=True)
    words = ["--ap", "--calibration", "--video", "--boundary", "--out", tmp_path / "out"]
    assert run(*sides(truth, same), *words) == 0
    found = report(tmp_path / "out")
    assert found["average_precision"]["class_agnostic"]["AR100"] == pytest.approx(100)
    assert found["average_precision"]["of_classes"]["AP"] == pytest.approx(100)
    assert found["calibration"]["hit_share"] == 1
    assert found["video"]["STQ"] == pytest.approx(100)
    assert list(found["video"]["VPQ"]) == found["protocol_fields"]["conventions"]
    assert found["boundary"]["standard"]["boundary_SQ"] == 100
    capsys.readouterr()
    plain = write_coco(tmp_path / "plain.json", predictions)
    assert run(*sides(truth, plain), "--ap") == 1
    assert "no predicted segment has a score; write `score`" in capsys.readouterr().err
    single = write_coco(tmp_path / "single.json", truths)
    assert run(*sides(single, same), "--video") == 1
    assert "4 of 4 images belong to no sequence" in capsys.readouterr().err


def test_our_own_shards_are_matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truths, _ = example()
    order = np.array([1, 0, 2, 4, 3, *[255] * 251], np.uint8)
    shards = {name: PanopticMap(order[side.semantic_map], side.instance_map) for name, side in truths.items()}
    write_maps(tmp_path / "data" / "final", {name: maps_of(side) for name, side in shards.items()})
    card = tmp_path / "models" / "final" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"vocabulary": {"stuff": [0, 1, 2], "things": [3, 4]}}), encoding="utf-8")
    truth = write_coco(tmp_path / "truth.json", truths)
    monkeypatch.chdir(tmp_path)
    assert run(*sides(truth, tmp_path / "data" / "final"), "--out", tmp_path / "out") == 0
    found = report(tmp_path / "out")
    assert found["standard"]["RQ"] == 100
    assert [entry["class"] for entry in found["assignment"]] == ["building", "road", "sky", "car", "person"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "cityscapes91"], "there is no protocol 'cityscapes91'; known: bdd19"),
        (["--classes", "guess"], "--classes must be one of known, match. Got: 'guess'"),
        (["--adapter", "cityscapes"], "an adapter reads a folder"),
    ],
)
def test_what_cannot_be_meant_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    truths, predictions = example(1)
    files = sides(
        write_coco(tmp_path / "truth.json", truths), write_coco(tmp_path / "prediction.json", predictions)
    )
    assert run(*files, *words) == 1
    assert message in capsys.readouterr().err


def test_folders_need_to_say_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "truth.json", {"a": panoptic([[0, 1]])})
    (tmp_path / "empty").mkdir()
    assert run(*sides(tmp_path / "empty", path)) == 1
    assert "say how it is laid out with --adapter" in capsys.readouterr().err
    assert run(*sides(path, tmp_path / "empty")) == 1
    assert (
        "must be a shard folder (index.parquet) or hold one COCO panoptic JSON. Got: none"
        in capsys.readouterr().err
    )
    assert run(*sides(path, tmp_path / "gone.json")) == 1
    assert "gone.json does not exist" in capsys.readouterr().err


@needs_samples
@pytest.mark.parametrize("is_frames", [False, True])
def test_real_cityscapes_predictions_give_the_official_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_frames: bool
) -> None:
    results = SHARED / "cityscapes_results" / "panoptic"
    expected = json.loads((results / "expected_cityscapesscripts.json").read_text(encoding="utf-8"))
    words: list[object] = [
        "--predictions",
        results / "pred_train_two_frames.json",
        "--out",
        tmp_path,
        "--worst",
        0,
    ]
    if is_frames:
        root = tmp_path / "two_frames"
        place = root / "gtFine" / "train" / "aachen"
        place.mkdir(parents=True)
        for path in (SHARED / "cityscapes" / "gtFine" / "train" / "aachen").glob("aachen_00000[34]*"):
            (place / path.name).symlink_to(path)
        words += ["--ground-truth", root, "--adapter", "cityscapes", "--option", "split=train"]
    else:
        words += ["--ground-truth", results / "gt_train_two_frames.json"]
        words += ["--ground-truth-folder", SHARED / "cityscapes" / "gtFine" / "cityscapes_panoptic_train"]
    for protocol in ("cityscapes19", "cityscapes19_official"):
        assert run(*words, "--protocol", protocol) == 0
        found = report(tmp_path)["standard"]
        for group, values in (("All", found), ("Things", found["thing"]), ("Stuff", found["stuff"])):
            for metric in ("PQ", "SQ", "RQ"):
                assert values[metric] == pytest.approx(100 * expected[group][metric.lower()], abs=1e-6)
    capsys.readouterr()
