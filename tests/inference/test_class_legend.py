from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.inference.class_legend import class_colours, class_names
from gestalt.network.checkpoint import read_card


def test_every_class_has_its_own_colour_and_things_are_brighter(network_folder: Path) -> None:
    colours = class_colours(read_card(network_folder))
    assert len({tuple(colour) for colour in colours[:5].tolist()}) == 5
    assert colours[3:5].max(1).min() > colours[:3].max()
    assert (colours[5:] == 0).all()


def test_names_and_colours_of_the_card_win(network_folder: Path) -> None:
    card = read_card(network_folder)
    assert class_names(card) == tuple(f"pseudo-class {number}" for number in (0, 2, 3, 4, 1))
    named = dataclasses.replace(card, class_names=("a", "b", "c", "d", "e"), class_colours=((1, 2, 3),) * 5)
    assert class_names(named) == ("a", "b", "c", "d", "e")
    assert class_colours(named)[4].tolist() == [1, 2, 3]
