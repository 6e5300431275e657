"""What stands beside the road and never moves, from the near end to the far one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gestalt.scenes.buildings import close_street, draw_building, draw_fence, draw_hall, draw_house, draw_wall
from gestalt.scenes.plants import close_view, draw_hedge, draw_plant, draw_tree
from gestalt.scenes.primitives import STATIC
from gestalt.scenes.road import END_M, START_M, SideStreet
from gestalt.scenes.site import Site
from gestalt.scenes.street_furniture import draw_lamp, draw_post, draw_sign, draw_traffic_lights


def draw_roadside(site: Site) -> None:
    """Both sides of the road, its side streets and its far end."""
    site.sketch.object_index = STATIC
    for sign in (-1, 1):
        _draw_segments(site, sign)
        _draw_kerb_line(site, sign)
        for street in site.road.side_streets:
            _draw_side_street(site, sign, street)
    for street in site.road.side_streets:
        if site.rng.random() < 0.6:
            draw_traffic_lights(site, street.s, street.reach)
        else:
            s = street.s - street.reach + 0.8
            x, z, _ = site.road.place(s, site.road.edge(1) + 0.6)
            draw_sign(site, x, z, s, 1)
    # Most streets end at buildings or trees, not at the open sky.
    kind = site.rng.random()
    if kind < 0.55:
        close_street(site)
    elif kind < 0.9:
        close_view(site)


def _draw_segments(site: Site, sign: int) -> None:
    """Buildings, gardens, walls, ... one after another, with gaps for side streets."""
    rng, names = site.rng, list(site.style.segments)
    shares = np.array(list(site.style.segments.values()))
    s = START_M + rng.uniform(0, 6)
    while s < END_M:
        length = rng.uniform(9, 20)
        for street in site.road.side_streets:
            first, last = street.s - street.reach, street.s + street.reach
            if s < last and s + length > first:
                # Fill up to the corner when enough is left, else go on behind it.
                s, length = (s, first - s) if s < first - 5 else (last, length)
        kind = str(rng.choice(names, p=shares / shares.sum()))
        SEGMENTS[kind](site, sign, s, length)
        s += length
        if kind in ("house", "hall") or rng.random() < 0.12:
            s += rng.uniform(1.5, 6)


def _draw_row(site: Site, sign: int, s: float, length: float) -> None:
    setback = site.rng.uniform(0, 0.4) + 2.2 * (site.rng.random() < 0.2)
    draw_building(site, sign, s, length, setback)


def _draw_garden_house(site: Site, sign: int, s: float, length: float) -> None:
    rng = site.rng
    setback = rng.uniform(2.5, 6.5)
    depth = draw_house(site, sign, s, length, setback)
    border = rng.random()
    if border < 0.35:
        draw_hedge(site, sign, s, length, 0.3)
    elif border < 0.6:
        draw_fence(site, sign, s, length, 0.2)
    elif border < 0.8:
        draw_wall(site, sign, s, length, 0.2, rng.uniform(0.5, 1.1))
    for _ in range(int(rng.integers(0, 3))):
        draw_plant(site, sign, s + rng.uniform(0, length), rng.uniform(0.8, setback - 0.5), small=True)
    if rng.random() < 0.6:
        draw_plant(site, sign, s + rng.uniform(-1, length + 1), setback + depth + rng.uniform(1, 4))


def _draw_walled(site: Site, sign: int, s: float, length: float) -> None:
    draw_wall(site, sign, s, length, site.rng.uniform(0.1, 0.8), site.rng.uniform(1.0, 2.6))
    _draw_backdrop(site, sign, s, length)


def _draw_fenced(site: Site, sign: int, s: float, length: float) -> None:
    draw_fence(site, sign, s, length, site.rng.uniform(0.1, 0.8))
    _draw_backdrop(site, sign, s, length)


def _draw_park(site: Site, sign: int, s: float, length: float) -> None:
    border = site.rng.random()
    if border < 0.35:
        draw_hedge(site, sign, s, length, 0.4)
    elif border < 0.55:
        draw_fence(site, sign, s, length, 0.2)
    _draw_backdrop(site, sign, s, length)


def _draw_backdrop(site: Site, sign: int, s: float, length: float) -> None:
    """Plants, and behind them a building or more plants."""
    rng = site.rng
    for number in range(max(int(length / 4.5), 1)):
        start = s + 4.5 * number
        draw_plant(site, sign, start + rng.uniform(0, 3), rng.uniform(1.5, 7))
        if rng.random() < 0.5:
            draw_plant(site, sign, start + rng.uniform(0, 3), rng.uniform(0.8, 4), small=True)
    if rng.random() < 0.6:
        draw_building(site, sign, s, length, rng.uniform(9, 18))
    else:
        for number in range(max(int(length / 6), 1)):
            draw_plant(site, sign, s + 6 * number + rng.uniform(0, 3), rng.uniform(8, 16))


SEGMENTS: dict[str, Callable[[Site, int, float, float], None]] = {
    "row": _draw_row,
    "house": _draw_garden_house,
    "hall": draw_hall,
    "wall": _draw_walled,
    "fence": _draw_fenced,
    "park": _draw_park,
}


def _draw_kerb_line(site: Site, sign: int) -> None:
    """Street trees, lamps, signs and bollards between kerb and sidewalk."""
    rng, road = site.rng, site.road
    has_trees = rng.random() < 0.75
    tree_gap, post_gap = site.style.tree_gap_m, site.style.post_gap_m
    for s in _spread(rng, tree_gap, 0.7 * tree_gap, 1.3 * tree_gap):
        if has_trees and not road.near_side_street(s, 2.0):
            distance = road.edge(sign) + max(road.side(sign).verge / 2, 0.75)
            x, z, _ = road.place(s, sign * distance)
            draw_tree(site, x, z, street=True)
    for s in _spread(rng, post_gap, 0.5 * post_gap, 1.5 * post_gap):
        if not road.near_side_street(s):
            draw_post(site, sign, s)
    for s in _spread(rng, 25.0, 24.0, 34.0):
        if not road.near_side_street(s, -1.0):
            draw_lamp(site, sign, s)


def _spread(rng: np.random.Generator, first: float, least: float, most: float) -> list[float]:
    """Positions along the road with random gaps."""
    places = [START_M + rng.uniform(0, first)]
    while places[-1] < END_M - 20:
        places.append(places[-1] + rng.uniform(least, most))
    return places[:-1]


def _draw_side_street(site: Site, sign: int, street: SideStreet) -> None:
    """Buildings on both banks of the side street behind those at the corners, and some trees."""
    rng = site.rng
    for end in (-1, 1):
        distance = 11.0
        while distance < 55:
            depth, half_length = rng.uniform(9, 18), 6.0
            s = street.s + end * (street.reach + half_length) - half_length
            draw_building(site, sign, s, 2 * half_length, distance, depth)
            distance += depth
    if rng.random() < 0.5:
        for _ in range(4):
            lateral = sign * (site.road.outer(sign) + rng.uniform(12, 50))
            x, z, _ = site.road.place(street.s + rng.choice([-1, 1]) * (street.reach - 0.8), lateral)
            draw_tree(site, x, z, street=True)
