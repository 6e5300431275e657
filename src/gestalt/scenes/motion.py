"""Rigid bodies on the ground that drive along arcs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gestalt.scenes.raw_ids import RawId

FloatArray = npt.NDArray[np.float64]

# Slower turns than this are straight within double precision.
STRAIGHT_RAD_S = 1e-9


@dataclass(frozen=True)
class SceneObject:
    """One thing that could move: a rigid body on the ground that drives along an arc.

    Attributes:
        raw_id: Cityscapes raw id.
        position: World x, y, z of its origin at time 0, metres.
        yaw: Direction of its front at time 0, rad.
        speed: Along its front, m/s.
        yaw_rate: rad/s.
    """

    raw_id: RawId
    position: tuple[float, float, float]
    yaw: float
    speed: float = 0.0
    yaw_rate: float = 0.0

    @property
    def is_moving(self) -> bool:
        """Whether it is not at rest."""
        return self.speed > 0

    def pose(self, time: float) -> tuple[FloatArray, float]:
        """World position (3,) and yaw at ``time`` (s)."""
        x, y, z = self.position
        dx, dz, yaw = drive(self.yaw, self.speed, self.yaw_rate, time)
        return np.array([x + dx, y, z + dz]), yaw


def turn(yaw: float) -> FloatArray:
    """(3, 3) rotation about the vertical axis; positive turns +z towards +x."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def drive(yaw: float, speed: float, yaw_rate: float, time: float) -> tuple[float, float, float]:
    """Change of x and z and the new yaw after driving along an arc."""
    after = yaw + yaw_rate * time
    if abs(yaw_rate) < STRAIGHT_RAD_S:
        return speed * time * float(np.sin(yaw)), speed * time * float(np.cos(yaw)), after
    radius = speed / yaw_rate
    return radius * float(np.cos(yaw) - np.cos(after)), radius * float(np.sin(after) - np.sin(yaw)), after
