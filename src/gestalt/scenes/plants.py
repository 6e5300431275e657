"""Trees, bushes and hedges."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import END_M, KERB_M
from gestalt.scenes.site import NEAR_M, FloatArray, Site

LEAF_DENSITY = 38.0
TREE_KINDS, TREE_SHARES = ("round", "spreading", "tall", "conifer"), (0.45, 0.28, 0.15, 0.12)


def draw_plant(site: Site, sign: int, s: float, distance: float, *, small: bool = False) -> None:
    """A tree, or a bush, ``distance`` metres outside the sidewalk; none in the mouth of a side street."""
    x, z, _ = site.road.place(s, sign * (site.road.outer(sign) + distance))
    if site.road.near_side_street(s, -1.0) and distance < 14:
        return
    if small:
        _draw_bush(site, x, z)
    else:
        draw_tree(site, x, z)


def draw_hedge(site: Site, sign: int, s: float, length: float, distance: float) -> None:
    """A trimmed hedge."""
    rng = site.rng
    half = (rng.uniform(0.3, 0.6), rng.uniform(0.7, 1.8) / 2 + KERB_M / 2, length / 2)
    holes = 0.12 if abs(s) < NEAR_M else 0.0
    colour = _green(site) * 0.9
    site.box_beside(
        sign, s + length / 2, distance, half, colour, "leaf", RawId.VEGETATION, density=50, holes=holes
    )


def draw_tree(site: Site, x: float, z: float, *, street: bool = False) -> None:
    """A tree; along a street no conifer."""
    rng, colour = site.rng, _green(site)
    far = bool(np.hypot(x, z) > NEAR_M)
    kind = str(rng.choice(TREE_KINDS, p=TREE_SHARES))
    bark = np.array([0.30, 0.24, 0.19]) * rng.uniform(0.7, 1.3)
    if kind == "conifer" and not street:
        _draw_conifer(site, x, z, colour, bark, far)
    elif kind == "tall":
        _draw_tall(site, x, z, colour, bark, far)
    else:
        _draw_crown(site, x, z, colour, bark, far, spreading=kind == "spreading")


def close_view(site: Site) -> None:
    """Trees across the far end of the road."""
    rng = site.rng
    for _ in range(14):
        x, z, _ = site.road.place(END_M + rng.uniform(0, 12), rng.uniform(-32, 32))
        _leaves(site, (x, -rng.uniform(1.5, 4), z), rng.uniform(2.5, 5.5, 3), _green(site))


def _draw_bush(site: Site, x: float, z: float) -> None:
    rng, colour = site.rng, _green(site)
    for _ in range(int(rng.integers(1, 4))):
        height = rng.uniform(0.35, 0.8)
        centre = (x + rng.normal(0, 0.5), -KERB_M - height * 0.8, z + rng.normal(0, 0.5))
        _leaves(site, centre, rng.uniform(0.8, 1.5, 3) * height, colour)


def _draw_crown(
    site: Site, x: float, z: float, colour: FloatArray, bark: FloatArray, far: bool, *, spreading: bool
) -> None:
    rng = site.rng
    trunk = rng.uniform(1.9, 3.2)
    size, flat = rng.uniform(1.3, 2.3) * (1.25 if spreading else 1.0), 0.7 if spreading else 1.0
    _trunk(site, x, z, trunk + 1.2, bark)
    if spreading and not far:
        for side in (-1, 1):
            lean = (side * 0.7, -side * 0.7, 0.0, 0.0)
            _branch(site, (x, -trunk - 0.6, z), lean, bark)
    for number in range(3 if far else int(rng.integers(8, 13))):
        # A core, and clumps around it that make the outline ragged.
        shift = np.clip(rng.normal(0, 0.62, 3), -0.9, 0.9) * size if number else np.zeros(3)
        radii = rng.uniform(0.38, 0.75, 3) if number else rng.uniform(0.8, 1.0, 3)
        centre = (x + shift[0], -trunk - size * flat - shift[1] * 0.8 * flat, z + shift[2])
        _leaves(site, centre, radii * size * np.array([1, flat, 1]), colour)


def _draw_tall(site: Site, x: float, z: float, colour: FloatArray, bark: FloatArray, far: bool) -> None:
    trunk, height = site.rng.uniform(0.6, 1.4), site.rng.uniform(5, 9)
    _trunk(site, x, z, trunk + 1.2, bark)
    _leaves(site, (x, -trunk - height / 2, z), np.array([0.17, 0.5, 0.17]) * height, colour)
    if not far:
        _leaves(site, (x + 0.2, -trunk - height * 0.4, z), np.array([0.2, 0.36, 0.2]) * height, colour)


def _draw_conifer(site: Site, x: float, z: float, colour: FloatArray, bark: FloatArray, far: bool) -> None:
    rng = site.rng
    trunk, height, radius = rng.uniform(0.6, 1.4), rng.uniform(5, 11), rng.uniform(1.2, 2.1)
    _trunk(site, x, z, trunk + 1, bark)
    for tier in range(1 if far else 3):
        share = 1 - 0.25 * tier
        half = (radius * share, height * (0.5 if far else 0.25), radius * share)
        lean = 0.92 * radius * share
        site.sketch.hull(
            (x, -trunk - height * 0.27 * tier - half[1], z),
            half,
            (lean, lean, lean, lean),
            colour * 0.7,
            "needle",
            yaw=0.7 * tier,
            density=45,
            holes=0.0 if far else 0.2,
            raw_id=RawId.VEGETATION,
        )


def _trunk(site: Site, x: float, z: float, height: float, bark: FloatArray) -> None:
    radius = site.rng.uniform(0.09, 0.2)
    site.sketch.post(x, z, radius, height, bark, "bark", density=50, raw_id=RawId.VEGETATION)


def _branch(site: Site, centre: tuple[float, float, float], lean: Any, bark: FloatArray) -> None:
    site.sketch.hull(
        centre,
        (0.07, 0.7, 0.07),
        lean,
        bark,
        "bark",
        yaw=site.rng.uniform(0, 3),
        density=50,
        raw_id=RawId.VEGETATION,
    )


def _leaves(site: Site, centre: tuple[float, float, float], radii: npt.ArrayLike, colour: FloatArray) -> None:
    """A clump of leaves; near ones are full of holes that one sees through."""
    near = np.hypot(centre[0], centre[2]) < NEAR_M
    a, b, c = (float(radius) for radius in np.asarray(radii))
    site.sketch.ellipsoid(
        centre,
        (a, b, c),
        colour * site.rng.uniform(0.8, 1.25),
        "leaf",
        density=LEAF_DENSITY,
        holes=float(site.rng.uniform(0.10, 0.26)) if near else 0.0,
        raw_id=RawId.VEGETATION,
    )


def _green(site: Site) -> FloatArray:
    """The colour of one plant's leaves."""
    rng = site.rng
    green, yellow = np.array([0.20, 0.33, 0.12]), np.array([0.46, 0.38, 0.13])
    share = np.clip(site.season + rng.normal(0, 0.12), 0, 1)
    return np.asarray((green + share * (yellow - green)) * rng.uniform(0.7, 1.5) + rng.normal(0, 0.015, 3))
