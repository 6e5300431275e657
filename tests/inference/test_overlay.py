from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from gestalt.inference.overlay import class_colours, class_names, draw_overlay, instance_outlines
from gestalt.network.checkpoint import read_card
from gestalt.panoptic import VOID, PanopticMap


def square_map() -> PanopticMap:
    semantic = np.full((20, 30), VOID, np.uint8)
    instance = np.zeros((20, 30), np.uint16)
    semantic[:10] = 0
    semantic[4:9, 4:9], instance[4:9, 4:9] = 3, 1
    return PanopticMap(semantic, instance)


def test_void_shows_the_image_and_classes_their_colour(network_folder: Path) -> None:
    colours = class_colours(read_card(network_folder))
    image = np.full((20, 30, 3), 100, np.uint8)
    overlay = draw_overlay(image, square_map(), colours)
    assert (overlay[12:] == 100).all()
    assert (overlay[0, 20] == np.rint(0.45 * 100 + 0.55 * colours[0].astype(float))).all()
    assert (overlay[4, 4] == 255).all()
    assert (image == 100).all()


def test_outlines_belong_to_instances_and_touch_something_else() -> None:
    outline = instance_outlines(square_map())
    assert outline.sum() == 16
    assert not outline[5:8, 5:8].any()
    full = PanopticMap(np.full((6, 6), 3, np.uint8), np.ones((6, 6), np.uint16))
    assert not instance_outlines(full).any()


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
