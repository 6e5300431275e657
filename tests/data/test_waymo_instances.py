from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gestalt.data.tfrecord import Record
from gestalt.data.waymo_frames import InstanceName, LabelledImage, find_labels
from gestalt.data.waymo_instances import number_instances, read_panoptic
from gestalt.errors import DataError
from tests.data.waymo_records import make_frame, make_label, write_records

# (local id, global id, is tracked)
Instances = list[tuple[int, int, bool]]


def label(timestamp: int, instances: Instances, camera: str = "front") -> LabelledImage:
    names = tuple(InstanceName(*entry) for entry in instances)
    return LabelledImage(Record(Path("a"), timestamp, 12, 0), "segment", timestamp, camera, "s", names)


def test_global_ids_that_fit_stay_what_they_are() -> None:
    labels = [label(1, [(1, 11, True), (2, 999, False)]), label(2, [(3, 11, True)]), label(3, [])]
    assert number_instances(labels) == [{1: 11, 2: 999}, {3: 11}, {}]


def test_without_global_ids_numbers_are_those_of_the_image() -> None:
    assert number_instances([label(1, []), label(2, [])]) == [None, None]


def test_large_global_ids_become_small_numbers_and_objects_keep_theirs() -> None:
    labels = [
        label(2, [(1, 5000, True), (2, 7, True), (3, 6000, False)]),
        label(1, [(4, 7, True), (5, 6001, False), (6, 6002, False)]),
        label(1, [(1, 5000, True), (2, 6003, False)], "side_left"),
    ]
    # 7 and 5000 are tracked: 1 and 2. The others follow in the order of time, each camera by itself.
    assert number_instances(labels) == [{2: 1, 1: 2, 3: 5}, {4: 1, 5: 3, 6: 4}, {1: 2, 2: 3}]


def test_numbers_of_untracked_objects_come_back_only_when_all_were_used() -> None:
    n_frames = 300
    labels = [
        label(time, [(1, 20000, True), *((n, 1, False) for n in range(2, 12))]) for time in range(n_frames)
    ]
    numbers = number_instances(labels)
    assert all(entry is not None and entry[1] == 1 for entry in numbers)
    turns = [entry[n] for entry in numbers if entry for n in range(2, 12)]
    assert turns == [2 + place % 998 for place in range(10 * n_frames)]


@pytest.mark.parametrize("global_id", [-1, 0, 1000])
def test_a_global_id_that_is_no_number_gets_one(global_id: int) -> None:
    assert number_instances([label(1, [(3, global_id, True)])]) == [{3: 1}]


def test_two_objects_of_an_image_never_become_one() -> None:
    (numbers,) = number_instances([label(1, [(1, 5, True), (2, 5, True), (3, 5, False)])])
    assert numbers == {1: 1, 2: 2, 3: 3}


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 40), st.integers(-2, 1500), st.booleans()), max_size=12), max_size=8
    )
)
def test_numbers_fit_differ_in_an_image_and_follow_tracked_objects(frames: list[Instances]) -> None:
    labels = [
        label(time, list({entry[0]: entry for entry in instances}.values()))
        for time, instances in enumerate(frames)
    ]
    number_of: dict[int, int] = {}
    for entry, numbers in zip(labels, number_instances(labels), strict=True):
        if numbers is None:
            assert not any(other.instances for other in labels)
            continue
        assert set(numbers) == {name.local_id for name in entry.instances}
        assert len(set(numbers.values())) == len(numbers)
        assert all(1 <= number <= 999 for number in numbers.values())
        first = {name.global_id: name.local_id for name in reversed(entry.instances) if name.is_tracked}
        for global_id, local_id in first.items():
            assert number_of.setdefault(global_id, numbers[local_id]) == numbers[local_id]
    assert len(set(number_of.values())) == len(number_of)


def test_more_objects_than_numbers() -> None:
    labels = [
        label(1, [(n, 5000 + n, True) for n in range(1, 999)]),
        label(2, [(1, 1, False), (2, 2, False)]),
    ]
    with pytest.raises(
        DataError, match=r"segment: 998 tracked objects and up to 2 others .* `instance_ids: image`"
    ):
        number_instances(labels)
    numbers = number_instances([labels[0], label(2, [(1, 1, False)])])
    assert numbers[1] == {1: 999}


def record_of(folder: Path, values: object, divisor: int = 1000) -> Record:
    frame = make_frame({"front": make_label(values, divisor=divisor)})
    (found,) = find_labels(write_records(folder / "a.tfrecord", [frame]))
    return found.record


def test_classes_may_share_a_number(tmp_path: Path) -> None:
    record = record_of(tmp_path, [[2005, 5005, 20000, 0], [2006, 9007, 3008, 7]])
    found = read_panoptic(record, "front", {5: 15, 6: 3, 7: 999})
    np.testing.assert_array_equal(found.semantic_map, [[2, 5, 20, 0], [2, 9, 3, 0]])
    # 8 has no global id and gets the largest number that is free; the undefined class has no instances.
    np.testing.assert_array_equal(found.instance_map, [[2015, 5015, 0, 0], [2003, 9999, 3998, 0]])
    found = read_panoptic(record, "front", None)
    np.testing.assert_array_equal(found.instance_map, [[2005, 5005, 0, 0], [2006, 9007, 3008, 0]])


def test_other_divisors(tmp_path: Path) -> None:
    record = record_of(tmp_path, [[2 * 256 + 5, 20 * 256]], divisor=256)
    found = read_panoptic(record, "front", {5: 300})
    np.testing.assert_array_equal(found.semantic_map, [[2, 20]])
    np.testing.assert_array_equal(found.instance_map, [[2300, 0]])


@pytest.mark.parametrize(("value", "divisor"), [(2 * 2000 + 1500, 2000), (255, 1), (66 * 900 + 3, 900)])
def test_values_that_are_no_raw_ids(tmp_path: Path, value: int, divisor: int) -> None:
    record = record_of(tmp_path, [[value, 0]], divisor=divisor)
    with pytest.raises(
        DataError, match=rf"panoptic label front of .* class \* {divisor} \+ number .* up to {value}"
    ):
        read_panoptic(record, "front", None)


def test_ids_have_16_bits(tmp_path: Path) -> None:
    record = record_of(tmp_path, [[65001, 0]])
    np.testing.assert_array_equal(read_panoptic(record, "front", {1: 535}).instance_map, [[65535, 0]])
    with pytest.raises(DataError, match=r"numbers up to 999\. Got values up to 65001"):
        read_panoptic(record, "front", {1: 536})
