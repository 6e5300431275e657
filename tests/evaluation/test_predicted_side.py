from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt.data.coco_files import read_coco_panoptic
from gestalt.data.images import write_png
from gestalt.errors import DataError
from gestalt.evaluation.image_pairs import class_maps
from gestalt.evaluation.predicted_side import PredictedSide, coco_predicted
from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.truth_side import coco_truth, frame_truth
from gestalt.panoptic import VOID, PanopticMap, ids_to_rgb, segment_ids, segments_info
from tests.evaluation.maps import panoptic, random_map

PROTOCOL = dataclasses.replace(load_protocol("cityscapes19"), image_size=None, n_images=None)
TRUTH = frame_truth([], PROTOCOL, "cityscapes")
NAMES = ("road", "building", "sky", "person", "car")


def write_coco(folder: Path, maps: dict[str, PanopticMap], names: Any = NAMES, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    annotations = []
    for name, side in maps.items():
        write_png(folder / f"{name}_panoptic.png", ids_to_rgb(segment_ids(side)))
        annotations.append(
            {
                "image_id": name,
                "file_name": f"{name}_panoptic.png",
                "segments_info": segments_info(side, (3, 4)),
            }
        )
    content: dict[str, Any] = {
        "categories": [{"id": i, "name": name, "isthing": int(i > 2)} for i, name in enumerate(names)],
        "annotations": annotations,
    }
    path = folder / "predictions.json"
    path.write_text(json.dumps(content | changes))
    return path


def opened(path: Path) -> PredictedSide:
    return coco_predicted(read_coco_panoptic(path), TRUTH, "named")


def test_coco_files_hold_the_same_segments(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    maps = {f"image{number}": random_map(generator) for number in range(3)}
    names = ("stuff 0", "stuff 1", "stuff 2", "thing 0", "thing 1")
    predicted = opened(write_coco(tmp_path, maps, names))
    assert list(predicted.images) == sorted(maps)
    assert (predicted.stuff, predicted.things) == ((0, 1, 2), (3, 4))
    for name, side in maps.items():
        semantic, instance = class_maps(predicted.images[name].read())
        np.testing.assert_array_equal(semantic, side.semantic_map)
        # Segments may be numbered anew, one number each.
        pairs = set(zip(side.instance_map[semantic != VOID].tolist(), instance[semantic != VOID].tolist()))
        in_things = {pair for pair in pairs if pair[0]}
        assert (
            len({mine for mine, _ in in_things}) == len({other for _, other in in_things}) == len(in_things)
        )
        assert {other for mine, other in pairs if not mine} <= {0}


def test_categories_named_like_classes_are_these_classes(tmp_path: Path) -> None:
    side = random_map(np.random.default_rng(0))
    predicted = opened(write_coco(tmp_path / "a", {"image": side}))
    assert predicted.classes == tuple(range(19))
    class_of = np.array([0, 2, 10, 11, 13, *[VOID] * 251])
    semantic, _ = class_maps(predicted.images["image"].read())
    np.testing.assert_array_equal(semantic, class_of[side.semantic_map])
    names = ("road", "building", "stuff 2", "thing 0", "thing 1")
    assert opened(write_coco(tmp_path / "b", {"image": side}, names)).classes == ()


def test_numbers_alone_are_pseudo_classes_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    # 0 to 4 are ids of Cityscapes as well.
    path = write_coco(tmp_path, {"image": random_map(np.random.default_rng(0))}, tuple("01234"))
    assert opened(path).classes == ()
    assert coco_predicted(read_coco_panoptic(path), TRUTH, "known").classes == tuple(range(19))


def test_void_categories_of_the_truth_are_void_on_both_sides(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "road", "isthing": 0},
        {"id": 1, "name": "ego vehicle", "isthing": 1, "supercategory": "void"},
        {"id": 2, "name": "car", "isthing": 1},
    ]
    side = panoptic([[0, 0, 1, 1, 2]], [[0, 0, 3, 3, 4]])
    content = read_coco_panoptic(write_coco(tmp_path, {"image": side}, categories=categories))
    truth = coco_truth(content, None)
    assert [entry.name for entry in truth.space.classes] == ["road", "car"]
    for classes in ("known", "match"):
        predicted = coco_predicted(content, truth, classes)  # type: ignore[arg-type]
        assert predicted.names == ("road", "car")
        for of_side in (truth, predicted):
            semantic, instance = class_maps(of_side.images["image"].read())
            assert semantic.tolist() == [[0, 0, VOID, VOID, 1]]
            assert instance[0, 2:4].tolist() == [0, 0]


def test_broken_files_are_explained(tmp_path: Path) -> None:
    maps = {"image": random_map(np.random.default_rng(0))}
    path = write_coco(tmp_path, maps, categories=[])
    with pytest.raises(DataError, match=r"lists no categories; 1..255 with id, name and isthing must stand"):
        opened(path)
    entry = {"image_id": "image", "file_name": "image_panoptic.png", "segments_info": []}
    path = write_coco(tmp_path, maps, annotations=[entry])
    with pytest.raises(DataError, match=r"image_panoptic.png: ids .* are in the picture but not in segments"):
        class_maps(opened(path).images["image"].read())
    path = write_coco(tmp_path, maps, annotations=[entry, entry])
    with pytest.raises(DataError, match="1 images are annotated twice, such as image"):
        opened(path)
    path = write_coco(tmp_path, maps, categories=[{"id": 1, "name": "a", "isthing": 0}] * 2)
    with pytest.raises(DataError, match=r"a category must be listed once\. Got twice: 1"):
        opened(path)
