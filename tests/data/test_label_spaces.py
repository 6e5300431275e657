import re

import numpy as np
import pytest

from gestalt.data.label_spaces import load_label_space, raw_classes, raw_id_table
from gestalt.errors import ConfigError

V = 255
# id, 27, 19, 7 of the annotated Cityscapes classes.
CITYSCAPES = """
7 0 0 0|8 1 1 0|9 2 v 0|10 3 v 0|11 4 2 1|12 5 3 1|13 6 4 1|14 7 v 1|15 8 v 1|16 9 v 1|17 10 5 2|18 11 v 2
19 12 6 2|20 13 7 2|21 14 8 3|22 15 9 3|23 16 10 4|24 17 11 5|25 18 12 5|26 19 13 6|27 20 14 6|28 21 15 6
29 22 v 6|30 23 v 6|31 24 16 6|32 25 17 6|33 26 18 6
"""
# raw id -> 27 of BDD; all others are void.
BDD = {
    5: 2,
    6: 3,
    7: 0,
    8: 1,
    9: 8,
    10: 4,
    11: 6,
    13: 7,
    14: 9,
    15: 5,
    20: 10,
    21: 11,
    25: 12,
    26: 13,
    28: 15,
    29: 14,
}
BDD |= {30: 16, 31: 17, 32: 18, 33: 26, 34: 21, 35: 19, 36: 22, 37: 25, 38: 23, 39: 24, 40: 20}
# raw id -> 19, 7 of Waymo; all others are void.
WAYMO = {
    2: (13, 6),
    3: (14, 6),
    4: (15, 6),
    5: (16, 6),
    6: (18, 6),
    7: (17, 6),
    8: (V, 6),
    9: (11, 5),
    10: (12, 5),
}
WAYMO |= {
    11: (12, 5),
    15: (5, 2),
    17: (7, 2),
    18: (6, 2),
    19: (2, 1),
    20: (0, 0),
    21: (0, V),
    22: (0, V),
    23: (1, 0),
}
WAYMO |= {24: (8, 3), 25: (10, 4)}


def rows() -> list[list[int]]:
    return [
        [V if word == "v" else int(word) for word in row.split()]
        for row in re.split(r"[|\n]", CITYSCAPES.strip())
    ]


def table(pairs) -> np.ndarray:
    expected = np.full(256, V, np.uint8)
    for raw_id, class_id in pairs:
        expected[raw_id] = class_id
    return expected


@pytest.mark.parametrize("dataset", ["cityscapes", "kitti_panoptic", "muses"])
def test_every_raw_id_of_cityscapes(dataset):
    for column, space in enumerate(("cityscapes27", "cityscapes19", "cityscapes7"), start=1):
        np.testing.assert_array_equal(
            raw_id_table(dataset, space), table((row[0], row[column]) for row in rows())
        )


def test_every_raw_id_of_bdd():
    to_19 = {row[1]: row[2] for row in rows()}
    to_7 = {row[1]: V if row[2] == V else row[3] for row in rows()}
    np.testing.assert_array_equal(raw_id_table("bdd", "cityscapes27"), table(BDD.items()))
    np.testing.assert_array_equal(
        raw_id_table("bdd", "cityscapes19"), table((k, to_19[v]) for k, v in BDD.items())
    )
    np.testing.assert_array_equal(
        raw_id_table("bdd", "cityscapes7"), table((k, to_7[v]) for k, v in BDD.items())
    )


def test_every_raw_id_of_waymo():
    np.testing.assert_array_equal(
        raw_id_table("waymo", "cityscapes19"), table((k, v[0]) for k, v in WAYMO.items())
    )
    np.testing.assert_array_equal(
        raw_id_table("waymo", "cityscapes7"), table((k, v[1]) for k, v in WAYMO.items())
    )


@pytest.mark.parametrize("dataset", ["mots", "kitti_mots"])
def test_every_raw_id_of_mots(dataset):
    np.testing.assert_array_equal(raw_id_table(dataset, "mots2"), table([(0, 0), (1, 0), (2, 1)]))
    np.testing.assert_array_equal(raw_id_table(dataset, "mots3"), table([(0, 0), (1, 1), (2, 2)]))


def test_every_raw_id_of_kitti_step_is_a_train_id():
    np.testing.assert_array_equal(
        raw_id_table("kitti_step", "kitti_step19"), table((i, i) for i in range(19))
    )
    fine, step = load_label_space("cityscapes19"), load_label_space("kitti_step19")
    assert [(entry.name, entry.colour) for entry in step.classes] == [
        (entry.name, entry.colour) for entry in fine.classes
    ]
    assert {entry.raw_id: entry.name for entry in raw_classes("kitti_step")} == {
        entry.id: entry.name for entry in fine.classes
    }


@pytest.mark.parametrize(
    ("space", "things", "stuff"),
    [
        ("cityscapes27", range(17, 27), range(17)),
        ("cityscapes19", range(11, 19), range(11)),
        ("cityscapes7", (5, 6), range(5)),
        ("mots2", (1,), (0,)),
        ("mots3", (1, 2), (0,)),
        # Persons and cars.
        ("kitti_step19", (11, 13), (*range(11), 12, *range(14, 19))),
    ],
)
def test_things_and_stuff(space, things, stuff):
    found = load_label_space(space)
    assert found.thing_ids == tuple(things)
    assert found.stuff_ids == tuple(stuff)
    assert found.name == space


def test_names_and_colours_agree_between_the_spaces():
    fine, coarse = load_label_space("cityscapes27"), load_label_space("cityscapes19")
    official = {"road": (128, 64, 128), "person": (220, 20, 60), "car": (0, 0, 142), "sky": (70, 130, 180)}
    by_name = {entry.name: entry for entry in fine.classes}
    assert len(by_name) == 27
    for entry in coarse.classes:
        assert by_name[entry.name].colour == entry.colour
        assert by_name[entry.name].is_thing == entry.is_thing
    assert {name: by_name[name].colour for name in official} == official
    for row, name in zip(rows(), by_name):
        if row[2] != V:
            assert coarse.classes[row[2]].name == name


def test_tables_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        raw_id_table("mots", "mots2")[0] = 3


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"known label spaces: bdd40, cityscapes19, cityscapes27, cityscapes7, .*mots2"
    ):
        load_label_space("coco")
    with pytest.raises(
        ConfigError,
        match="no table of raw ids for 'kitti'; known: bdd, cityscapes, coco, kitti_step, mots, waymo",
    ):
        raw_id_table("kitti", "cityscapes19")
    with pytest.raises(ConfigError, match="waymo has no label space 'cityscapes27'; it has: cityscapes19"):
        raw_id_table("waymo", "cityscapes27")
