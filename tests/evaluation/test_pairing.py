from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gestalt.data.ground_truth import find_frames
from gestalt.errors import DataError
from gestalt.evaluation.evaluate import intersect_folder
from gestalt.evaluation.evaluated_images import bare_name
from gestalt.evaluation.image_pairs import intersect_pairs
from gestalt.evaluation.pairing import pair_sides
from gestalt.evaluation.predicted_side import shard_predicted
from gestalt.evaluation.protocols import load_protocol
from gestalt.evaluation.table_files import COLUMNS
from gestalt.evaluation.truth_side import frame_truth
from gestalt.panoptic import Vocabulary
from tests.evaluation.maps import maps_of, random_map, write_cityscapes_truth, write_maps

PROTOCOL = dataclasses.replace(load_protocol("cityscapes19"), image_size=None, n_images=None)


def test_frames_and_shards_have_the_table_of_the_pipeline(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    values, maps = {}, {}
    label_ids = np.array([7, 11, 23, 24, 26])
    for number in range(5):
        truth = random_map(generator, void_share=0)
        raw = label_ids[truth.semantic_map]
        values[f"aachen_000000_00000{number}"] = np.where(
            truth.instance_map > 0, raw * 1000 + truth.instance_map, raw
        )
        maps[f"aachen_000000_00000{number}"] = random_map(generator)
    write_cityscapes_truth(tmp_path / "truth", values)
    del maps["aachen_000000_000003"]
    folder = write_maps(tmp_path / "work" / "final", {name: maps_of(side) for name, side in maps.items()})
    frames = find_frames("cityscapes", tmp_path / "truth", {"split": "val"})
    expected, coverage = intersect_folder(folder, frames, PROTOCOL, n_pseudo_classes=5, label="maps")
    predicted = shard_predicted(tmp_path / "work" / "final", Vocabulary(things=(3, 4), stuff=(0, 1, 2)))
    paired = pair_sides(frame_truth(frames, PROTOCOL, "cityscapes"), predicted)
    found = intersect_pairs(paired.pairs, protocol=PROTOCOL)
    assert paired.coverage == coverage
    assert found.image_ids == expected.image_ids
    for column in COLUMNS:
        assert getattr(found, column).tolist() == getattr(expected, column).tolist()
    few = shard_predicted(tmp_path / "work" / "final", Vocabulary(things=(3,), stuff=(0, 1, 2)))
    paired = pair_sides(frame_truth(frames, PROTOCOL, "cityscapes"), few)
    with pytest.raises(
        DataError, match=r"pseudo-classes must be 0..3, or 255 for void. Got: 4; these maps were"
    ):
        intersect_pairs(paired.pairs)


def test_ids_of_another_data_set_are_named(tmp_path: Path) -> None:
    write_cityscapes_truth(tmp_path / "truth", {"aachen_000000_000000": np.array([[7, 60]])})
    frames = find_frames("cityscapes", tmp_path / "truth", {"split": "val"})
    truth = frame_truth(frames, PROTOCOL, "cityscapes")
    write_maps(
        tmp_path / "work" / "final",
        {"aachen_000000_000000": maps_of(random_map(np.random.default_rng(0), size=(3, 3)))},
    )
    predicted = shard_predicted(tmp_path / "work" / "final", Vocabulary(things=(3, 4), stuff=(0, 1, 2)))
    with pytest.raises(DataError, match=r"must have one size"):
        intersect_pairs(pair_sides(truth, predicted).pairs)
    alone = [dataclasses.replace(pair, prediction=None) for pair in pair_sides(truth, predicted).pairs]
    with pytest.raises(DataError, match=r"the ids must be those of cityscapes. Got: 60"):
        intersect_pairs(alone)


def test_names_of_one_image_lose_what_data_sets_append() -> None:
    names = [
        "a_0_leftImg8bit",
        "a_0_gtFine_panoptic",
        "a_0_leftImg8bit_panoptic",
        "a_0_gtFine_instanceIds",
        "a_0",
    ]
    assert {bare_name(name) for name in names} == {"a_0"}
