"""What stands and drives where: a pure function from a seed to the description of one street."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gestalt.config.scenes import TrafficSettings
from gestalt.runtime import numpy_generator
from gestalt.scenes.casting import PlacedPrimitives, Rays
from gestalt.scenes.motion import SceneObject, drive, turn
from gestalt.scenes.primitives import Primitives, Sketch
from gestalt.scenes.road import Road, RoadSide, SideStreet
from gestalt.scenes.roadside import draw_roadside
from gestalt.scenes.site import STYLE_SHARES, STYLES, Site, Style
from gestalt.scenes.traffic import Traffic

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """The left camera of a moving rig; a right one stands ``stereo_baseline`` to its right.

    Attributes:
        intrinsics: (3, 3) float64, pixels; pixel centres have integer coordinates.
        height_m: Above the road.
        position: World x and z at time 0, metres.
        yaw: rad at time 0.
        speed: m/s.
        yaw_rate: rad/s.
        pitch: Mean pitch, rad; positive looks down.
        bob: Amplitude (rad), angular rate (rad/s) and phase of the pitch's swing.
    """

    intrinsics: FloatArray
    height_m: float
    position: tuple[float, float]
    yaw: float
    speed: float
    yaw_rate: float
    pitch: float
    bob: tuple[float, float, float]

    def pose(self, time: float, shift_right: float = 0.0) -> tuple[FloatArray, FloatArray]:
        """Rotation (3, 3) from camera to world and centre (3,) of the camera ``shift_right`` metres aside."""
        dx, dz, yaw = drive(self.yaw, self.speed, self.yaw_rate, time)
        amplitude, rate, phase = self.bob
        pitch = self.pitch + amplitude * np.sin(rate * time + phase)
        c, s = np.cos(pitch), np.sin(pitch)
        # Looking down turns the view axis (+z) towards the ground (+y).
        rotation = turn(yaw) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
        centre = np.array([self.position[0] + dx, -self.height_m, self.position[1] + dz])
        return rotation, centre + shift_right * rotation[:, 0]

    def rays(
        self, time: float, shift_right: float, columns: npt.NDArray[Any], rows: npt.NDArray[Any]
    ) -> Rays:
        """Rays through pixel coordinates (floats; the centre of the first pixel is 0)."""
        rotation, centre = self.pose(time, shift_right)
        focal_length = self.intrinsics[0, 0]
        x = (columns - self.intrinsics[0, 2]) / focal_length
        y = (rows - self.intrinsics[1, 2]) / focal_length
        return Rays(centre, rotation, x.astype(np.float32), y.astype(np.float32), float(1 / focal_length))


@dataclass(frozen=True)
class Weather:
    """Light and air.

    Attributes:
        sun: (3,) unit vector towards the sun.
        sun_strength: 0 overcast, 1 clear.
        ambient: Light from the sky.
        sky: Colours at the zenith and at the horizon, RGB.
        clouds: 0 none to 1 closed.
        fog_m: Distance at which haze has swallowed 63 % of the contrast.
        tint: Exposure and white balance, a factor for red, green and blue.
        gamma: Exponent of the tone curve.
    """

    sun: FloatArray
    sun_strength: float
    ambient: float
    sky: tuple[FloatArray, FloatArray]
    clouds: float
    fog_m: float
    tint: FloatArray
    gamma: float


@dataclass(frozen=True)
class Look:
    """How a camera renders what it sees: exposure, white balance, tone curve, and how often there is haze."""

    gain: float = 1.0
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    fog_share: float = 0.08


@dataclass(frozen=True)
class World:
    """One street with everything on it. ``objects[0]`` stands for all that is static."""

    road: Road
    primitives: Primitives
    objects: tuple[SceneObject, ...]
    camera: Camera
    weather: Weather

    def place(self, time: float) -> PlacedPrimitives:
        """Where all primitives are at ``time`` (s)."""
        poses = [item.pose(time) for item in self.objects]
        index = self.primitives.object_index
        yaw = np.array([pose[1] for pose in poses])[index]
        centre = self.primitives.centre.astype(np.float64)
        c, s = np.cos(yaw), np.sin(yaw)
        turned = np.stack(
            [c * centre[:, 0] + s * centre[:, 2], centre[:, 1], c * centre[:, 2] - s * centre[:, 0]], 1
        )
        placed = turned + np.array([pose[0] for pose in poses])[index]
        return PlacedPrimitives(
            self.primitives, placed.astype(np.float32), (yaw + self.primitives.yaw).astype(np.float32)
        )


class _Generator(Protocol):
    def __call__(self, purpose: str) -> np.random.Generator: ...


def build_world(
    seed: int,
    batch: str,
    index: int,
    *,
    intrinsics: FloatArray,
    camera_height_m: tuple[float, float],
    traffic: TrafficSettings,
    look: Look | None = None,
) -> World:
    """Scene ``index`` of a batch; equal arguments give an equal world, whatever was built before.

    Args:
        seed: The experiment's seed.
        batch: Name of the batch or benchmark.
        index: Number of the scene.
        intrinsics: (3, 3) pixels, pixel centres at integers.
        camera_height_m: Smallest and largest height of the camera.
        traffic: How full the street is.
        look: Exposure and colours of the camera.
    """
    generator: _Generator = partial(numpy_generator, seed, "scene", batch, index)
    rng = generator("street")
    style = STYLES[rng.choice(len(STYLES), p=STYLE_SHARES)]
    road = _draw_road(rng, style, traffic)
    camera = _draw_camera(generator("camera"), road, intrinsics, camera_height_m, traffic)
    sketch = Sketch(generator("roadside"))
    draw_roadside(Site(sketch, road, style, season=float(rng.beta(1, 4))))
    on_the_move = Traffic(sketch, road, traffic, camera_position=camera.position, camera_speed=camera.speed)
    sketch.rng = generator("vehicles")
    on_the_move.park()
    on_the_move.drive()
    sketch.rng = generator("people")
    on_the_move.walk()
    weather = _draw_weather(generator("weather"), look or Look())
    return World(road, sketch.pack(), tuple(on_the_move.objects), camera, weather)


def _draw_road(rng: np.random.Generator, style: Style, traffic: TrafficSettings) -> Road:
    curvature = 0.0 if rng.random() < 0.45 else float(rng.normal(0, 1 / 260))
    curvature = 0.0 if abs(curvature) < 2e-4 else float(np.clip(curvature, -1 / 90, 1 / 90))
    lanes = 2 if rng.random() < (0.35 if style.name in ("boulevard", "city") else 0.08) else 1
    sides = []
    for _ in range(2):
        verge = rng.uniform(0.8, 2.4) if rng.random() < (0.7 if style.name == "boulevard" else 0.25) else 0.0
        green = bool(rng.random() < (0.15 if style.name in ("city", "old town") else 0.75))
        parking = bool(rng.random() < traffic.parking_share)
        sides.append(RoadSide(lanes, parking, verge, rng.uniform(1.6, 3.6), green))
    streets = []
    s = rng.uniform(12, 50)
    for chance in (0.55, 0.4):
        if rng.random() < chance:
            streets.append(SideStreet(s, rng.uniform(2.9, 5.5), bool(rng.random() < 0.5)))
        s += rng.uniform(32, 60)
    return Road(curvature, rng.uniform(2.9, 3.5), sides[0], sides[1], tuple(streets))


def _draw_camera(
    rng: np.random.Generator,
    road: Road,
    intrinsics: FloatArray,
    height_m: tuple[float, float],
    traffic: TrafficSettings,
) -> Camera:
    lane = int(rng.integers(0, road.right.lanes))
    lateral = (lane + 0.5) * road.lane_width + rng.normal(0, 0.2)
    x, z, heading = road.place(0.0, lateral)
    still = rng.random() < traffic.still_camera_share
    speed = 0.0 if still else float(rng.uniform(3, 13))
    along_road = road.curvature / (1 - lateral * road.curvature)
    return Camera(
        intrinsics=intrinsics,
        height_m=rng.uniform(*height_m),
        position=(x, z),
        yaw=heading + rng.normal(0, 0.02),
        speed=speed,
        yaw_rate=speed * along_road + (0.0 if still else rng.normal(0, 0.03)),
        pitch=rng.uniform(-0.01, 0.04),
        bob=(0.0 if still else rng.uniform(0.001, 0.005), rng.uniform(6, 10), rng.uniform(0, 6.28)),
    )


def _draw_weather(rng: np.random.Generator, look: Look) -> Weather:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.15)
    sun = np.array(
        [np.cos(elevation) * np.sin(azimuth), -np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
    )
    clear = float(rng.choice([0.0, 0.35, 0.8, 1.0], p=[0.35, 0.2, 0.2, 0.25]))
    zenith = (1 - clear) * np.array([0.74, 0.77, 0.80]) + clear * np.array([0.38, 0.56, 0.86])
    horizon = (1 - clear) * np.array([0.84, 0.86, 0.88]) + clear * np.array([0.74, 0.84, 0.94])
    hazy = rng.random() < look.fog_share
    brightness = look.gain * rng.uniform(0.85, 1.15)
    tint = brightness * np.array(look.colour) * (1 + rng.normal(0, 0.025, 3))
    return Weather(
        sun=sun,
        sun_strength=0.62 * clear,
        ambient=0.98 - 0.40 * clear,
        sky=(zenith, horizon),
        clouds=float(rng.uniform(0.1, 0.7)),
        fog_m=float(rng.uniform(45, 90) if hazy else rng.uniform(160, 500)),
        tint=tint,
        gamma=look.gamma * rng.uniform(0.92, 1.12),
    )
