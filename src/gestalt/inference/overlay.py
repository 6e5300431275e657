"""Pictures of predictions: a colour per unified class over the image, outlines around instances."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from gestalt.network.checkpoint import NetworkCard
from gestalt.panoptic import VOID, PanopticMap, UInt8Array

# Share of the class colour; the rest is the image.
OPACITY = 0.55
OUTLINE = (255, 255, 255)

# Neighbouring multiples of the golden ratio lie far apart on the circle, whatever their number.
GOLDEN_RATIO = 0.6180339887


def class_colours(card: NetworkCard) -> UInt8Array:
    """(256, 3) uint8 RGB of each unified class: the card's own colours, or a fixed palette.

    Things of the palette are bright, stuff is muted; void and unknown ids are black.
    """
    palette = np.zeros((VOID + 1, 3), np.uint8)
    n_stuff, n_classes = len(card.vocabulary.stuff), card.vocabulary.n_pseudo_classes
    for number in range(n_classes):
        is_thing = number >= n_stuff
        hue = (number * GOLDEN_RATIO) % 1.0
        rgb = colorsys.hsv_to_rgb(hue, 0.95 if is_thing else 0.45, 1.0 if is_thing else 0.6)
        palette[number] = [round(255 * value) for value in rgb]
    if card.class_colours:
        palette[:n_classes] = card.class_colours
    return palette


def class_names(card: NetworkCard) -> tuple[str, ...]:
    """A name per unified class: the card's own, or the number of the pseudo-class."""
    if card.class_names:
        return card.class_names
    return tuple(f"pseudo-class {number}" for number in card.vocabulary.stuff + card.vocabulary.things)


def draw_overlay(image: UInt8Array, panoptic: PanopticMap, colours: UInt8Array) -> UInt8Array:
    """Blend class colours over an image and outline its instances.

    Args:
        image: (H, W, 3) uint8 RGB.
        panoptic: Map of the same size.
        colours: (256, 3) uint8 RGB of each class id.

    Returns:
        (H, W, 3) uint8 RGB; void pixels show the image.
    """
    painted = colours[panoptic.semantic_map].astype(np.float32)
    opacity = np.where(panoptic.semantic_map == VOID, 0.0, OPACITY)[..., None].astype(np.float32)
    blended = np.rint(image * (1 - opacity) + painted * opacity).astype(np.uint8)
    blended[instance_outlines(panoptic)] = OUTLINE
    return blended


def instance_outlines(panoptic: PanopticMap) -> npt.NDArray[np.bool_]:
    """(H, W) bool: instance pixels beside a pixel that is not of the instance; image borders do not count."""
    instance = panoptic.instance_map
    outline = np.zeros(instance.shape, np.bool_)
    differs_below = instance[1:] != instance[:-1]
    differs_right = instance[:, 1:] != instance[:, :-1]
    outline[1:] |= differs_below
    outline[:-1] |= differs_below
    outline[:, 1:] |= differs_right
    outline[:, :-1] |= differs_right
    return outline & (instance > 0)
