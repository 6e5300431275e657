"""The atlas: all textures at all mip levels in one picture, made once per process, and lookups in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.scenes.painting import TILES, noise, paint

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

TEXTURES: tuple[str, ...] = tuple(TILES)
TILE_SIZES: tuple[int, ...] = tuple(TILES.values())
CLOUD, BLOTCH = TEXTURES.index("cloud"), TEXTURES.index("blotch")
ASPHALT, PAVER, GRASS = (TEXTURES.index(name) for name in ("asphalt", "paver", "grass"))

SMALLEST_LEVEL = 8
LEVEL_SCALES = np.float32(0.5) ** np.arange(10, dtype=np.float32)
# Wrapped texels around each tile, so that bilinear lookup at the seam needs no modulo.
MARGIN = 2


@dataclass(frozen=True, eq=False)
class Atlas:
    """All tiles at all levels in one picture.

    Attributes:
        picture: (rows, columns, 4) uint8: red, green, blue, tint.
        corner: (textures, levels, 2) int32, column and row of texel (0, 0).
        levels: (textures,) int32, number of levels.
        sizes: (textures,) int32, side at level 0.
    """

    picture: npt.NDArray[np.uint8]
    corner: IntArray
    levels: IntArray
    sizes: IntArray

    def sample(self, texture: Any, u: FloatArray, v: FloatArray, level: FloatArray) -> FloatArray:
        """Trilinear lookup.

        Args:
            texture: (N,) int32 texture index, or one for all.
            u: (N,) float32 texel column at level 0; wraps.
            v: (N,) float32 texel row at level 0; wraps.
            level: (N,) float32 mip level; clipped to those that exist.

        Returns:
            (N, 4) float32, colours and tint; NEUTRAL is a factor of one.
        """
        highest = (self.levels[texture] - 1).astype(np.float32)
        clipped = np.clip(level, 0, highest)
        lower = clipped.astype(np.int32)
        share = (clipped - lower)[:, None]
        fine = self._lookup(texture, u, v, lower)
        coarse = self._lookup(texture, u, v, np.minimum(lower + 1, highest.astype(np.int32)))
        return fine + (coarse - fine) * share

    def _lookup(self, texture: Any, u: FloatArray, v: FloatArray, level: IntArray) -> FloatArray:
        scale = LEVEL_SCALES[level]
        size = (self.sizes[texture] * scale).astype(np.float32)
        corner = self.corner[texture, level]
        columns = _wrap(u * scale - np.float32(0.5), size) + corner[:, 0]
        rows = _wrap(v * scale - np.float32(0.5), size) + corner[:, 1]
        # OpenCV's remap takes pictures only: fold the list into one that is narrow enough for it.
        n, width = len(columns), 1024
        padded = -n % width
        map_x = np.pad(columns.astype(np.float32), (0, padded)).reshape(-1, width)
        map_y = np.pad(rows.astype(np.float32), (0, padded)).reshape(-1, width)
        found = cv2.remap(self.picture, map_x, map_y, cv2.INTER_LINEAR)
        return np.asarray(found.reshape(-1, 4)[:n], np.float32)


@cache
def atlas() -> Atlas:
    """The atlas of this process."""
    painted = [_levels(paint(name, size)) for name, size in TILES.items()]
    n_levels = max(len(levels) for levels in painted)
    corner = np.zeros((len(painted), n_levels, 2), np.int32)
    height = max(sum(len(level) + 2 * MARGIN for level in levels) for levels in painted)
    width = sum(len(levels[0]) + 2 * MARGIN for levels in painted)
    picture = np.zeros((height, width, 4), np.uint8)
    column = 0
    for index, levels in enumerate(painted):
        row = 0
        for number, level in enumerate(levels):
            side = len(level) + 2 * MARGIN
            picture[row : row + side, column : column + side] = np.pad(
                level, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="wrap"
            )
            corner[index, number] = column + MARGIN, row + MARGIN
            row += side
        column += len(levels[0]) + 2 * MARGIN
    counts = np.array([len(levels) for levels in painted], np.int32)
    return Atlas(picture, corner, counts, np.array(TILE_SIZES, np.int32))


@cache
def hole_levels() -> tuple[FloatArray, ...]:
    """Rank in 0..1 of every texel of a speckle pattern, level by level; ranks below the share are holes."""
    field = noise("holes", 256, 0.95)
    levels = []
    while field.shape[0] >= SMALLEST_LEVEL:
        # The ranks of coarser levels stay those of level 0, so holes melt away with distance.
        levels.append(np.clip(0.5 + field / 4, 0, 1).astype(np.float32))
        field = cv2.resize(field, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return tuple(levels)


def _wrap(coordinate: FloatArray, size: FloatArray) -> FloatArray:
    return np.asarray(coordinate - size * np.floor(coordinate / size), np.float32)


def _levels(tile: FloatArray) -> list[npt.NDArray[np.uint8]]:
    levels = [tile]
    while len(levels[-1]) > SMALLEST_LEVEL:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return [np.clip(level + 0.5, 0, 255).astype(np.uint8) for level in levels]
