"""The neighbourhood that roadside things are drawn into: sketch, road, style, and where the kerb is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.scenes.primitives import Sketch
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import Road

FloatArray = npt.NDArray[np.float64]

# Beyond this distance from the camera's start, things get fewer primitives.
NEAR_M = 45.0


@dataclass(frozen=True)
class Style:
    """Kind of neighbourhood.

    Attributes:
        name: What people call it.
        segments: Relative frequency of the things that line the sidewalk.
        storeys: Range of storeys above the ground floor, upper end exclusive.
        tree_gap_m: Mean distance of street trees.
        post_gap_m: Mean distance of signs and posts.
    """

    name: str
    segments: dict[str, float]
    storeys: tuple[int, int]
    tree_gap_m: float
    post_gap_m: float


STYLES = (
    Style("city", {"row": 0.80, "wall": 0.06, "fence": 0.04, "park": 0.10}, (3, 7), 26, 15),
    Style("old town", {"row": 0.82, "wall": 0.10, "house": 0.08}, (2, 5), 40, 14),
    Style("boulevard", {"row": 0.62, "park": 0.22, "fence": 0.08, "wall": 0.08}, (4, 7), 9, 18),
    Style(
        "residential",
        {"house": 0.62, "row": 0.14, "park": 0.12, "wall": 0.06, "fence": 0.06},
        (2, 4),
        17,
        20,
    ),
    Style(
        "outskirts",
        {"hall": 0.24, "park": 0.26, "fence": 0.22, "wall": 0.14, "house": 0.14},
        (1, 3),
        15,
        22,
    ),
)
STYLE_SHARES = (0.34, 0.16, 0.16, 0.22, 0.12)


@dataclass(frozen=True)
class Site:
    """What the builders of static things draw into.

    Attributes:
        sketch: Gets the primitives; its generator draws everything.
        road: Where things stand is said in its coordinates.
        style: Kind of neighbourhood.
        season: Leaves from green (0) to yellow (1).
    """

    sketch: Sketch
    road: Road
    style: Style
    season: float

    @property
    def rng(self) -> np.random.Generator:
        """The sketch's generator."""
        return self.sketch.rng

    def box_beside(
        self,
        sign: int,
        s: float,
        distance: float,
        half: tuple[float, float, float],
        colour: npt.ArrayLike,
        texture: str,
        raw_id: RawId,
        *,
        base: float = 0.0,
        **more: Any,
    ) -> None:
        """A box along the road whose near face is ``distance`` metres outside the sidewalk.

        Args:
            sign: +1 right of the road, -1 left.
            s: Of its middle.
            distance: Metres.
            half: Half extents across the road, up, and along the road.
            colour: RGB in 0..1.
            texture: Name.
            raw_id: Class.
            base: Height of its underside, metres.
            more: See ``Sketch.add``.
        """
        x, z, heading = self.road.place(s, sign * (self.road.outer(sign) + distance + half[0]))
        self.sketch.box((x, -base - half[1], z), half, colour, texture, yaw=heading, raw_id=raw_id, **more)


def vary(rng: np.random.Generator, colours: tuple[tuple[float, ...], ...], spread: float) -> FloatArray:
    """One of ``colours``, a little lighter or darker; ``spread`` is the share by which."""
    colour = np.array(colours[rng.integers(len(colours))])
    return np.asarray(colour * rng.uniform(1 - 1.5 * spread, 1 + spread) + rng.normal(0, 0.02, 3))
