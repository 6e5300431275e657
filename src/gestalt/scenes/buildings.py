"""Buildings, walls and fences beside the road."""

from __future__ import annotations

from typing import Any

import numpy as np

from gestalt.scenes.painting import FACADE_DENSITY, FACADE_TILE_M, FACADES, STOREYS
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import END_M, KERB_M
from gestalt.scenes.site import NEAR_M, Site, vary
from gestalt.scenes.textures import TEXTURES, TILE_SIZES

STOREY_M = FACADE_TILE_M / STOREYS
GROUND_FLOOR_M = 3.4
DEPTH_M = 11.0
WALL_COLOURS = (
    (0.66, 0.50, 0.40), (0.74, 0.68, 0.54), (0.58, 0.58, 0.60), (0.52, 0.36, 0.29), (0.80, 0.76, 0.68),
    (0.70, 0.60, 0.50), (0.62, 0.66, 0.66), (0.76, 0.60, 0.46),
)  # fmt: skip
ROOF_COLOURS = ((0.42, 0.24, 0.18), (0.30, 0.29, 0.30), (0.36, 0.30, 0.27))


def draw_building(
    site: Site, sign: int, s: float, length: float, setback: float, depth: float = DEPTH_M
) -> None:
    """A town house from ``s`` to ``s + length``: ground floor, facade, cornice, often a roof or balconies."""
    rng = site.rng
    storeys = int(rng.integers(*site.style.storeys))
    height = GROUND_FLOOR_M + storeys * STOREY_M
    colour, middle = vary(rng, WALL_COLOURS, 0.12), s + length / 2
    site.box_beside(
        sign,
        middle,
        setback,
        (depth / 2, height / 2, length / 2),
        colour,
        str(rng.choice(list(FACADES))),
        RawId.BUILDING,
        **_facade(height, GROUND_FLOOR_M, float(rng.integers(0, 4)) * 128),
    )
    floor = "shop" if rng.random() < 0.45 else "entrance"
    size = TILE_SIZES[TEXTURES.index(floor)]
    density = size / GROUND_FLOOR_M / rng.uniform(0.9, 1.1)
    site.box_beside(
        sign,
        middle,
        setback - 0.06,
        (depth / 2, GROUND_FLOOR_M / 2, length / 2 - 0.02),
        colour * rng.uniform(0.7, 1.1),
        floor,
        RawId.BUILDING,
        density=density,
        offset=(float(rng.uniform(0, size)), -GROUND_FLOOR_M / 2 * density),
    )
    trim = colour * 0.85 + 0.1
    cornice = (depth / 2 + 0.15, 0.18, length / 2 + 0.05)
    site.box_beside(
        sign, middle, setback - 0.25, cornice, trim, "concrete", RawId.BUILDING, base=height - 0.1
    )
    if rng.random() < 0.5:
        draw_roof(
            site, sign, middle, setback + depth / 2, (depth / 2, length / 2), height, rng.uniform(1.5, 3)
        )
    if rng.random() < 0.3 and abs(middle) < NEAR_M:
        balcony = (0.45, 0.5, min(1.6, length / 4))
        for storey in range(1, storeys):
            base = GROUND_FLOOR_M + (storey - 1) * STOREY_M + 0.5
            site.box_beside(sign, middle, setback - 0.9, balcony, trim, "metal", RawId.BUILDING, base=base)


def draw_roof(
    site: Site, sign: int, s: float, distance: float, half: tuple[float, float], base: float, rise: float
) -> None:
    """A gabled or hipped roof; ``half`` extends across and along the road, ``distance`` is its middle's."""
    x, z, heading = site.road.place(s, sign * (site.road.outer(sign) + distance))
    across, along = half
    inset = (across - 0.05, across - 0.05, 0.0, 0.0)
    if site.rng.random() < 0.35:
        inset = (0.7 * across, 0.7 * across, 0.4, 0.4)
    site.sketch.hull(
        (x, -base - rise / 2, z),
        (across + 0.3, rise / 2, along + 0.2),
        inset,
        vary(site.rng, ROOF_COLOURS, 0.15),
        "roof",
        yaw=heading,
        density=30,
        raw_id=RawId.BUILDING,
    )


def draw_house(site: Site, sign: int, s: float, length: float, setback: float) -> float:
    """A detached house with a roof; returns its depth, metres."""
    rng = site.rng
    width, depth = min(length, rng.uniform(8, 13)), rng.uniform(8, 11)
    height = 0.5 + int(rng.integers(1, 3)) * STOREY_M
    middle = s + length / 2
    site.box_beside(
        sign,
        middle,
        setback,
        (depth / 2, height / 2, width / 2),
        vary(rng, WALL_COLOURS, 0.12),
        str(rng.choice(["facade_house", "facade_flats", "facade_brick"])),
        RawId.BUILDING,
        **_facade(height, 0.3, float(rng.uniform(0, 512))),
    )
    half = (depth / 2, width / 2)
    draw_roof(site, sign, middle, setback + depth / 2, half, height, rng.uniform(2.2, 3.6))
    return float(depth)


def draw_hall(site: Site, sign: int, s: float, length: float) -> None:
    """An industrial hall with a gate, behind a fence."""
    rng = site.rng
    half = (9.0, rng.uniform(2.5, 4.5), length / 2)
    colour, setback = vary(rng, WALL_COLOURS, 0.15), rng.uniform(3, 9)
    site.box_beside(sign, s + length / 2, setback, half, colour, "corrugated", RawId.BUILDING, density=24)
    gate = (0.1, 1.7, min(2.2, length / 4))
    site.box_beside(sign, s + length / 3, setback - 0.1, gate, colour * 0.6, "planks", RawId.BUILDING)
    draw_fence(site, sign, s, length, 0.3)


def draw_wall(site: Site, sign: int, s: float, length: float, distance: float, height: float) -> None:
    """A free-standing wall."""
    texture = str(site.rng.choice(["stone", "brick", "concrete", "plaster"]))
    half = (0.15, height / 2 + KERB_M / 2, length / 2)
    colour = vary(site.rng, WALL_COLOURS, 0.12) * 0.9
    site.box_beside(sign, s + length / 2, distance, half, colour, texture, RawId.WALL, density=45)


def draw_fence(site: Site, sign: int, s: float, length: float, distance: float) -> None:
    """A fence: boards, or rails between posts that one sees through."""
    rng = site.rng
    colour = np.array([0.42, 0.31, 0.22]) * rng.uniform(0.7, 1.4)
    height = rng.uniform(0.9, 1.8)
    if rng.random() < 0.5 or abs(s) > NEAR_M:
        half = (0.03, height / 2, length / 2)
        site.box_beside(sign, s + length / 2, distance, half, colour, "planks", RawId.FENCE, base=0.15)
        return
    if rng.random() < 0.6:
        colour = np.full(3, rng.uniform(0.15, 0.75))
    for rail in range(3):
        base = KERB_M + height * (rail + 1) / 3 - 0.05
        half = (0.025, 0.035, length / 2)
        site.box_beside(sign, s + length / 2, distance + 0.02, half, colour, "metal", RawId.FENCE, base=base)
    bars = rng.random() < 0.5 and s < NEAR_M / 2
    for along in np.arange(0, length + 0.01, 0.5 if bars else 1.8):
        half = (0.025, (height + KERB_M) / 2, 0.03)
        site.box_beside(sign, s + float(along), distance + 0.02, half, colour, "metal", RawId.FENCE)


def close_street(site: Site) -> None:
    """A row of buildings across the far end of the road."""
    rng = site.rng
    for number in range(5):
        height = GROUND_FLOOR_M + int(rng.integers(*site.style.storeys)) * STOREY_M
        x, z, heading = site.road.place(END_M + 10, -28 + 14.0 * number)
        site.sketch.box(
            (x, -height / 2, z),
            (7.0, height / 2, 5.0),
            vary(rng, WALL_COLOURS, 0.12),
            str(rng.choice(list(FACADES))),
            yaw=heading,
            raw_id=RawId.BUILDING,
            **_facade(height, GROUND_FLOOR_M, 0.0),
        )


def _facade(height: float, first_storey_m: float, start: float) -> dict[str, Any]:
    """Texture coordinates of a box with this height, such that whole storeys begin at ``first_storey_m``."""
    return {"density": FACADE_DENSITY, "offset": (start, -(height / 2 - first_storey_m) * FACADE_DENSITY)}
