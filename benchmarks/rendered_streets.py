"""Two stereo pairs of a rendered street with everything that is true about them, kept in a cache folder.

A street depends on a seed, a name, its number and the section ``scenes``, and on nothing else. What is in the cache was
rendered by the present code of the room ``scenes``: other code or other settings are another folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gestalt.scenes
from benchmarks.motion import MAPS
from gestalt.config.scenes import SceneSettings
from gestalt.data.atomic_files import written_aside
from gestalt.data.frames import StereoImages
from gestalt.errors import DataError
from gestalt.matching.measurement import Measurement
from gestalt.runtime import numpy_generator
from gestalt.scenes import truth
from gestalt.scenes.render import Renderer
from gestalt.scenes.world import World
from gestalt.scenes.write import Batch

FloatArray = npt.NDArray[np.float32]

# Not the first frame of a scene: vehicles that enter at its start have come into view.
FRAME = 1
KEY_LENGTH = 16


@dataclass(frozen=True)
class Place:
    """Which street: names of the random choices, and what is rendered."""

    seed: int
    batch: str
    index: int
    settings: SceneSettings

    @property
    def frame_id(self) -> str:
        """Unique among the streets of a batch."""
        return f"{self.seed}_{self.index:03d}"


@dataclass(frozen=True, eq=False)
class Street:
    """What was rendered, and what is true about the left image at t.

    Attributes:
        images: Both stereo pairs.
        exact: The arrays of ``gestalt.scenes.truth.exact_geometry``, by name.
        moving: (M,) int32 values in ``exact["instance_values"]`` of the visible objects that move.
        speed_m_s: (M,) float64, over ground.
        distance_m: (M,) float64, from the camera.
    """

    images: StereoImages
    exact: dict[str, npt.NDArray[Any]]
    moving: npt.NDArray[np.int32]
    speed_m_s: npt.NDArray[np.float64]
    distance_m: npt.NDArray[np.float64]

    def measurement(self) -> Measurement:
        """What a perfect matcher measures, of both directions and both views.

        The sky, which has no disparity, and what passes behind the camera, which has no optical flow, are unknown.
        """
        arrays = {
            name: np.nan_to_num(self.exact[name], nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
            for name in MAPS
        }
        forward = self.exact["optical_flow_forward"]
        arrays["optical_flow_forward"] = np.where(np.isfinite(forward), forward, np.nan).astype(np.float32)
        return Measurement(**arrays)


def render_street(place: Place, *, standing: bool = False) -> Street:
    """Render a street.

    Args:
        place: Which one.
        standing: Everything but the camera stands still.
    """
    batch, settings = Batch(place.seed, place.batch, place.settings), place.settings
    world = batch.world(place.index)
    if standing:
        world = stop_traffic(world)
    renderer = Renderer(
        world, (settings.height, settings.width), antialiasing=settings.antialiasing, noise=settings.noise
    )
    times = (FRAME * settings.time_step_s, (FRAME + 1) * settings.time_step_s)
    views = {}
    for frame, time in zip((FRAME, FRAME + 1), times, strict=True):
        for side, shift in (("left", 0.0), ("right", settings.stereo_baseline_m)):
            purpose = ("scene", place.batch, place.index, f"noise {side} {frame}")
            views[frame, side] = renderer.render(time, shift, numpy_generator(place.seed, *purpose))
    rows = truth.object_table(world, views[FRAME, "left"], place.frame_id, times[0])
    moving = [row for row in rows if row["is_moving"]]
    left, right = ([views[frame, side].image for frame in (FRAME, FRAME + 1)] for side in ("left", "right"))
    return Street(
        images=StereoImages(
            left[0],
            right[0],
            left[1],
            right[1],
            world.camera.intrinsics,
            settings.stereo_baseline_m,
            np.ones((settings.height, settings.width), np.bool_),
        ),
        exact=truth.exact_geometry(world, views, FRAME, times, settings.stereo_baseline_m),
        moving=np.array([row["instance"] for row in moving], np.int32),
        speed_m_s=np.array([row["speed_m_s"] for row in moving], np.float64),
        distance_m=np.array([row["distance_m"] for row in moving], np.float64),
    )


def stop_traffic(world: World) -> World:
    """The same street at the same moment of its start, with every object at rest."""
    at_rest = tuple(dataclasses.replace(item, speed=0.0, yaw_rate=0.0) for item in world.objects)
    return dataclasses.replace(world, objects=at_rest)


def load_street(place: Place, folder: Path) -> Street:
    """The street from the cache, rendered and stored first where it is not there.

    Args:
        place: Which one.
        folder: The cache.

    Raises:
        DataError: The disk is full, or a stored street cannot be read.
    """
    path = folder / cache_key(place.settings) / f"{place.batch}_{place.frame_id}.npz"
    if path.is_file():
        return _read(path)
    street = render_street(place)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **_arrays(street))  # type: ignore[arg-type]
    return street


@cache
def renderer_version() -> str:
    """SHA-256 of the source of this module and of the room that renders."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(Path(gestalt.scenes.__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def cache_key(settings: SceneSettings) -> str:
    """Name of the cache's folder for streets of these settings, by the present code."""
    text = f"{renderer_version()} {dataclasses.asdict(settings)}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _arrays(street: Street) -> dict[str, npt.NDArray[Any]]:
    images = street.images
    pixels = {name: getattr(images, name) for name in ("left", "right", "left_next", "right_next")}
    exact = {f"exact_{name}": array for name, array in street.exact.items()}
    table = {name: getattr(street, name) for name in ("moving", "speed_m_s", "distance_m")}
    camera = {"intrinsics": images.intrinsics, "stereo_baseline": np.float64(images.stereo_baseline)}
    return {**pixels, **camera, **table, **exact}


def _read(path: Path) -> Street:
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no rendered street that can be read ({error}); delete it") from error
    left = arrays["left"]
    return Street(
        images=StereoImages(
            left,
            arrays["right"],
            arrays["left_next"],
            arrays["right_next"],
            arrays["intrinsics"],
            float(arrays["stereo_baseline"]),
            np.ones(left.shape[:2], np.bool_),
        ),
        exact={
            name.removeprefix("exact_"): array for name, array in arrays.items() if name.startswith("exact_")
        },
        moving=arrays["moving"],
        speed_m_s=arrays["speed_m_s"],
        distance_m=arrays["distance_m"],
    )
