"""How the textures look: brick, asphalt, leaves, facades, signs, ... as tileable arrays.

A texture is red, green, blue and tint: 128 is a factor of one, and tint says how much of the primitive's own
colour shows: plaster takes the wall's. Where tint is 0, as on window glass, colours are final and 255 is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from gestalt.runtime import numpy_generator

FloatArray = npt.NDArray[np.float32]

# Name and side of each tile; the sizes are powers of two. Textures that nothing comes near are small.
TILES = {
    "asphalt": 512, "concrete": 256, "paver": 256, "grass": 512, "leaf": 512, "needle": 256, "bark": 128,
    "brick": 512, "plaster": 512, "stone": 256, "planks": 256, "roof": 256, "paint": 256, "metal": 128,
    "cloth": 256, "corrugated": 256, "plain": 64, "glass": 128, "wheel": 64, "spokes": 64, "cloud": 512,
    "blotch": 256, "facade_flats": 512, "facade_office": 512, "facade_old": 512, "facade_brick": 512,
    "facade_balcony": 512, "facade_house": 512, "shop": 512, "entrance": 512, "sign_bar": 64, "sign_ring": 64,
    "sign_arrow": 64, "poster": 128,
}  # fmt: skip
# Facades: metres and storeys of a tile (a storey is 3.1 m), texels per metre.
FACADE_TILE_M = 12.4
STOREYS = 4
FACADE_DENSITY = 512 / FACADE_TILE_M

NEUTRAL = 128.0
PAINT_SEED = 20250


@cache
def _base_noise(size: int, fall: float) -> FloatArray:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[0, 0] = np.inf
    white = numpy_generator(PAINT_SEED, "noise", size).standard_normal((size, size))
    field = np.fft.irfft2(np.fft.rfft2(white) / frequency**fall, (size, size))
    return np.asarray(np.clip(field / field.std(), -2.5, 2.5), np.float32)


def noise(name: str, size: int, fall: float) -> FloatArray:
    """(size, size) tileable noise of zero mean and unit deviation whose spectrum falls with 1 / f**fall.

    One field per fall is enough: textures take it from different places, which costs no transform.
    """
    start = numpy_generator(PAINT_SEED, name).integers(0, size, 2)
    return np.roll(_base_noise(size, fall), tuple(int(step) for step in start), (0, 1))


def paint(name: str, size: int) -> FloatArray:
    """(size, size, 4) float32 tile of a texture, 0..255."""
    painter = PAINTERS.get(name)
    if painter is not None:
        return painter(name, size)
    kind = name.partition("_")[0]
    return FAMILIES[kind](name, size)


def _grey(field: npt.ArrayLike, tint: float = 255.0) -> FloatArray:
    """Tile of a brightness factor around one."""
    value = np.asarray(field, np.float32) * NEUTRAL
    return np.dstack([value, value, value, np.full_like(value, tint)])


def _asphalt(name: str, size: int) -> FloatArray:
    field = 1 + 0.13 * noise(name, size, 0.35) + 0.07 * noise(name + " stains", size, 1.1)
    crack = np.abs(noise(name + " cracks", size, 1.3)) < 0.02
    field[crack] *= 0.8
    # A repaired patch.
    field[size // 8 : size // 3, size // 2 : size // 2 + size // 5] *= 0.88
    return _grey(field)


def _concrete(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.10 * noise(name, size, 0.5) + 0.07 * noise(name + " stains", size, 1.2))


def _slabs(name: str, size: int) -> FloatArray:
    rows, columns = np.mgrid[:size, :size]
    side = size // 4
    tone = numpy_generator(PAINT_SEED, name, "tone").normal(0, 0.06, (4, 4))
    field = 1 + np.kron(tone, np.ones((side, side))) + 0.09 * noise(name, size, 0.6)
    field[(rows % side < 3) | (columns % side < 3)] -= 0.22
    return _grey(field)


def _grass(name: str, size: int) -> FloatArray:
    tile = _grey(1 + 0.22 * noise(name, size, 0.35) + 0.13 * noise(name + " patches", size, 1.2))
    dry = np.clip(noise(name + " dry", size, 1.0) * 0.12, -0.1, 0.3)
    tile[..., 0] *= 1 + dry
    return tile


def _foliage(name: str, size: int) -> FloatArray:
    clump, speck = noise(name + " clump", size, 1.0), noise(name, size, 0.4)
    tile = _grey(0.95 + 0.30 * clump * 0.6 + 0.30 * speck)
    tile[..., 0] *= 1 + 0.10 * noise(name + " hue", size, 0.9)
    return np.clip(tile, 20, 250)


def _streaks(name: str, size: int) -> FloatArray:
    field = cv2.blur(noise(name, size, 0.3), (1, 9), borderType=cv2.BORDER_REFLECT)
    return _grey(1 + 0.28 * field / field.std())


def _bricks(name: str, size: int) -> FloatArray:
    course, length = size // 32, size // 12
    rows, columns = np.mgrid[:size, :size]
    row = rows // course
    column = (columns + (row % 2) * (length // 2)) // length
    tone = numpy_generator(PAINT_SEED, name, "tone").normal(0, 0.11, (64, 64))
    field = 1 + tone[row % 32, column % 12] + 0.08 * noise(name, size, 0.6)
    mortar = (rows % course < 2) | ((columns + (row % 2) * (length // 2)) % length < 2)
    field[mortar] = 1.18 + 0.05 * noise(name, size, 0.6)[mortar]
    return _grey(field)


def _plaster(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.06 * noise(name, size, 0.5) + 0.09 * noise(name + " stains", size, 1.3))


def _stones(name: str, size: int) -> FloatArray:
    # Stones are wider than high.
    period = np.array([1.0, 1.6]) * size
    points = numpy_generator(PAINT_SEED, name).uniform(0, 1, (70, 2)) * period
    rows, columns = np.mgrid[:size, :size]
    texels = np.column_stack([columns.ravel(), 1.6 * rows.ravel()])
    distance, owner = (np.asarray(found) for found in cKDTree(points, boxsize=period).query(texels, k=2))
    tone = numpy_generator(PAINT_SEED, name, "tone").normal(0, 0.14, len(points))
    field = 1 + tone[owner[:, 0]].reshape(size, size) + 0.10 * noise(name, size, 0.6)
    field[(distance[:, 1] - distance[:, 0]).reshape(size, size) < 2.5] -= 0.35
    return _grey(field)


def _boards(name: str, size: int) -> FloatArray:
    rng = numpy_generator(PAINT_SEED, name, "tone")
    width = size // 16
    field = 1 + np.repeat(rng.normal(0, 0.10, 16), width)[None] + 0.10 * _streaks_field(name, size)
    field[:, np.arange(size) % width < 3] -= 0.45
    return _grey(field)


def _streaks_field(name: str, size: int) -> FloatArray:
    field = cv2.blur(noise(name, size, 0.4), (1, 15), borderType=cv2.BORDER_REFLECT)
    return np.asarray(field / field.std(), np.float32)


def _tiles(name: str, size: int) -> FloatArray:
    rows, columns = np.mgrid[:size, :size]
    step = size // 16
    field = (
        1
        + 0.12 * noise(name, size, 0.5)
        - 0.3 * (rows % step < 3)
        - 0.1 * np.cos(columns * 32 * np.pi / size)
    )
    return _grey(field)


def _paintwork(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.05 * noise(name, size, 1.4) + 0.03 * noise(name + " dust", size, 0.4))


def _fabric(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.12 * noise(name, size, 1.2) + 0.10 * noise(name + " weave", size, 0.4))


def _ribs(name: str, size: int) -> FloatArray:
    step = size // 16
    ribs = 0.10 * np.sign(np.sin(2 * np.pi * np.arange(size) / step))[None]
    return _grey(1 + ribs + 0.07 * noise(name, size, 1.0))


def _plain(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.04 * noise(name, size, 0.8))


def _glass(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.35 * noise(name, size, 1.5))


def _disc(size: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Radius (1 at the border) and angle of every texel."""
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    return np.hypot(axis[:, None], axis[None]), np.arctan2(axis[:, None], axis[None])


def _wheel(name: str, size: int) -> FloatArray:
    radius, angle = _disc(size)
    tile = _grey(1 + 0.1 * noise(name, size, 0.6))
    tile[radius < 0.66] = (150, 152, 156, 0)
    tile[(radius < 0.58) & (np.cos(5 * angle) < -0.2)] = (45, 46, 50, 0)
    return tile


def _spokes(name: str, size: int) -> FloatArray:
    radius, angle = _disc(size)
    tile = _grey(1 + 0.1 * noise(name, size, 0.6))
    tile[radius < 0.80] = (120, 122, 120, 0)
    tile[(radius < 0.80) & (np.abs(np.sin(9 * angle)) < 0.25)] = (185, 186, 190, 0)
    return tile


def _cloud(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.35 * noise(name, size, 1.6))


def _blotch(name: str, size: int) -> FloatArray:
    return _grey(1 + 0.30 * noise(name, size, 1.1))


def _sign(name: str, size: int) -> FloatArray:
    radius, _ = _disc(size)
    tile = _grey(np.ones((size, size)))
    white, black = (225, 225, 225, 0), (30, 30, 30, 0)
    third = size // 3
    if name == "sign_bar":
        tile[size // 2 - size // 10 : size // 2 + size // 10, size // 6 : -size // 6] = white
    elif name == "sign_ring":
        tile[radius < 0.72] = white
        tile[third:-third, size // 2 - 3 : size // 2 + 3] = black
    else:
        cv2.arrowedLine(tile, (third, size - third // 2), (size - third, third // 2), white, 6, tipLength=0.4)
        tile[radius > 0.93] = white
    return tile


def _poster(name: str, size: int) -> FloatArray:
    rng = numpy_generator(PAINT_SEED, name)
    tile = _grey(np.ones((size, size)))
    for _ in range(14):
        x, y = rng.integers(0, size - 20, 2)
        w, h = rng.integers(8, size // 2, 2)
        colour = (*rng.uniform(20, 240, 3), 0)
        cv2.rectangle(tile, (int(x), int(y)), (int(x + w), int(y + h // 2)), colour, -1)
    return tile


@dataclass(frozen=True)
class _Facade:
    """How one kind of facade is drawn; lengths are shares of a cell."""

    wall: Callable[[str, int], FloatArray]
    cells: int
    window: tuple[float, float, float, float]
    bars: tuple[int, int]
    frame: tuple[int, int, int]
    sill: bool = True
    balcony: bool = False
    shutters: bool = False


FACADES = {
    "facade_flats": _Facade(_plaster, 4, (0.25, 0.22, 0.75, 0.72), (1, 0), (225, 225, 220)),
    "facade_office": _Facade(_concrete, 6, (0.08, 0.16, 0.92, 0.80), (0, 0), (70, 75, 80), sill=False),
    "facade_old": _Facade(_plaster, 5, (0.30, 0.14, 0.70, 0.80), (1, 2), (235, 230, 215)),
    "facade_brick": _Facade(_bricks, 4, (0.28, 0.20, 0.72, 0.76), (1, 1), (220, 220, 215)),
    "facade_balcony": _Facade(_plaster, 3, (0.22, 0.12, 0.78, 0.86), (2, 0), (215, 215, 215), balcony=True),
    "facade_house": _Facade(_bricks, 3, (0.30, 0.24, 0.66, 0.70), (1, 1), (235, 235, 230), shutters=True),
}


def _facade(name: str, size: int) -> FloatArray:
    style = FACADES[name]
    rng = numpy_generator(PAINT_SEED, name)
    tile = style.wall(name, size)
    width, height = size / style.cells, size / STOREYS
    for row in range(STOREYS):
        for column in range(style.cells):
            left, top = column * width, row * height
            x0, x1 = (int(left + share * width) for share in (style.window[0], style.window[2]))
            y0, y1 = (int(top + share * height) for share in (style.window[1], style.window[3]))
            if style.shutters:
                colour = (60.0, 90.0, 70.0, 0.0)
                tile[y0 - 2 : y1 + 2, x0 - 16 : x0 - 2] = colour
                tile[y0 - 2 : y1 + 2, x1 + 2 : x1 + 16] = colour
            _window(tile, (x0, y0, x1, y1), style, rng)
            if style.sill:
                tile[y1 + 2 : y1 + 6, x0 - 5 : x1 + 5] = (*[min(c * 0.95, 255) for c in style.frame], 60)
                tile[y1 + 6 : y1 + 9, x0 - 5 : x1 + 5, :3] *= 0.75
            if style.balcony and (row + column) % 2 == 0:
                rail = slice(int(top + 0.62 * height), int(top + 0.92 * height))
                tile[rail, x0 - 10 : x1 + 10] = (150, 150, 152, 90)
                tile[rail, x0 - 10 : x1 + 10 : 6] = (70, 70, 75, 90)
    return tile


def _window(
    tile: FloatArray, box: tuple[int, int, int, int], style: _Facade, rng: np.random.Generator
) -> None:
    x0, y0, x1, y1 = box
    tile[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3] = (*style.frame, 0)
    pane = np.array([44, 54, 66]) * rng.uniform(0.6, 1.7)
    shade = np.linspace(1.35, 0.7, y1 - y0)[:, None, None] * pane
    tile[y0:y1, x0:x1, :3] = shade
    if rng.random() < 0.45:
        # A curtain or a blind covers part of the pane.
        depth = int((y1 - y0) * rng.uniform(0.2, 0.9))
        tile[y0 : y0 + depth, x0:x1, :3] = np.array([190, 182, 165]) * rng.uniform(0.6, 1.0)
    vertical, horizontal = style.bars
    for number in range(1, vertical + 1):
        x = x0 + (x1 - x0) * number // (vertical + 1)
        tile[y0:y1, x - 2 : x + 2] = (*style.frame, 0)
    for number in range(1, horizontal + 1):
        y = y0 + (y1 - y0) * number // (horizontal + 1)
        tile[y - 2 : y + 2, x0:x1] = (*style.frame, 0)


def _muted(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A colour of paint and print, 0..255: seldom pure."""
    grey = rng.uniform(50, 200)
    return np.asarray(grey + rng.choice([0.2, 0.2, 0.5]) * (rng.uniform(20, 235, 3) - grey))


def _ground_floor(name: str, size: int) -> FloatArray:
    """A storey of shop windows or of doors and garages; the tile is one storey high, repeated downwards."""
    rng = numpy_generator(PAINT_SEED, name)
    tile = _plaster(name, size)
    step = size // 4
    for column in range(4):
        left = column * step
        if name == "shop":
            tile[int(0.30 * size) : int(0.88 * size), left + 10 : left + step - 10, :3] = np.linspace(
                80, 40, int(0.88 * size) - int(0.30 * size)
            )[:, None, None] * (rng.uniform(0.7, 1.4) * rng.uniform(0.9, 1.1, 3))
            tile[int(0.30 * size) : int(0.88 * size), left + 10 : left + step - 10, 3] = 0
            for _ in range(5):
                goods = (
                    left + int(rng.integers(15, step - 40)),
                    int(rng.integers(int(0.5 * size), int(0.8 * size))),
                )
                x, y = goods
                tile[y : y + 45, x : x + 22] = (*_muted(rng), 0)
            tile[int(0.08 * size) : int(0.24 * size), left + 4 : left + step - 4] = (
                *rng.uniform(30, 220, 3),
                0,
            )
            for x in range(left + 20, left + step - 24, 16):
                tile[int(0.12 * size) : int(0.20 * size), x : x + int(rng.integers(4, 12))] = (
                    230,
                    230,
                    220,
                    0,
                )
        elif column % 2 == 0:
            tile[int(0.28 * size) :, left + 30 : left + step - 30] = (*(0.6 * _muted(rng)), 0)
            tile[int(0.33 * size) : int(0.6 * size), left + 44 : left + step - 44] = (60, 66, 74, 0)
        else:
            tile[int(0.25 * size) : int(0.75 * size), left + 20 : left + step - 20] = (225, 222, 215, 0)
            tile[int(0.28 * size) : int(0.72 * size), left + 26 : left + step - 26] = (52, 60, 70, 0)
    return tile


PAINTERS: dict[str, Callable[[str, int], FloatArray]] = {
    "asphalt": _asphalt,
    "concrete": _concrete,
    "paver": _slabs,
    "grass": _grass,
    "leaf": _foliage,
    "needle": _foliage,
    "bark": _streaks,
    "brick": _bricks,
    "plaster": _plaster,
    "stone": _stones,
    "planks": _boards,
    "roof": _tiles,
    "paint": _paintwork,
    "metal": _paintwork,
    "cloth": _fabric,
    "corrugated": _ribs,
    "plain": _plain,
    "glass": _glass,
    "wheel": _wheel,
    "spokes": _spokes,
    "cloud": _cloud,
    "blotch": _blotch,
    "shop": _ground_floor,
    "entrance": _ground_floor,
    "poster": _poster,
}
FAMILIES: dict[str, Callable[[str, int], FloatArray]] = {"facade": _facade, "sign": _sign}
