"""What is written of predictions: COCO panoptic, Cityscapes instance ids, pictures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.images import read_image, read_png
from gestalt.errors import ConfigError, DataError
from gestalt.inference.formats import (
    INSTANCE_ID_CLASSES,
    PREDICTIONS,
    Series,
    instance_id_classes,
    open_forms,
    to_instance_ids,
)
from gestalt.inference.predictor import PanopticPrediction
from gestalt.network.checkpoint import NetworkCard, read_card
from gestalt.network.merge import Segment
from gestalt.panoptic import VOID, PanopticMap, Vocabulary, rgb_to_ids

STREET = ("road", "sky", "building", "car", "person")


@pytest.fixture
def card(network_folder: Path) -> NetworkCard:
    """Three stuff classes and two thing classes."""
    return read_card(network_folder)


def prediction(*tracks: int) -> PanopticPrediction:
    """Road, void at the right, and things of class 3 and 4 in turns with these ids, in a row."""
    semantic, instance = np.zeros((4, 40), np.uint8), np.zeros((4, 40), np.uint16)
    semantic[:, 36:] = VOID
    segments = []
    for position, track in enumerate(tracks):
        place = np.s_[1:3, 4 * position : 4 * position + 2]
        semantic[place], instance[place] = 3 + position % 2, track
        segments.append(Segment(3 + position % 2, track, 0.9 - position / 10, 4))
    segments.append(Segment(0, 0, 0.75, 144 - 4 * len(tracks)))
    return PanopticPrediction(PanopticMap(semantic, instance), segments)


def write(
    out: Path, card: NetworkCard, *names: str, has_tracks: bool = False, rate: float | None = None
) -> None:
    """Two pictures with the same first object, and one that could not be read."""
    out.mkdir(exist_ok=True)
    with open_forms(names, Series("drive", out, card, rate, has_tracks)) as writers:
        for writer in writers:
            writer.add("a.jpg", np.zeros((4, 40, 3), np.uint8), prediction(7, 2))
            writer.miss("b.png", "torn")
            writer.add("c.png", np.zeros((4, 40, 3), np.uint8), prediction(7, 300, 9))


def test_coco_says_what_the_maps_show(tmp_path: Path, card: NetworkCard) -> None:
    write(tmp_path, card, "coco")
    content = json.loads((tmp_path / PREDICTIONS).read_text())
    assert list(content) == ["categories", "images", "annotations", "failed"]
    assert content["images"] == [
        {"id": "a", "file_name": "a.jpg", "height": 4, "width": 40},
        {"id": "c", "file_name": "c.png", "height": 4, "width": 40},
    ]
    assert content["failed"] == [{"file_name": "b.png", "reason": "torn"}]
    assert [entry["isthing"] for entry in content["categories"]] == [0, 0, 0, 1, 1]
    second = content["annotations"][1]
    assert (second["image_id"], second["file_name"]) == ("c", "c_panoptic.png")
    # Id 1 + class + 256 * track, so that a track has one id in every picture.
    expected = {1: 0.75, 1 + 3 + 256 * 7: 0.9, 1 + 4 + 256 * 300: 0.8, 1 + 3 + 256 * 9: 0.7}
    assert {entry["id"]: entry["score"] for entry in second["segments_info"]} == expected
    ids = rgb_to_ids(read_png(tmp_path / "c_panoptic.png"))
    assert set(np.unique(ids).tolist()) == {0, *expected}
    first = content["annotations"][0]["segments_info"]
    assert 1 + 3 + 256 * 7 in {entry["id"] for entry in first}


def test_nothing_that_spans_all_pictures_appears_when_the_work_breaks_off(
    tmp_path: Path, card: NetworkCard
) -> None:
    def break_off() -> None:
        with open_forms(
            ["coco", "cityscapes", "overlay"], Series("x", tmp_path, card, 5.0, False)
        ) as writers:
            for writer in writers:
                writer.add("a.png", np.zeros((4, 40, 3), np.uint8), prediction(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_gtFine_instanceIds.png", "a_panoptic.png"]


def test_a_network_that_knows_the_names_writes_the_ids_of_cityscapes(
    tmp_path: Path, card: NetworkCard
) -> None:
    write(tmp_path, dataclasses.replace(card, class_names=STREET), "cityscapes")
    ids = read_png(tmp_path / "c_gtFine_instanceIds.png")
    assert ids.dtype == np.uint16
    # Cars 7 and 9 are the first and the second of the picture.
    assert [int(value) for value in (ids[1, 0], ids[1, 4], ids[1, 8], ids[0, 0], ids[0, 39])] == [
        26000,
        24000,
        26001,
        7,
        0,
    ]
    content = json.loads((tmp_path / INSTANCE_ID_CLASSES).read_text())
    assert content["ids"] == "cityscapes"
    assert [entry["id"] for entry in content["classes"]] == [7, 23, 11, 26, 24]


@pytest.mark.parametrize("names", [(), ("road", "sky", "building", "car", "pseudo-class 1")])
def test_without_all_names_pseudo_classes_are_counted_from_1(
    tmp_path: Path, card: NetworkCard, names: tuple[str, ...]
) -> None:
    write(tmp_path, dataclasses.replace(card, class_names=names), "cityscapes")
    ids = read_png(tmp_path / "a_gtFine_instanceIds.png")
    assert np.unique(ids).tolist() == [0, 1, 4000, 5000]
    content = json.loads((tmp_path / INSTANCE_ID_CLASSES).read_text())
    assert content["ids"] == "unified class + 1"
    assert [(entry["id"], entry["isthing"]) for entry in content["classes"]] == [
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 1),
        (5, 1),
    ]


def test_classes_that_share_an_id_share_its_numbers(card: NetworkCard) -> None:
    both_cars = dataclasses.replace(card, class_names=("road", "sky", "building", "car", "car"))
    ids = to_instance_ids(prediction(5, 6, 1).panoptic, instance_id_classes(both_cars)[0])
    # In ascending order of their ids: 1, 5, 6.
    assert [int(ids[1, column]) for column in (0, 4, 8)] == [26001, 26002, 26000]


def test_things_without_an_instance_are_a_group_as_in_cityscapes(card: NetworkCard) -> None:
    semantic = np.array([[3, 3, 0, VOID]], np.uint8)
    panoptic = PanopticMap(semantic, np.array([[0, 1, 0, 0]], np.uint16))
    assert to_instance_ids(panoptic, instance_id_classes(card)[0]).tolist() == [[4, 4000, 1, 0]]


def test_what_does_not_fit_16_bits_is_refused(tmp_path: Path, card: NetworkCard) -> None:
    many = dataclasses.replace(
        card, vocabulary=Vocabulary(things=tuple(range(64, 66)), stuff=tuple(range(64)))
    )
    with pytest.raises(
        DataError, match=r"things up to class 64; this network's go up to 66\. Use the form coco"
    ):
        write(tmp_path, many, "cityscapes")
    crowd = np.arange(1, 1003, dtype=np.uint16)[None]
    with pytest.raises(DataError, match=r"1000 objects of a class in a picture\. Got: 1002 of class 4"):
        to_instance_ids(PanopticMap(np.full_like(crowd, 3, np.uint8), crowd), instance_id_classes(card)[0])


@pytest.mark.parametrize(("names", "said"), [((), "Got: none"), (("coco", "yolo"), "Got: coco, yolo")])
def test_other_forms_are_refused(
    tmp_path: Path, card: NetworkCard, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"must be one of overlay, coco, cityscapes\. {said}"):
        write(tmp_path, card, *names)


def test_a_form_that_is_named_twice_is_written_once(tmp_path: Path, card: NetworkCard) -> None:
    with open_forms(["coco", "coco"], Series("x", tmp_path, card, None, False)) as writers:
        assert len(writers) == 1


def test_the_colour_of_a_track_stays_from_picture_to_picture(tmp_path: Path, card: NetworkCard) -> None:
    # Without an outline there is no pixel inside objects this small, so the pictures are enlarged.
    large = [
        PanopticPrediction(
            PanopticMap(
                np.kron(entry.panoptic.semantic_map, np.ones((5, 5), np.uint8)),
                np.kron(entry.panoptic.instance_map, np.ones((5, 5), np.uint16)),
            ),
            entry.segments,
        )
        for entry in (prediction(7, 2, 9), prediction(9, 2, 7))
    ]
    for has_tracks, out in ((True, tmp_path / "tracks"), (False, tmp_path / "classes")):
        out.mkdir()
        with open_forms(["overlay"], Series("x", out, card, None, has_tracks)) as (writer,):
            for name, entry in zip("ab", large, strict=True):
                writer.add(f"{name}.png", np.zeros((20, 200, 3), np.uint8), entry)
    first, second = (read_image(tmp_path / "tracks" / f"{name}_overlay.png") for name in "ab")
    assert (first[10, 5] == second[10, 45]).all()  # track 7
    assert (first[10, 45] == second[10, 5]).all()  # track 9
    assert (first[10, 5] != first[10, 45]).any()
    plain = read_image(tmp_path / "classes" / "a_overlay.png")
    assert (plain[10, 5] == plain[10, 45]).all()
