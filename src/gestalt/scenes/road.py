"""The road: an arc with lanes, parking strips, side streets, verges, sidewalks; what the ground is where.

Road coordinates are ``s`` (metres along the centre line, 0 beside the camera at time 0) and ``lateral``
(metres to the right of the centre line). Everything that is not road is raised by the kerb.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.scenes.raw_ids import RawId

KERB_M = 0.12
# Sidewalk on both banks of a side street.
CORNER_SIDEWALK_M = 2.6
START_M, END_M = -12.0, 135.0


@dataclass(frozen=True)
class SideStreet:
    """A street that crosses at right angles: centre and half width along the road, metres."""

    s: float
    half_width: float
    zebra: bool

    @property
    def reach(self) -> float:
        """Half of the gap that it cuts into the rows of buildings."""
        return self.half_width + CORNER_SIDEWALK_M


@dataclass(frozen=True)
class RoadSide:
    """One side of the road, from the centre line outwards, metres."""

    lanes: int
    parking: bool
    verge: float
    sidewalk: float
    green: bool

    def edge(self, lane_width: float) -> float:
        """Distance of the kerb from the centre line."""
        return self.lanes * lane_width + (PARKING_STRIP_M if self.parking else 0.35)

    def outer(self, lane_width: float) -> float:
        """Distance of the far border of the sidewalk from the centre line."""
        return self.edge(lane_width) + self.verge + self.sidewalk


PARKING_STRIP_M = 2.15


@dataclass(frozen=True)
class Road:
    """Course and cross section.

    Attributes:
        curvature: 1/m, positive bends to the right; exactly 0 is straight.
        lane_width: Metres.
        left: The side with oncoming traffic.
        right: The side that the camera drives on.
        side_streets: In the order of ``s``.
    """

    curvature: float
    lane_width: float
    left: RoadSide
    right: RoadSide
    side_streets: tuple[SideStreet, ...]

    def side(self, sign: int) -> RoadSide:
        """The right side for +1, the left one for -1."""
        return self.right if sign > 0 else self.left

    def edge(self, sign: int) -> float:
        """Distance of a side's kerb from the centre line, metres."""
        return self.side(sign).edge(self.lane_width)

    def outer(self, sign: int) -> float:
        """Distance of a side's far sidewalk border from the centre line, metres."""
        return self.side(sign).outer(self.lane_width)

    def place(self, s: float, lateral: float) -> tuple[float, float, float]:
        """World x, z and heading (rad, yaw of the direction of growing ``s``) of a point."""
        heading = self.curvature * s
        if self.curvature == 0.0:
            return lateral, s, 0.0
        x = (1 - np.cos(heading)) / self.curvature + lateral * np.cos(heading)
        z = np.sin(heading) / self.curvature - lateral * np.sin(heading)
        return float(x), float(z), float(heading)

    def locate(self, x: npt.NDArray[Any], z: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Road coordinates ``s`` and ``lateral`` of points of the world."""
        if self.curvature == 0.0:
            return z, x
        radius = 1 / self.curvature
        sign = np.sign(radius)
        across, along = sign * (radius - x), sign * z
        return np.arctan2(along, across) * radius, radius - sign * np.hypot(across, along)

    def is_raised(self, s: npt.NDArray[Any], lateral: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where the ground lies a kerb above the road."""
        raised = (lateral > self.edge(1)) | (lateral < -self.edge(-1))
        for street in self.side_streets:
            raised &= np.abs(s - street.s) > street.half_width
        return np.asarray(raised)

    def ground_ids(
        self, s: npt.NDArray[Any], lateral: npt.NDArray[Any], raised: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.uint8]:
        """(N,) Cityscapes raw id of the ground: road, sidewalk or terrain."""
        ids = np.full(s.shape, RawId.ROAD, np.uint8)
        for sign in (-1, 1):
            side = self.side(sign)
            distance = sign * lateral - self.edge(sign)
            on_side = raised & (distance > 0)
            paved = (distance > side.verge) & (distance < side.verge + side.sidewalk)
            if not side.green:
                paved |= distance > side.verge
            for street in self.side_streets:
                paved |= np.abs(s - street.s) < street.reach
            ids[on_side] = np.where(paved[on_side], RawId.SIDEWALK, RawId.TERRAIN)
        return ids

    def near_side_street(self, s: float, margin: float = 0.0) -> bool:
        """Whether ``s`` lies in a side street or its sidewalks, widened by ``margin``."""
        return any(abs(s - street.s) < street.reach + margin for street in self.side_streets)
