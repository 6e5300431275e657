"""Settings of the sections ``scenes`` and ``benchmark_scenes``: rendered video and evaluation sets."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import section, setting

ANTIALIASING = ("none", "quincunx")


@dataclass(frozen=True)
class TrafficSettings:
    """How full a street is."""

    parking_share: float = setting("chance that a side of the street has parked vehicles", low=0, high=1)
    parking_occupancy: float = setting("share of its parking places that are taken", low=0, high=1)
    vehicle_gap_m: float = setting("mean free space between driving vehicles of a lane, m", low=5)
    crossing_share: float = setting("chance of a vehicle crossing at a side street", low=0, high=1)
    people_per_100m: float = setting("mean number of people per 100 m of sidewalk", low=0)
    cyclists: float = setting("mean number of cyclists on the road of a scene", low=0)
    still_camera_share: float = setting("share of scenes in which the camera waits", low=0, high=1)


@dataclass(frozen=True)
class SceneSettings:
    """The rendered stereo video of a batch."""

    n_snippets: int = setting("snippets (scenes) in a batch", low=1)
    frames_per_snippet: int = setting("consecutive frames of a snippet", low=2)
    time_step_s: float = setting("time between frames, s", low=0.001)
    height: int = setting("rows of an image", low=32)
    width: int = setting("columns of an image", low=32)
    focal_length_share: float = setting("focal length as a share of the width", low=0.2, high=5)
    horizon_share: float = setting("row of the principal point as a share of the height", low=0, high=1)
    stereo_baseline_m: float = setting(
        "distance of the cameras, m; wider than a car's 0.22 because the images are small", low=0.01
    )
    camera_height_m: list[float] = setting("smallest and largest height above the road, m", low=0.5)
    antialiasing: str = setting("samples of a pixel: its centre, or also its corners", choices=ANTIALIASING)
    noise: float = setting("standard deviation of the sensor noise, 1 = full range", low=0, high=0.5)
    exact_frames: int = setting("frames of a batch whose exact geometry is stored", low=0)
    traffic: TrafficSettings = section(TrafficSettings, "how full the streets are")


@dataclass(frozen=True)
class BenchmarkCamera:
    """The camera of one evaluation set and how its pictures look."""

    n_scenes: int = setting("scenes", low=1)
    frames_per_scene: int = setting("consecutive frames of a scene; 1 writes single images", low=1)
    height: int = setting("rows of an image", low=32)
    width: int = setting("columns of an image", low=32)
    focal_length_share: float = setting("focal length as a share of the width", low=0.2, high=5)
    horizon_share: float = setting("row of the principal point as a share of the height", low=0, high=1)
    camera_height_m: list[float] = setting("smallest and largest height above the road, m", low=0.5)
    gain: float = setting("exposure", low=0.1, high=3)
    colour: list[float] = setting("factors of red, green and blue", low=0.1, high=3)
    gamma: float = setting("exponent of the tone curve; above 1 darkens the shadows", low=0.3, high=3)
    fog_share: float = setting("chance of thick haze", low=0, high=1)
    noise: float = setting("standard deviation of the sensor noise, 1 = full range", low=0, high=0.5)


@dataclass(frozen=True)
class BenchmarkSceneSettings:
    """The rendered evaluation sets."""

    time_step_s: float = setting("time between the frames of a sequence, s", low=0.001)
    antialiasing: str = setting("samples of a pixel: its centre, or also its corners", choices=ANTIALIASING)
    traffic: TrafficSettings = section(TrafficSettings, "how full the streets are")
    cityscapes: BenchmarkCamera = section(BenchmarkCamera, "in the layout of Cityscapes")
    kitti: BenchmarkCamera = section(BenchmarkCamera, "in the layout of KITTI panoptic")
    bdd: BenchmarkCamera = section(BenchmarkCamera, "in the layout of BDD100K panoptic")
    waymo: BenchmarkCamera = section(BenchmarkCamera, "in the layout of Waymo panoptic")
    mots: BenchmarkCamera = section(BenchmarkCamera, "in the layout of MOTSChallenge")
