from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gestalt.errors import DataError
from gestalt.evaluation.evaluate import evaluate_table
from gestalt.evaluation.image_pairs import (
    ImagePair,
    Named,
    Pixels,
    ReadPixels,
    intersect_pairs,
    intersect_to_files,
    panoptic_of,
)
from gestalt.evaluation.intersections import IntArray, intersect, merge_tables
from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.table_files import COLUMNS, write_table
from gestalt.evaluation.window import evaluated_window
from gestalt.panoptic import VOID, PanopticMap
from tests.evaluation.maps import panoptic, random_map, shifted

PROTOCOL = dataclasses.replace(load_protocol("cityscapes19"), image_size=None, n_images=None)
SIZE = (24, 32)


def name_as_they_are(values: Sequence[IntArray], n_pixels: IntArray) -> Named:
    return values[0], values[1], np.zeros(len(n_pixels), np.bool_)


def of_map(side: PanopticMap) -> Pixels:
    return Pixels((side.semantic_map, side.instance_map), name_as_they_are, "memory")


def fail(message: str) -> Pixels:
    raise DataError(message)


def example(n_images: int) -> tuple[list[ImagePair], dict[str, tuple[PanopticMap | None, PanopticMap]]]:
    """Images of which every seventh has no prediction."""
    generator = np.random.default_rng(2)
    maps: dict[str, tuple[PanopticMap | None, PanopticMap]] = {}
    for number in range(n_images):
        truth = random_map(generator, size=SIZE)
        maps[f"{number:03}"] = (None if number % 7 == 6 else shifted(truth, generator), truth)
    pairs = [
        ImagePair(name, partial(of_map, truth), None if prediction is None else partial(of_map, prediction))
        for name, (prediction, truth) in maps.items()
    ]
    return pairs, maps


def test_tables_are_those_of_the_maps() -> None:
    pairs, maps = example(9)
    expected = merge_tables(intersect(name, *sides) for name, sides in maps.items())
    found = intersect_pairs(pairs)
    assert found.image_ids == expected.image_ids
    for column in COLUMNS:
        assert getattr(found, column).tolist() == getattr(expected, column).tolist()


@pytest.mark.parametrize(
    "changes", [{"short_side_px": 12}, {"crop": (10, 16)}, {"short_side_px": 36, "crop": (20, 30)}]
)
def test_only_the_window_of_the_protocol_counts(changes: dict[str, Any]) -> None:
    pairs, maps = example(7)
    protocol = dataclasses.replace(PROTOCOL, **changes)
    expected = merge_tables(
        intersect(
            name,
            None if prediction is None else evaluated_window(prediction, protocol),
            evaluated_window(truth, protocol),
        )
        for name, (prediction, truth) in maps.items()
    )
    found = intersect_pairs(pairs, protocol=protocol)
    assert found.n_pixels.tolist() == expected.n_pixels.tolist()
    assert found.predicted_class.tolist() == expected.predicted_class.tolist()


def test_two_processes_give_the_bytes_of_one(tmp_path: Path) -> None:
    pairs, _ = example(20)
    for workers in (1, 2):
        place = tmp_path / str(workers)
        place.mkdir()
        files = intersect_to_files(pairs[::-1], place, workers=workers, part_images=7)
        assert [path.name for path in files.paths] == [f"part_{number:06}.parquet" for number in range(3)]
        write_table(place / "whole.parquet", intersect_pairs(pairs, workers=workers))
    for path in sorted((tmp_path / "1").iterdir()):
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_parts_have_the_numbers_of_the_whole(tmp_path: Path) -> None:
    pairs, _ = example(15)
    files = intersect_to_files(pairs, tmp_path, part_images=4)
    assert [len(part.image_ids) for part in files] == [4, 4, 4, 3]
    protocol = dataclasses.replace(PROTOCOL, min_object_px=20, min_stuff_px=10)
    whole, parts = (
        evaluate_table(tables, protocol, things=[3, 4], stuff=[0, 1, 2])
        for tables in (intersect_pairs(pairs), files)
    )
    assert parts.to_dict() == whole.to_dict()
    assert parts.panoptic_counts["standard"].image_ids == whole.panoptic_counts["standard"].image_ids


def test_all_faults_are_counted_and_the_first_ten_shown() -> None:
    pairs, _ = example(3)
    broken: list[ReadPixels] = [partial(fail, f"broken file {number}") for number in range(12)]
    pairs += [ImagePair(f"x{number:02}", read, None) for number, read in enumerate(broken)]
    with pytest.raises(DataError) as raised:
        intersect_pairs(pairs, label="mine")
    lines = str(raised.value).splitlines()
    assert lines[0] == "mine: 12 of 15 images cannot be compared:"
    assert lines[1] == "  x00: broken file 0"
    assert lines[11:] == ["  and 2 more"]


def test_sizes_are_those_of_the_protocol_and_of_each_other() -> None:
    small, large = panoptic([[0, 1]]), panoptic([[0, 1], [1, 0]])
    pair = ImagePair("a", partial(of_map, small), partial(of_map, large))
    with pytest.raises(DataError, match=r"a: .* one size \(H, W\).*Got: memory \(2, 2\), memory \(1, 2\)"):
        intersect_pairs([pair])
    protocol = dataclasses.replace(PROTOCOL, image_size=(4, 4))
    with pytest.raises(DataError, match=r"defined for images of \(4, 4\) .* Got: memory \(1, 2\)"):
        intersect_pairs([pair], protocol=protocol)
    with pytest.raises(DataError, match="the ground truth is empty"):
        intersect_pairs([])


def test_colours_and_maps_of_one_picture_are_one_panoptic_map() -> None:
    ids = np.array([[0, 70000], [5, 5]])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)

    def name(values: Sequence[IntArray], n_pixels: IntArray) -> Named:
        classes = np.array([{0: VOID, 70000: 3, 5: 1}[value] for value in values[0].tolist()])
        return classes, values[0], np.zeros(len(classes), np.bool_)

    found = panoptic_of(Pixels((colours,), name, "memory"))
    assert found.semantic_map.tolist() == [[VOID, 3], [1, 1]]
    instance = found.instance_map
    assert instance[0, 0] == 0
    assert instance[1, 0] == instance[1, 1] != instance[0, 1] > 0
    matched = panoptic_of(Pixels((colours,), name, "memory"), np.array([VOID, 9, VOID, 11, *[VOID] * 252]))
    assert matched.semantic_map.tolist() == [[VOID, 11], [9, 9]]
