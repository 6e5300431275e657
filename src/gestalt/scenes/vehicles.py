"""Cars, vans, trucks, buses and bicycles, built of primitives in a frame whose origin lies on the ground.

The front is +z. ``detail`` is 2 for near objects, 1 for distant ones, 0 where an object covers a few pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gestalt.scenes.primitives import Shape, Sketch
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.textures import TEXTURES, TILE_SIZES

FloatArray = npt.NDArray[np.float64]

GLASS = (0.16, 0.19, 0.22)
RUBBER = (0.07, 0.07, 0.075)
DARK = (0.10, 0.10, 0.11)
# Shares of car colours on European roads, roughly: white, grey, black, blue, red, others.
COLOUR_SHARES = (0.22, 0.28, 0.22, 0.12, 0.08, 0.08)

# Orange, yellow, green, teal, brown-red.
RARE_HUES = (0.07, 0.13, 0.33, 0.48, 0.03)
BUS_HUES = (0.0, 0.13, 0.33, 0.58, 0.62)


@dataclass(frozen=True)
class Body:
    """Proportions of a passenger car; metres, and shares of length or height."""

    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    belt: float
    cabin: float
    shift: float
    windscreen: float
    rear: float


BODIES = (
    Body((4.3, 4.9), (1.75, 1.86), (1.40, 1.50), 0.63, 0.60, -0.05, 0.75, 0.55),
    Body((3.7, 4.3), (1.68, 1.80), (1.44, 1.56), 0.61, 0.66, -0.10, 0.70, 0.20),
    Body((4.4, 4.9), (1.76, 1.86), (1.44, 1.52), 0.62, 0.68, -0.11, 0.75, 0.25),
    Body((4.2, 4.8), (1.80, 1.92), (1.62, 1.78), 0.62, 0.68, -0.09, 0.60, 0.25),
    Body((4.8, 5.6), (1.88, 2.02), (1.95, 2.45), 0.52, 0.86, -0.06, 0.60, 0.06),
)
BODY_SHARES = (0.30, 0.30, 0.14, 0.16, 0.10)


def paint_colour(rng: np.random.Generator) -> FloatArray:
    """A car's colour, RGB in 0..1."""
    kind = rng.choice(len(COLOUR_SHARES), p=COLOUR_SHARES)
    if kind == 0:
        return rng.uniform(0.78, 0.92) * np.array([1.0, 1.0, 0.99])
    if kind == 1:
        return rng.uniform(0.32, 0.65) * np.array([1.0, 1.01, 1.03])
    if kind == 2:
        return rng.uniform(0.09, 0.18) * np.array([1.0, 1.0, 1.05])
    rare = float(rng.choice(RARE_HUES))
    hue = {3: rng.normal(0.61, 0.03), 4: rng.normal(0.0, 0.015)}.get(int(kind), rare)
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.45, 0.85), rng.uniform(0.25, 0.7)))


def draw_car(sketch: Sketch, detail: int) -> float:
    """A passenger car or a van; returns its length, metres."""
    rng = sketch.rng
    body = BODIES[rng.choice(len(BODIES), p=BODY_SHARES)]
    length, width, height = (rng.uniform(*span) for span in (body.length, body.width, body.height))
    colour = paint_colour(rng)
    sketch.raw_id = RawId.CAR
    bottom, belt = 0.20, body.belt * height
    tall = belt - bottom
    sketch.hull(
        (0, -bottom - tall / 2, 0),
        (width / 2, tall / 2, length / 2),
        (0.05, 0.05, 0.10, 0.16),
        colour,
        "paint",
    )
    cabin, middle = body.cabin * length, body.shift * length
    glass = height - belt - 0.05
    lean = (0.17, 0.17, body.rear, body.windscreen)
    sketch.hull(
        (0, -belt - glass / 2, middle), (width / 2 - 0.06, glass / 2, cabin / 2), lean, GLASS, "glass"
    )
    # The roof carries the paint; its plan is the cabin's upper end.
    roof = (cabin - body.rear - body.windscreen) / 2
    centre = middle + (body.rear - body.windscreen) / 2
    sketch.box((0, -height + 0.03, centre), (width / 2 - 0.21, 0.035, roof + 0.05), colour, "paint")
    if detail == 0:
        return float(length)
    radius = 0.31 if height < 1.6 else 0.35
    _wheels(sketch, width / 2 - 0.09, 0.31 * length, radius, 0.11)
    sketch.box((0, -0.27, 0), (width / 2 - 0.02, 0.09, length / 2 - 0.01), DARK, "plain")
    _lamps(sketch, width, length, bottom + 0.68 * tall)
    if detail == 2:
        pillar = (0.17, 0.17, 0.0, 0.0)
        sketch.hull(
            (0, -belt - glass / 2, middle - 0.05),
            (width / 2 - 0.05, glass / 2, 0.05),
            pillar,
            colour * 0.8,
            "paint",
        )
        for side in (-1, 1):
            sketch.box(
                (side * (width / 2 + 0.08), -belt - 0.05, middle + 0.36 * cabin),
                (0.10, 0.06, 0.05),
                colour * 0.7,
                "paint",
            )
        plate = -bottom - 0.33 * tall
        for end in (-1, 1):
            sketch.box((0, plate, end * length / 2), (0.26, 0.055, 0.015), (0.85, 0.85, 0.82), "plain")
        if height > 1.9:
            # Loading doors of a van have no windows.
            sketch.hull(
                (0, -belt - glass / 2, middle - 0.18 * cabin),
                (width / 2 - 0.04, glass / 2, 0.30 * cabin),
                (0.16, 0.16, 0, 0),
                colour,
                "paint",
            )
    return float(length)


def draw_truck(sketch: Sketch, detail: int) -> float:
    """A delivery or heavy truck with a box body; returns its length, metres."""
    rng = sketch.rng
    sketch.raw_id = RawId.TRUCK
    length, width, height = rng.uniform(6.2, 9.5), rng.uniform(2.2, 2.5), rng.uniform(2.9, 3.7)
    cab, load = rng.uniform(1.7, 2.1), paint_colour(rng)
    if rng.random() < 0.5:
        load = rng.uniform(0.7, 0.92) * np.ones(3)
    colour = paint_colour(rng)
    floor = rng.uniform(0.75, 1.05)
    box = (length - cab - 0.25) / 2
    texture = str(rng.choice(["corrugated", "metal", "cloth"]))
    sketch.box(
        (0, -(floor + height) / 2, -length / 2 + box),
        (width / 2, (height - floor) / 2, box),
        load,
        texture,
        density=40,
    )
    front = length / 2 - cab / 2
    cab_height = min(height, rng.uniform(2.4, 2.9))
    sketch.hull(
        (0, -0.45 - (cab_height - 0.45) / 2, front),
        (width / 2 * 0.95, (cab_height - 0.45) / 2, cab / 2),
        (0.05, 0.05, 0, 0.18),
        colour,
        "paint",
    )
    sketch.box((0, -0.62, 0), (width * 0.4, 0.14, length / 2 - 0.2), DARK, "plain")
    if detail == 0:
        return float(length)
    sketch.hull(
        (0, -cab_height + 0.55, length / 2 - 0.06),
        (width * 0.42, 0.36, 0.10),
        (0, 0, 0.06, 0.06),
        GLASS,
        "glass",
    )
    sketch.box((0, -cab_height + 0.6, front + 0.1), (width / 2 * 0.95 + 0.01, 0.3, 0.45), GLASS, "glass")
    for z in (0.36 * length, -0.20 * length, -0.33 * length):
        _wheels(sketch, width * 0.42, z, 0.47, 0.15, both=False)
    if detail == 2:
        if rng.random() < 0.5:
            offset = (TILE_SIZES[TEXTURES.index("poster")] / 2,) * 2
            sketch.box(
                (0, -(floor + height) / 2, -length / 2 + box),
                (width / 2 + 0.01, 0.55, 0.55 * box),
                load,
                "poster",
                density=60,
                offset=offset,
            )
        _lamps(sketch, width, length, 0.8)
        sketch.box((0, -0.75, -length / 2), (0.26, 0.06, 0.02), (0.85, 0.85, 0.8), "plain")
        sketch.box((0, -0.55, -length / 2), (width / 2, 0.10, 0.05), (0.75, 0.7, 0.68), "plain")
    return float(length)


def draw_bus(sketch: Sketch, detail: int) -> float:
    """A city bus; returns its length, metres."""
    rng = sketch.rng
    sketch.raw_id = RawId.BUS
    length, width, height = rng.uniform(9.5, 12), 2.5, rng.uniform(2.9, 3.2)
    hue = float(rng.choice(BUS_HUES))
    colour = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.2, 0.85), rng.uniform(0.5, 0.85)))
    low, high = 0.35, 1.15
    sketch.box((0, -(low + high) / 2, 0), (width / 2, (high - low) / 2, length / 2), colour, "paint")
    band = height - high - 0.45
    sketch.box(
        (0, -high - band / 2, 0), (width / 2 - 0.02, band / 2, length / 2 - 0.03), GLASS, "glass", density=25
    )
    sketch.hull(
        (0, -height + 0.22, 0),
        (width / 2, 0.23, length / 2),
        (0.12, 0.12, 0.1, 0.1),
        colour * 0.95,
        "paint",
    )
    if detail == 0:
        return float(length)
    for z in np.arange(-length / 2 + 0.06, length / 2, 1.55):
        sketch.box((0, -high - band / 2, float(z)), (width / 2, band / 2, 0.06), colour * 0.8, "paint")
    for z in (0.30 * length, -0.28 * length):
        _wheels(sketch, width / 2 - 0.13, z, 0.48, 0.15, both=False)
    if detail == 2:
        _lamps(sketch, width, length, 0.75)
        sketch.box((0, -height + 0.32, length / 2), (0.7, 0.13, 0.02), (0.9, 0.7, 0.2), "poster", density=90)
    return float(length)


def draw_bicycle(sketch: Sketch, detail: int) -> None:
    """A bicycle."""
    rng = sketch.rng
    sketch.raw_id = RawId.BICYCLE
    colour = np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.7)))
    radius = 0.34
    for z in (-0.52, 0.52):
        _disc(sketch, (0, -radius, z), radius, 0.018, RUBBER, "spokes")
    thin = 0.02
    sketch.hull((0, -0.58, 0.10), (thin, 0.22, 0.09), (0, 0, 0.30, -0.30), colour, "paint")
    sketch.box((0, -0.80, 0.10), (thin, 0.025, 0.30), colour, "paint")
    if detail:
        sketch.hull((0, -0.62, -0.16), (thin, 0.28, 0.03), (0, 0, -0.08, 0.08), colour, "paint")
        sketch.hull((0, -0.66, 0.50), (thin, 0.34, 0.03), (0, 0, -0.10, 0.10), colour, "paint")
        sketch.box((0, -0.93, -0.24), (0.07, 0.035, 0.13), DARK, "plain")
        sketch.box((0, -1.02, 0.42), (0.27, 0.02, 0.02), DARK, "plain")


def _disc(
    sketch: Sketch,
    centre: tuple[float, float, float],
    radius: float,
    half_width: float,
    colour: npt.ArrayLike,
    texture: str,
) -> None:
    """A wheel whose texture is centred on the hub."""
    size = TILE_SIZES[TEXTURES.index(texture)]
    sketch.add(
        Shape.CYLINDER_X,
        centre,
        (half_width, radius, radius),
        colour,
        texture,
        density=size / (2 * radius),
        offset=(size / 2, size / 2),
    )


def _wheels(
    sketch: Sketch, x: float, z: float, radius: float, half_width: float, *, both: bool = True
) -> None:
    for side in (-1, 1):
        for end in (-1, 1) if both else (1,):
            _disc(sketch, (side * x, -radius, end * z), radius, half_width, RUBBER, "wheel")


def _lamps(sketch: Sketch, width: float, length: float, height: float) -> None:
    for side in (-1, 1):
        x = side * (width / 2 - 0.24)
        sketch.box((x, -height, -length / 2 + 0.03), (0.17, 0.08, 0.05), (0.70, 0.08, 0.07), "plain")
        sketch.box((x, -height, length / 2 - 0.05), (0.17, 0.08, 0.06), (0.92, 0.93, 0.88), "plain")
