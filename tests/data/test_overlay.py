from __future__ import annotations

import colorsys

import numpy as np

from gestalt.data.overlay import HUE_SPREAD, draw_overlay, instance_outlines, track_colours, unified_palette
from gestalt.panoptic import VOID, PanopticMap


def square_map() -> PanopticMap:
    semantic = np.full((20, 30), VOID, np.uint8)
    instance = np.zeros((20, 30), np.uint16)
    semantic[:10] = 0
    semantic[4:9, 4:9], instance[4:9, 4:9] = 3, 1
    return PanopticMap(semantic, instance)


def test_void_shows_the_image_and_classes_their_colour() -> None:
    colours = unified_palette(3, 2)
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


def test_tracks_have_colours_of_their_own_near_that_of_their_class() -> None:
    colours = np.zeros((256, 3), np.uint8)
    colours[3], colours[4] = (200, 40, 40), (40, 40, 200)
    instance = np.arange(60, dtype=np.uint16)[None]
    semantic = np.where(instance % 2, 3, 4).astype(np.uint8)
    semantic[0, 0] = 0
    found = track_colours(PanopticMap(semantic, instance), colours)
    assert found.shape == (60, 3)
    assert found[0].tolist() == [0, 0, 0]
    for parity, class_id in ((1, 3), (0, 4)):
        own = found[1:][instance[0, 1:] % 2 == parity]
        assert len({tuple(colour) for colour in own.tolist()}) == len(own)
        # Rounding to whole levels moves a hue a little.
        hue = colorsys.rgb_to_hsv(*(colours[class_id] / 255))[0]
        hues = np.array([colorsys.rgb_to_hsv(*(colour / 255))[0] for colour in own])
        assert (np.abs((hues - hue + 0.5) % 1 - 0.5) <= HUE_SPREAD + 0.005).all()
    # Other instances in the picture change nothing.
    alone = track_colours(PanopticMap(semantic[:, 7:8].copy(), instance[:, 7:8].copy()), colours)
    assert (alone[7] == found[7]).all()
    assert not alone[:7].any()


def test_colours_of_instances_win_over_those_of_their_class() -> None:
    colours = np.full((256, 3), 80, np.uint8)
    own = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    overlay = draw_overlay(np.zeros((20, 30, 3), np.uint8), square_map(), colours, own)
    assert overlay[6, 6].tolist() == [140, 0, 0]
    assert overlay[0, 0].tolist() == [44, 44, 44]
