"""Pictures of panoptic maps in unified classes: a colour per class over the image, outlines around instances."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from gestalt.panoptic import VOID, PanopticMap, UInt8Array

# Share of the class colour; the rest is the image.
OPACITY = 0.55
OUTLINE = (255, 255, 255)

# Neighbouring multiples of the golden ratio lie far apart on the circle, whatever their number.
GOLDEN_RATIO = 0.6180339887
# The same for a second quantity, so that the two together fill a square.
PLASTIC_RATIO = 0.7548776662

# Instances of a class differ from its colour by up to this share of the circle of hues, and are up to this much darker.
HUE_SPREAD, DARKENING = 0.08, 0.45


def unified_palette(n_stuff: int, n_things: int) -> UInt8Array:
    """(256, 3) uint8 RGB of unified classes: stuff 0..S-1 muted, things S..S+T-1 bright, everything else black."""
    palette = np.zeros((VOID + 1, 3), np.uint8)
    for number in range(n_stuff + n_things):
        is_thing = number >= n_stuff
        hue = (number * GOLDEN_RATIO) % 1.0
        rgb = colorsys.hsv_to_rgb(hue, 0.95 if is_thing else 0.45, 1.0 if is_thing else 0.6)
        palette[number] = [round(255 * value) for value in rgb]
    return palette


def track_colours(panoptic: PanopticMap, colours: UInt8Array) -> UInt8Array:
    """A colour of its own for each instance, near that of its class; the same id always gets the same one.

    Args:
        panoptic: The map; the ids of its instances last over a video.
        colours: (256, 3) uint8 RGB of each class id.

    Returns:
        (M + 1, 3) uint8 RGB of each instance id up to the largest, M; black for ids that no pixel has.
    """
    class_of = np.full(int(panoptic.instance_map.max(initial=0)) + 1, VOID, np.uint8)
    class_of[panoptic.instance_map] = panoptic.semantic_map
    class_of[0] = VOID
    found = np.zeros((len(class_of), 3), np.uint8)
    for instance in np.flatnonzero(class_of != VOID):
        hue, saturation, value = colorsys.rgb_to_hsv(*(colours[class_of[instance]] / 255))
        hue += HUE_SPREAD * (2 * (instance * GOLDEN_RATIO % 1) - 1)
        value *= 1 - DARKENING * (instance * PLASTIC_RATIO % 1)
        found[instance] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value)]
    return found


def draw_overlay(
    image: UInt8Array, panoptic: PanopticMap, colours: UInt8Array, instance_colours: UInt8Array | None = None
) -> UInt8Array:
    """Blend colours over an image and outline its instances.

    Args:
        image: (H, W, 3) uint8 RGB.
        panoptic: Map of the same size.
        colours: (256, 3) uint8 RGB of each class id.
        instance_colours: (M + 1, 3) uint8 RGB of each instance id; those of the classes when None.

    Returns:
        (H, W, 3) uint8 RGB; void pixels show the image.
    """
    painted = colours[panoptic.semantic_map].astype(np.float32)
    if instance_colours is not None:
        is_instance = panoptic.instance_map > 0
        painted[is_instance] = instance_colours[panoptic.instance_map[is_instance]]
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
