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
def test_cityscapes_ids_are_classes_and_instances_that_keep_their_value(seed: int) -> None:
    values = [0, 7, VOID, 24, 24000, 24007, 26000, 26999, 65, 65000, 65535]
    ids = np.random.default_rng(seed).choice(values, (3, 4))
    panoptic = from_instance_ids(ids)
    is_instance = ids >= INSTANCES_PER_CLASS
    assert np.array_equal(panoptic.semantic_map, np.where(is_instance, ids // INSTANCES_PER_CLASS, ids))
    assert np.array_equal(panoptic.instance_map, np.where(is_instance, ids, 0))


def test_an_object_has_one_id_in_all_frames_whatever_else_they_show() -> None:
    first, second = from_instance_ids(np.array([[24001, 26005]])), from_instance_ids(np.array([[26005, 7]]))
    assert first.instance_map[0, 1] == second.instance_map[0, 0] == 26005


@pytest.mark.parametrize(
    ("values", "message"),
    [
        # 26001, 26003 and 24007 without their upper 8 bits.
        ([145, 147, 199, 7], r"Got: 145, 147, 199\. No value needs more than 8 bits"),
        ([300, 26001], r"Got: 300\. Write instances as class \* 1000 \+ number"),
        ([66, 24001], r"Got: 66\. Write instances"),
        ([70000], r"must hold 0\.\.65535\. Got: 70000\.\.70000"),
        ([-1, 7], r"must hold 0\.\.65535\. Got: -1\.\.7"),
    ],
)
def test_values_that_are_neither_class_nor_instance_are_refused(values: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_instance_ids(np.array([values]))


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
