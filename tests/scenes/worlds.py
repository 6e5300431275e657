"""Small rendered worlds that several test modules of this folder share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from gestalt.config.presets import default_settings
from gestalt.scenes.render import Renderer, View
from gestalt.scenes.world import World
from gestalt.scenes.write import Batch

SIZE = (96, 192)
TIMES = (0.0, 0.12)


def batch(**values: Any) -> Batch:
    """A batch of small scenes."""
    settings = default_settings("scenes", height=SIZE[0], width=SIZE[1], noise=0.0, **values)
    return Batch(seed=3, name="town", settings=settings)


@cache
def world(index: int) -> World:
    """One world of the batch."""
    return batch().world(index)


@cache
def views(index: int) -> dict[tuple[int, str], View]:
    """Both stereo pairs of a world, by frame and side."""
    renderer = Renderer(world(index), SIZE, antialiasing="quincunx", noise=0.0)
    rng = np.random.default_rng(0)
    return {
        (frame, side): renderer.render(time, shift, rng)
        for frame, time in enumerate(TIMES)
        for side, shift in (("left", 0.0), ("right", 0.5))
    }
