"""Convex primitives that every object of a world is made of, collected one by one and packed into arrays.

Frames: x right, y down, z forward, metres. The ground is y = 0, so what stands has negative y.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.scenes.textures import TEXTURES, TILE_SIZES

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
Vector = tuple[float, float, float]

STATIC = 0


class Shape(IntEnum):
    """Kind of a primitive; all lie in an upright frame that is turned about the vertical axis only."""

    BOX = 0
    HULL = 1
    ELLIPSOID = 2
    CYLINDER_X = 3
    CYLINDER_Y = 4
    CYLINDER_Z = 5


@dataclass(frozen=True, eq=False)
class Primitives:
    """N primitives in the frames of their objects.

    Attributes:
        shape: (N,) ``Shape``.
        centre: (N, 3) metres, in the frame of the object.
        half: (N, 3) half extents, metres.
        yaw: (N,) turn about the vertical axis inside the object's frame, rad.
        inset: (N, 4) of a hull: how far its left, right, back and front side lean inwards at the top, metres.
        colour: (N, 3) in 0..1.
        texture: (N,) index into ``TEXTURES``.
        density: (N,) texels per metre.
        offset: (N, 2) texels added to texture coordinates.
        holes: (N,) share of the surface that is cut away (foliage).
        raw_id: (N,) Cityscapes raw id.
        object_index: (N,) index of the object; 0 is the static world.
    """

    shape: IntArray
    centre: FloatArray
    half: FloatArray
    yaw: FloatArray
    inset: FloatArray
    colour: FloatArray
    texture: IntArray
    density: FloatArray
    offset: FloatArray
    holes: FloatArray
    raw_id: IntArray
    object_index: IntArray

    def __len__(self) -> int:
        return len(self.shape)


class Sketch:
    """Collects primitives; ``pack`` makes arrays of them.

    ``raw_id`` and ``object_index`` are what the next primitives get, so that the builders of vehicles and
    people need not pass them on.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.raw_id = 0
        self.object_index = STATIC
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        shape: Shape,
        centre: Vector,
        half: Vector,
        colour: npt.ArrayLike,
        texture: str,
        *,
        density: float = 60.0,
        yaw: float = 0.0,
        inset: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
        holes: float = 0.0,
        offset: tuple[float, float] | None = None,
        raw_id: int | None = None,
    ) -> None:
        """Add one primitive; see ``Primitives`` for the arguments. A missing ``offset`` is drawn."""
        index = TEXTURES.index(texture)
        start = tuple(self.rng.uniform(0, TILE_SIZES[index], 2)) if offset is None else offset
        kept = np.clip(np.asarray(colour, np.float32), 0, 1)
        self._rows.append(
            (
                shape,
                centre,
                half,
                yaw,
                inset,
                kept,
                index,
                density,
                start,
                holes,
                self.raw_id if raw_id is None else raw_id,
                self.object_index,
            )
        )

    def box(self, centre: Vector, half: Vector, colour: npt.ArrayLike, texture: str, **more: Any) -> None:
        """A cuboid."""
        self.add(Shape.BOX, centre, half, colour, texture, **more)

    def hull(
        self,
        centre: Vector,
        half: Vector,
        inset: tuple[float, float, float, float],
        colour: npt.ArrayLike,
        texture: str,
        **more: Any,
    ) -> None:
        """A cuboid whose sides lean; opposite insets of one size shear it."""
        self.add(Shape.HULL, centre, half, colour, texture, inset=inset, **more)

    def ellipsoid(
        self, centre: Vector, half: Vector, colour: npt.ArrayLike, texture: str, **more: Any
    ) -> None:
        """An ellipsoid."""
        self.add(Shape.ELLIPSOID, centre, half, colour, texture, **more)

    def post(
        self,
        x: float,
        z: float,
        radius: float,
        height: float,
        colour: npt.ArrayLike,
        texture: str,
        **more: Any,
    ) -> None:
        """An upright cylinder on the ground."""
        half = (radius, height / 2, radius)
        self.add(Shape.CYLINDER_Y, (x, -height / 2, z), half, colour, texture, **more)

    def pack(self) -> Primitives:
        """All primitives so far as arrays."""
        integers = ("shape", "texture", "raw_id", "object_index")
        named: dict[str, Any] = {
            field.name: np.array(column, np.int32 if field.name in integers else np.float32)
            for field, column in zip(fields(Primitives), zip(*self._rows))
        }
        return Primitives(**named)
