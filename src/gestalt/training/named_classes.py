"""A label space as the classes of a network: stuff first, then things, each in the order of their ids."""

from __future__ import annotations

from gestalt.panoptic import LabelSpace, Vocabulary


def vocabulary_of(space: LabelSpace) -> Vocabulary:
    """The vocabulary of a network that learns the classes themselves: its entries are ids of the space."""
    return Vocabulary(things=space.thing_ids, stuff=space.stuff_ids)


def class_names(space: LabelSpace) -> tuple[str, ...]:
    """A name per unified class of ``vocabulary_of(space)``."""
    return tuple(space.classes[number].name for number in space.stuff_ids + space.thing_ids)


def class_colours(space: LabelSpace) -> tuple[tuple[int, int, int], ...]:
    """An RGB colour (0..255) per unified class of ``vocabulary_of(space)``."""
    return tuple(space.classes[number].colour for number in space.stuff_ids + space.thing_ids)
