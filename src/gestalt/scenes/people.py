"""People who walk, stand or ride, built of primitives; the origin lies on the ground, +z is ahead."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from gestalt.scenes.primitives import Sketch
from gestalt.scenes.raw_ids import RawId

FloatArray = npt.NDArray[np.float64]

SKINS = ((0.82, 0.62, 0.50), (0.70, 0.50, 0.38), (0.50, 0.34, 0.25), (0.34, 0.23, 0.17))
SKIN_SHARES = (0.5, 0.25, 0.15, 0.1)
CLOTH_DENSITY = 110.0


def draw_person(sketch: Sketch, *, stride: float, detail: int) -> None:
    """A pedestrian.

    Args:
        sketch: Gets the primitives.
        stride: Distance of a foot from the hip along z, metres; about 0.05 for a standing person.
        detail: See ``vehicles``.
    """
    rng = sketch.rng
    sketch.raw_id = RawId.PERSON
    height = rng.normal(1.72, 0.08) * (0.72 if rng.random() < 0.08 else 1.0)
    top, trousers = _clothes(rng), _clothes(rng) * rng.uniform(0.4, 0.9)
    skin = np.array(SKINS[rng.choice(len(SKINS), p=SKIN_SHARES)])
    stout = rng.uniform(0.9, 1.15)
    leg = 0.47 * height
    skirt = detail > 0 and rng.random() < 0.15
    for side in (-1, 1):
        foot = side * stride
        sketch.hull(
            (side * 0.095, -leg / 2, foot),
            (0.075 * stout, leg / 2, 0.085),
            (0, 0, -foot, foot),
            skin if skirt else trousers,
            "cloth",
            density=CLOTH_DENSITY,
        )
    if skirt:
        sketch.hull(
            (0, -leg * 0.78, 0),
            (0.24, leg * 0.30, 0.22),
            (0.08, 0.08, 0.09, 0.09),
            trousers,
            "cloth",
            density=CLOTH_DENSITY,
        )
    torso = 0.18 * height
    sketch.hull(
        (0, -leg - torso + 0.03, 0),
        (0.175 * stout, torso, 0.115 * stout),
        (-0.03, -0.03, 0.0, 0.02),
        top,
        "cloth",
        density=CLOTH_DENSITY,
    )
    _head(sketch, height, 0.0, skin, detail)
    if detail == 0:
        return
    arm = 0.17 * height
    for side in (-1, 1):
        hand = -side * stride * 0.8
        sketch.hull(
            (side * 0.25 * stout, -leg - torso + 0.02, hand),
            (0.05, arm, 0.055),
            (0, 0, -hand, hand),
            top * 0.92,
            "cloth",
            density=CLOTH_DENSITY,
        )
    if detail == 2:
        for side in (-1, 1):
            sketch.box(
                (side * 0.095, -0.05, side * stride + 0.05), (0.055, 0.05, 0.13), (0.1, 0.09, 0.09), "plain"
            )
        luggage = rng.random()
        if luggage < 0.22:
            sketch.box((0, -leg - torso, -0.19), (0.15, 0.20, 0.08), _clothes(rng), "cloth")
        elif luggage < 0.42:
            sketch.box((0.33, -leg + 0.05, 0), (0.05, 0.15, 0.13), _clothes(rng), "cloth")


def draw_rider(sketch: Sketch, detail: int) -> None:
    """Somebody on a bicycle; the bicycle itself is another object."""
    rng = sketch.rng
    sketch.raw_id = RawId.RIDER
    top, trousers = _clothes(rng), _clothes(rng) * rng.uniform(0.4, 0.9)
    skin = np.array(SKINS[rng.choice(len(SKINS), p=SKIN_SHARES)])
    # One pedal down, one up; both knees ahead of the saddle.
    for side, low, tall in ((-1, 0.12, 0.42), (1, 0.36, 0.34)):
        sketch.hull(
            (side * 0.10, -low - tall, 0.02),
            (0.07, tall, 0.08),
            (0, 0, -0.18, 0.18),
            trousers,
            "cloth",
            density=CLOTH_DENSITY,
        )
    sketch.hull(
        (0, -1.22, -0.18),
        (0.18, 0.28, 0.12),
        (-0.02, -0.02, 0.24, -0.24),
        top,
        "cloth",
        density=CLOTH_DENSITY,
    )
    _head(sketch, 1.74, 0.16, skin, detail)
    if detail:
        for side in (-1, 1):
            sketch.hull(
                (side * 0.23, -1.22, 0.36),
                (0.045, 0.20, 0.05),
                (0, 0, -0.26, 0.26),
                top * 0.9,
                "cloth",
                density=CLOTH_DENSITY,
            )


def _head(sketch: Sketch, height: float, z: float, skin: FloatArray, detail: int) -> None:
    hair = np.array([0.30, 0.22, 0.16]) * sketch.rng.uniform(0.25, 1.9)
    y = -height + 0.125
    sketch.ellipsoid((0, y, z + 0.01), (0.085, 0.125, 0.105), skin, "cloth", density=CLOTH_DENSITY)
    sketch.ellipsoid((0, y - 0.035, z - 0.025), (0.092, 0.105, 0.105), hair, "cloth", density=CLOTH_DENSITY)
    if detail == 2:
        sketch.post(0.0, z, 0.055, height - 0.19, skin, "cloth")


def _clothes(rng: np.random.Generator) -> FloatArray:
    saturation = rng.uniform(0.05, 0.35) if rng.random() < 0.6 else rng.uniform(0.4, 0.85)
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), saturation, rng.uniform(0.12, 0.8)))
