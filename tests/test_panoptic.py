"""Encodings survive round trips and are read right; what breaks the rules of the problem is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import (
    INSTANCES_PER_CLASS,
    VOID,
    LabelClass,
    LabelSpace,
    PanopticMap,
    Vocabulary,
    from_instance_ids,
    ids_to_rgb,
    rgb_to_ids,
    segment_ids,
    segments_info,
)


def random_panoptic(seed: int, height: int = 12, width: int = 17) -> PanopticMap:
    generator = np.random.default_rng(seed)
    instance = generator.integers(0, 5, (height, width)).astype(np.uint16) * 13000
    semantic = generator.choice([0, 3, 7, VOID], (height, width)).astype(np.uint8)
    for number in np.unique(instance[instance > 0]):
        semantic[instance == number] = generator.choice([24, 26])
    return PanopticMap(semantic, instance)


@given(st.integers(0, 2**32))
def test_cityscapes_ids_are_classes_and_instances_in_ascending_order(seed: int) -> None:
    values = [0, 7, VOID, 24, 24000, 24007, 26000, 26999]
    ids = np.random.default_rng(seed).choice(values, (3, 4))
    panoptic = from_instance_ids(ids)
    is_instance = ids >= INSTANCES_PER_CLASS
    numbers = np.searchsorted(np.unique(ids[is_instance]), ids) + 1
    assert np.array_equal(panoptic.semantic_map, np.where(is_instance, ids // INSTANCES_PER_CLASS, ids))
    assert np.array_equal(panoptic.instance_map, np.where(is_instance, numbers, 0))


@given(st.integers(0, 2**32))
def test_coco_colours_round_trip(seed: int) -> None:
    ids = segment_ids(random_panoptic(seed))
    assert np.array_equal(rgb_to_ids(ids_to_rgb(ids)), ids)


def test_segments_info_counts_each_pixel_outside_void_once() -> None:
    panoptic = random_panoptic(3)
    records = segments_info(panoptic, thing_ids=(24, 26))
    assert sum(record["area"] for record in records) == (panoptic.semantic_map != VOID).sum()
    assert not any(record["iscrowd"] for record in records)


def test_thing_without_instance_is_a_crowd() -> None:
    panoptic = PanopticMap(np.full((2, 2), 24, np.uint8), np.zeros((2, 2), np.uint16))
    (record,) = segments_info(panoptic, thing_ids=(24,))
    assert record["iscrowd"] == 1
    assert record["bbox"] == [0, 0, 2, 2]


def test_wrong_dtype_is_named() -> None:
    with pytest.raises(ShapeError, match=r"instance_map must be \(H, W\) uint16. Got: \(2, 2\) uint8"):
        PanopticMap(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]


def test_maps_of_different_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="one size"):
        PanopticMap(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint16))


def test_vocabulary_gives_stuff_first_then_things() -> None:
    vocabulary = Vocabulary(things=(2, 0), stuff=(3, 1))
    table = vocabulary.unified_table()
    assert [int(table[k]) for k in (3, 1, 2, 0)] == [0, 1, 2, 3]
    assert table[4] == VOID
    assert vocabulary.unified_things == (2, 3)


def test_vocabulary_survives_the_disk(tmp_path: Path) -> None:
    vocabulary = Vocabulary(things=(1,), stuff=(0, 2))
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary


def test_vocabulary_with_a_class_twice_is_refused() -> None:
    with pytest.raises(DataError, match="each pseudo-class"):
        Vocabulary(things=(1,), stuff=(0, 1))


def test_missing_vocabulary_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="thing_stuff"):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_label_space_needs_consecutive_ids() -> None:
    with pytest.raises(DataError, match=r"0\.\.C-1"):
        LabelSpace("odd", (LabelClass(1, "road", False, (0, 0, 0)),))


def test_segments_info_is_what_counting_each_segment_gives() -> None:
    generator = np.random.default_rng(0)
    semantic = generator.choice(np.array([0, 3, 4, VOID], np.uint8), (12, 17))
    instance = np.where(np.isin(semantic, (3, 4)), generator.integers(0, 900, (12, 17)), 0).astype(np.uint16)
    instance[:6] = np.where(instance[:6] > 0, 7, 0)
    panoptic = PanopticMap(semantic, instance)
    ids, records = segment_ids(panoptic), segments_info(panoptic, thing_ids=(3, 4))
    assert [record["id"] for record in records] == sorted(set(ids[ids > 0].tolist()))
    for record in records:
        rows, columns = np.nonzero(ids == record["id"])
        x, y = columns.min(), rows.min()
        assert record["area"] == len(rows)
        assert record["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
    assert segments_info(PanopticMap(np.full((2, 3), VOID, np.uint8), np.zeros((2, 3), np.uint16))) == []
