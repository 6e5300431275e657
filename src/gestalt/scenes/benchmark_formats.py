"""Rendered evaluation sets, each in the layout and with the class ids of the benchmark that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.scenes import BenchmarkCamera, BenchmarkSceneSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.data.images import write_png
from gestalt.data.writers.bdd import to_bitmask
from gestalt.errors import ConfigError, DataError
from gestalt.panoptic import INSTANCES_PER_CLASS, PanopticMap
from gestalt.runtime import numpy_generator
from gestalt.scenes import truth
from gestalt.scenes.delivery import Row, deliver
from gestalt.scenes.raw_ids import BDD_IDS, WAYMO_IDS, RawId, id_table
from gestalt.scenes.render import Renderer
from gestalt.scenes.world import Look, build_world
from gestalt.scenes.write import pinhole, write_source

CONTENT = "content"
CITY = "rendered"
JPEG_QUALITY = 95
MOTS_PEDESTRIAN = 2


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image and its truth.

    Attributes:
        scene: Number of the scene.
        frame: Number of the frame in its scene.
        image: (H, W, 3) uint8 RGB.
        raw_ids: (H, W) uint8, Cityscapes raw ids.
        instances: (H, W) int32, Cityscapes instanceIds: raw id of stuff, ``raw id * 1000 + n`` of things.
    """

    scene: int
    frame: int
    image: npt.NDArray[np.uint8]
    raw_ids: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32]

    @property
    def name(self) -> str:
        """Number of scene and frame, six digits each."""
        return f"{self.scene:06d}_{self.frame:06d}"


@dataclass(frozen=True)
class BenchmarkFormat:
    """An evaluation set: its adapter and how one image is written."""

    adapter: str
    write: Callable[[AnnotatedImage, Path], None]


@dataclass(frozen=True)
class Benchmark:
    """What the scenes of an evaluation set have in common."""

    seed: int
    name: str
    settings: BenchmarkSceneSettings

    @property
    def camera(self) -> BenchmarkCamera:
        """The set's own camera."""
        camera: BenchmarkCamera = getattr(self.settings, self.name)
        return camera


def render_benchmark(
    seed: int,
    name: str,
    settings: BenchmarkSceneSettings,
    *,
    folder: Path,
    work_dir: Path,
    open_executor: Callable[[], Executor],
) -> dict[str, Any]:
    """Render an evaluation set: left images of scenes that no batch shows, with truth.

    Args:
        seed: The experiment's seed.
        name: ``cityscapes``, ``kitti``, ``bdd``, ``waymo`` or ``mots``.
        settings: What to render.
        folder: Gets images, annotations and ``source.yaml``.
        work_dir: For unfinished work.
        open_executor: Makes the executor.

    Returns:
        Counts, for the stage's metrics.

    Raises:
        ConfigError: ``name`` is none of these.
        DataError: The disk is full.
    """
    if name not in FORMATS:
        raise ConfigError(f"rendered_benchmarks holds {name!r}; known benchmarks: {', '.join(FORMATS)}")
    benchmark = Benchmark(seed, name, settings)
    rows = deliver(
        benchmark.camera.n_scenes,
        partial(render_scene, benchmark),
        folders={CONTENT: folder},
        finish=partial(_finish, FORMATS[name].adapter),
        work_dir=work_dir,
        key=f"{seed} {name} {settings}",
        open_executor=open_executor,
        label=f"benchmark_scenes {name}",
    )
    return {
        "n_images": len(rows),
        "things_per_image": round(sum(row["n_things"] for row in rows) / len(rows), 3),
    }


def render_scene(benchmark: Benchmark, index: int, folder: Path) -> list[Row]:
    """Render and write the images of one scene; return a row for each."""
    camera, settings = benchmark.camera, benchmark.settings
    low, high = camera.camera_height_m
    red, green, blue = camera.colour
    # The purpose keeps these worlds apart from those of a batch with the same name.
    source = f"benchmark {benchmark.name}"
    world = build_world(
        benchmark.seed,
        source,
        index,
        intrinsics=pinhole(camera.height, camera.width, camera.focal_length_share, camera.horizon_share),
        camera_height_m=(low, high),
        traffic=settings.traffic,
        look=Look(camera.gain, (red, green, blue), camera.gamma, camera.fog_share),
    )
    size = (camera.height, camera.width)
    renderer = Renderer(world, size, antialiasing=settings.antialiasing, noise=camera.noise)
    rows = []
    for frame in range(camera.frames_per_scene):
        rng = numpy_generator(benchmark.seed, "scene", source, index, f"noise left {frame}")
        view = renderer.render(frame * settings.time_step_s, 0.0, rng)
        instances = truth.instance_map(world, view)
        image = AnnotatedImage(index, frame, view.image, truth.raw_id_map(world, view), instances)
        FORMATS[benchmark.name].write(image, folder / CONTENT)
        n_things = len(np.unique(instances[instances >= INSTANCES_PER_CLASS]))
        rows.append({"name": image.name, "n_things": n_things})
    return rows


def write_cityscapes(image: AnnotatedImage, root: Path) -> None:
    """``leftImg8bit/val/<city>/``, ``gtFine/val/<city>/`` with instanceIds (16 bit), labelIds (8 bit)."""
    stem = f"{CITY}_{image.name}"
    write_png(root / "leftImg8bit" / "val" / CITY / f"{stem}_leftImg8bit.png", image.image)
    labels = root / "gtFine" / "val" / CITY
    write_png(labels / f"{stem}_gtFine_instanceIds.png", image.instances.astype(np.uint16))
    write_png(labels / f"{stem}_gtFine_labelIds.png", image.raw_ids)


def write_kitti(image: AnnotatedImage, root: Path) -> None:
    """``images/`` and ``instances/``, 16 bit in Cityscapes form."""
    write_png(root / "images" / f"{image.scene:06d}_10.png", image.image)
    write_png(root / "instances" / f"{image.scene:06d}_10.png", image.instances.astype(np.uint16))


def write_bdd(image: AnnotatedImage, root: Path) -> None:
    """``images/10k/val/`` and RGBA ``labels/pan_seg/bitmasks/val/``.

    Red holds the category, green attributes (none), blue and alpha the two bytes of the instance. Stuff has
    its category as instance id; things are numbered on from there.
    """
    category = id_table(BDD_IDS)[image.raw_ids]
    values, numbers = np.unique(image.instances, return_inverse=True)
    things = values >= INSTANCES_PER_CLASS
    numbered = max(BDD_IDS.values()) + np.cumsum(things)
    instance = np.where(things, numbered, 0)[numbers.reshape(image.instances.shape)].astype(np.uint16)
    mask = to_bitmask(PanopticMap(category, instance))
    write_jpeg(root / "images" / "10k" / "val" / f"{image.name}.jpg", image.image)
    write_png(root / "labels" / "pan_seg" / "bitmasks" / "val" / f"{image.name}.png", mask)


def write_waymo(image: AnnotatedImage, root: Path) -> None:
    """``images/``, ``semantic/`` (8 bit) and ``instance/`` (16 bit, numbered per class, 0 for stuff)."""
    number = np.where(image.instances >= INSTANCES_PER_CLASS, image.instances % INSTANCES_PER_CLASS + 1, 0)
    write_png(root / "images" / f"{image.name}.png", image.image)
    write_png(root / "semantic" / f"{image.name}.png", id_table(WAYMO_IDS)[image.raw_ids])
    write_png(root / "instance" / f"{image.name}.png", number.astype(np.uint16))


def write_mots(image: AnnotatedImage, root: Path) -> None:
    """``images/<sequence>/`` and ``instances/<sequence>/``, 16 bit: 2000 + track for pedestrians, else 0."""
    track = image.instances % INSTANCES_PER_CLASS
    person = image.raw_ids == RawId.PERSON
    value = np.where(person, MOTS_PEDESTRIAN * INSTANCES_PER_CLASS + track, 0).astype(np.uint16)
    sequence, frame = f"{image.scene + 1:04d}", f"{image.frame + 1:06d}"
    write_jpeg(root / "images" / sequence / f"{frame}.jpg", image.image)
    write_png(root / "instances" / sequence / f"{frame}.png", value)


def write_jpeg(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as JPEG, aside and then renamed.

    Raises:
        DataError: The image cannot be encoded, or the disk is full.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise DataError(f"JPEG encoding of {path} failed for an image of shape {image.shape}")
    write_bytes(path, bytes(content))


def _finish(adapter: str, folder: Path, rows: list[Row]) -> None:
    write_source(folder / CONTENT, adapter, {})


FORMATS = {
    "cityscapes": BenchmarkFormat("cityscapes", write_cityscapes),
    "kitti": BenchmarkFormat("kitti_panoptic", write_kitti),
    "bdd": BenchmarkFormat("bdd", write_bdd),
    "waymo": BenchmarkFormat("waymo", write_waymo),
    "mots": BenchmarkFormat("mots", write_mots),
}
