from __future__ import annotations

import pytest

from gestalt.data.coco_files import CocoCategory
from gestalt.data.label_spaces import load_label_space
from gestalt.evaluation.categories import classes_of_categories, coco_protocol
from gestalt.panoptic import VOID

SPACE = load_label_space("cityscapes19")


def categories(**ids: int) -> list[CocoCategory]:
    return [CocoCategory(number, name.replace("_", " "), is_thing=False) for name, number in ids.items()]


@pytest.mark.parametrize(
    ("given", "expected", "how"),
    [
        (
            categories(road=7, ego_vehicle=1, car=26),
            {7: 0, 1: VOID, 26: 13},
            "their ids, those of cityscapes",
        ),
        (categories(road=0, traffic_light=6, car=13), {0: 0, 6: 6, 13: 13}, "their names"),
        (
            [CocoCategory(7, "7", False), CocoCategory(26, "26", True)],
            {7: 0, 26: 13},
            "their ids, those of cityscapes",
        ),
        ([CocoCategory(3, "Traffic-Light", False)], {3: 6}, "their names"),
    ],
)
def test_categories_are_classes_by_id_or_by_name(
    given: list[CocoCategory], expected: dict[int, int], how: str
) -> None:
    assert classes_of_categories(given, "cityscapes", SPACE) == (expected, how)


def test_names_that_contradict_the_ids_are_no_classes() -> None:
    assert classes_of_categories(categories(road=26, pseudo_7=7), "cityscapes", SPACE) is None
    assert classes_of_categories([CocoCategory(99, "99", False)], "cityscapes", SPACE) is None


def test_the_rules_without_a_protocol_change_with_the_categories() -> None:
    protocols = [
        coco_protocol(given) for given in (categories(road=7), categories(road=7), categories(road=8))
    ]
    assert protocols[0].label == protocols[1].label != protocols[2].label
    assert protocols[0].conventions == ("standard", "void_neutral")


def test_void_categories_are_nobodys_class_whatever_they_are_called() -> None:
    given = [*categories(road=7), CocoCategory(99, "sky", is_thing=False, is_void=True)]
    assert classes_of_categories(given, "cityscapes", SPACE) == (
        {7: 0, 99: VOID},
        "their ids, those of cityscapes",
    )
