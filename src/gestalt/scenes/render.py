"""From a world to images: cast, shade, average the samples of a pixel, expose, add sensor noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.scenes.casting import Hits, Rays, cast
from gestalt.scenes.primitives import FloatArray
from gestalt.scenes.shading import shade
from gestalt.scenes.shadows import ShadowMap, draw_shadows, draw_static_shadows
from gestalt.scenes.world import World

# Quincunx: half of a pixel is its centre, half its four corners, which it shares with its neighbours. Two
# samples a pixel instead of four, and the sample at the centre is the one that the truth is about.
CENTRE_SHARE, CORNER_SHARE = 0.5, 0.125


@dataclass(frozen=True, eq=False)
class View:
    """One image and what its pixel centres see.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        hits: At the pixel centres.
        rays: Through the pixel centres.
    """

    image: npt.NDArray[np.uint8]
    hits: Hits
    rays: Rays


class Renderer:
    """Renders views of one world; what all views share is computed once.

    Args:
        world: The world.
        size: (H, W) of the images.
        antialiasing: ``none`` (a sample a pixel) or ``quincunx`` (two).
        noise: Standard deviation of the sensor noise, 1 = full range.
    """

    def __init__(self, world: World, size: tuple[int, int], *, antialiasing: str, noise: float) -> None:
        self.world, self.size = world, size
        self.antialiasing, self.noise = antialiasing, noise
        self._static_shadows = draw_static_shadows(world)
        self._shadows: dict[float, ShadowMap] = {}

    def render(self, time: float, shift_right: float, rng: np.random.Generator) -> View:
        """The view of the camera ``shift_right`` metres to the right of the left one at ``time`` (s)."""
        height, width = self.size
        placed = self.world.place(time)
        if time not in self._shadows:
            self._shadows = {time: draw_shadows(self.world, placed, self._static_shadows)}
        shadows = self._shadows[time]
        rays = self.world.camera.rays(time, shift_right, np.arange(width), np.arange(height))
        hits = cast(placed, self.world.road, rays)
        colours = shade(self.world, placed, rays, hits, shadows)
        if self.antialiasing == "quincunx":
            between = self.world.camera.rays(
                time, shift_right, np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5
            )
            corners = shade(self.world, placed, between, cast(placed, self.world.road, between), shadows)
            around = corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:]
            colours = CENTRE_SHARE * colours + CORNER_SHARE * around
        return View(self._expose(colours, rng), hits, rays)

    def _expose(self, colours: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        weather = self.world.weather
        exposed = np.maximum(colours * weather.tint.astype(np.float32), 0)
        if weather.gamma != 1.0:
            exposed = cv2.pow(exposed, weather.gamma)
        exposed += rng.standard_normal(exposed.shape, np.float32) * np.float32(self.noise)
        return np.clip(exposed * 255 + 0.5, 0, 255).astype(np.uint8)
