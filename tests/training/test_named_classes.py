import pytest

from gestalt.data.label_spaces import load_label_space
from gestalt.panoptic import LabelClass, LabelSpace
from gestalt.training.named_classes import class_colours, class_names, vocabulary_of

MIXED = LabelSpace(
    "mixed",
    (
        LabelClass(0, "car", True, (0, 0, 142)),
        LabelClass(1, "road", False, (128, 64, 128)),
        LabelClass(2, "person", True, (220, 20, 60)),
        LabelClass(3, "sky", False, (70, 130, 180)),
    ),
)


def test_stuff_comes_first_and_each_keeps_its_order() -> None:
    vocabulary = vocabulary_of(MIXED)
    assert (vocabulary.stuff, vocabulary.things) == ((1, 3), (0, 2))
    assert class_names(MIXED) == ("road", "sky", "car", "person")
    assert class_colours(MIXED)[2] == (0, 0, 142)
    # Id of the space -> unified id, and its name.
    assert [class_names(MIXED)[vocabulary.unified_table()[entry.id]] for entry in MIXED.classes] == [
        entry.name for entry in MIXED.classes
    ]


@pytest.mark.parametrize("name", ["cityscapes27", "cityscapes19", "cityscapes7", "mots2"])
def test_unified_ids_of_the_spaces_here_are_their_own(name: str) -> None:
    space = load_label_space(name)
    assert vocabulary_of(space).unified_table()[: len(space.classes)].tolist() == list(
        range(len(space.classes))
    )
