"""Lamps, signs, bollards, posts and traffic lights."""

from __future__ import annotations

from typing import Any

import numpy as np

from gestalt.scenes.primitives import Shape
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import KERB_M
from gestalt.scenes.site import Site
from gestalt.scenes.textures import TEXTURES, TILE_SIZES

METAL = (0.44, 0.45, 0.46)
SIGN_COLOURS = {
    "sign_bar": (0.72, 0.10, 0.10),
    "sign_ring": (0.75, 0.12, 0.10),
    "sign_arrow": (0.10, 0.25, 0.65),
}
LAMPS_RED = ((1.0, 0.15, 0.10), (0.30, 0.22, 0.06), (0.05, 0.20, 0.10))
LAMPS_GREEN = ((0.28, 0.06, 0.05), (0.30, 0.22, 0.06), (0.15, 0.95, 0.50))


def draw_lamp(site: Site, sign: int, s: float) -> None:
    """A street lamp whose arm reaches over the road."""
    rng, road = site.rng, site.road
    height, colour = rng.uniform(5, 8), np.array(METAL) * rng.uniform(0.6, 1.2)
    distance = road.edge(sign) + rng.uniform(0.35, 0.6)
    x, z, heading = road.place(s, sign * distance)
    site.sketch.post(x, z, rng.uniform(0.07, 0.11), height, colour, "metal", raw_id=RawId.POLE)
    for inward, rise, half in ((0.8, 0.0, (0.85, 0.05, 0.05)), (1.5, -0.06, (0.35, 0.07, 0.14))):
        x, z, heading = road.place(s, sign * (distance - inward))
        site.sketch.box((x, -height - rise, z), half, colour * 1.1, "metal", yaw=heading, raw_id=RawId.POLE)


def draw_post(site: Site, sign: int, s: float) -> None:
    """A sign, a row of bollards or a wooden mast at the kerb."""
    rng, road = site.rng, site.road
    kind = rng.random()
    x, z, _ = road.place(s, sign * (road.edge(sign) + rng.uniform(0.3, 0.6)))
    if kind < 0.55:
        draw_sign(site, x, z, s, sign)
    elif kind < 0.75:
        colour = np.full(3, rng.uniform(0.15, 0.5))
        for number in range(int(rng.integers(2, 6))):
            x, z, _ = road.place(s + 1.6 * number, sign * (road.edge(sign) + 0.35))
            site.sketch.post(x, z, 0.06, 1.0 + KERB_M, colour, "metal", raw_id=RawId.POLE)
    else:
        wood = np.array([0.36, 0.29, 0.24]) * rng.uniform(0.8, 1.3)
        site.sketch.post(x, z, rng.uniform(0.05, 0.13), rng.uniform(4, 8), wood, "bark", raw_id=RawId.POLE)


def draw_sign(site: Site, x: float, z: float, s: float, sign: int) -> None:
    """A round, triangular or rectangular sign on its post."""
    rng = site.rng
    height, radius = rng.uniform(2.3, 3.1), rng.uniform(0.28, 0.42)
    backwards = sign < 0 and rng.random() < 0.7
    yaw = site.road.curvature * s + rng.normal(0, 0.12) + (np.pi if backwards else 0)
    site.sketch.post(x, z, 0.035, height + 0.3, METAL, "metal", raw_id=RawId.POLE)
    texture = str(rng.choice(list(SIGN_COLOURS)))
    colour = SIGN_COLOURS[texture]
    size = TILE_SIZES[TEXTURES.index(texture)]
    # The face stands a little before the post, towards whoever reads it.
    centre = (x - 0.06 * float(np.sin(yaw)), -height, z - 0.06 * float(np.cos(yaw)))
    face: dict[str, Any] = {
        "yaw": yaw,
        "density": size / (2 * radius),
        "offset": (size / 2, size / 2),
        "raw_id": RawId.TRAFFIC_SIGN,
    }
    kind = rng.random()
    if kind < 0.55:
        site.sketch.add(Shape.CYLINDER_Z, centre, (radius, radius, 0.02), colour, texture, **face)
    elif kind < 0.75:
        lean = (radius - 0.02, radius - 0.02, 0.0, 0.0)
        site.sketch.hull(centre, (radius, 0.85 * radius, 0.02), lean, colour, "sign_ring", **face)
    else:
        colour = (0.85, 0.72, 0.12) if rng.random() < 0.4 else (0.12, 0.28, 0.62)
        site.sketch.box(centre, (radius, radius * rng.uniform(0.6, 1.2), 0.02), colour, texture, **face)


def draw_traffic_lights(site: Site, s: float, reach: float) -> None:
    """Lights at the four corners of a crossing whose middle is at ``s``; one pair may hang over the road."""
    road, rng = site.road, site.rng
    heading, arm = road.curvature * s, bool(rng.random() < 0.4)
    corners = ((-1, 1, arm, 0.0), (-1, -1, False, 0.0), (1, 1, False, 0.0), (1, -1, arm, np.pi))
    for end, sign, reaches_over, turned in corners:
        lateral = sign * (road.edge(sign) + 0.5)
        _draw_light(site, s + end * (reach - 1.0), lateral, heading + turned, reaches_over)


def _draw_light(site: Site, s: float, lateral: float, yaw: float, arm: bool) -> None:
    rng, road = site.rng, site.road
    x, z, _ = road.place(s, lateral)
    colour = np.full(3, rng.uniform(0.2, 0.5))
    site.sketch.post(x, z, 0.07, 5.6 if arm else 3.4, colour, "metal", raw_id=RawId.POLE)
    lamps = LAMPS_RED if rng.random() < 0.5 else LAMPS_GREEN
    _draw_head(site, x, 2.9, z, yaw, lamps)
    if arm:
        inward = -float(np.sign(lateral)) * 1.9
        x, z, heading = road.place(s, lateral + inward)
        half = (1.9, 0.05, 0.05)
        site.sketch.box((x, -5.5, z), half, colour, "metal", yaw=heading, raw_id=RawId.POLE)
        x, z, _ = road.place(s, lateral + 2 * inward)
        _draw_head(site, x, 5.2, z, yaw, lamps)


def _draw_head(
    site: Site, x: float, height: float, z: float, yaw: float, lamps: tuple[tuple[float, ...], ...]
) -> None:
    ahead_x, ahead_z = -float(np.sin(yaw)), -float(np.cos(yaw))
    x, z = x + 0.14 * ahead_x, z + 0.14 * ahead_z
    raw: dict[str, Any] = {"yaw": yaw, "raw_id": RawId.TRAFFIC_LIGHT}
    site.sketch.box((x, -height, z), (0.17, 0.46, 0.11), (0.08, 0.09, 0.08), "plain", **raw)
    for number, colour in enumerate(lamps):
        centre = (x + 0.11 * ahead_x, -height - 0.29 + 0.29 * number, z + 0.11 * ahead_z)
        site.sketch.add(Shape.CYLINDER_Z, centre, (0.10, 0.10, 0.02), colour, "plain", **raw)
