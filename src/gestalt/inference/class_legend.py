"""What the classes of a network are called and painted."""

from __future__ import annotations

from gestalt.data.overlay import unified_palette
from gestalt.network.checkpoint import NetworkCard
from gestalt.panoptic import UInt8Array


def class_colours(card: NetworkCard) -> UInt8Array:
    """(256, 3) uint8 RGB of each unified class: the card's own colours, or a fixed palette.

    Things of the palette are bright, stuff is muted; void and unknown ids are black.
    """
    vocabulary = card.vocabulary
    palette = unified_palette(len(vocabulary.stuff), len(vocabulary.things))
    if card.class_colours:
        palette[: vocabulary.n_pseudo_classes] = card.class_colours
    return palette


def class_names(card: NetworkCard) -> tuple[str, ...]:
    """A name per unified class: the card's own, or the number of the pseudo-class."""
    if card.class_names:
        return card.class_names
    return tuple(f"pseudo-class {number}" for number in card.vocabulary.stuff + card.vocabulary.things)
