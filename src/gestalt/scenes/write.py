"""A batch of rendered stereo video in the layout of Cityscapes, and its truth in a folder of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gestalt.config.scenes import SceneSettings
from gestalt.data.atomic_files import write_bytes, written_aside
from gestalt.data.images import write_png
from gestalt.runtime import numpy_generator
from gestalt.scenes import truth
from gestalt.scenes.delivery import Row, deliver
from gestalt.scenes.render import Renderer, View
from gestalt.scenes.world import World, build_world

VIDEO, TRUTH = "video", "truth"
SPLIT = "train"
OBJECT_COLUMNS = ("frame_id", "instance", "class", "is_moving", "speed_m_s", "distance_m", "n_pixels")


@dataclass(frozen=True)
class Batch:
    """What the scenes of a batch have in common."""

    seed: int
    name: str
    settings: SceneSettings

    def world(self, index: int) -> World:
        """The world of snippet ``index``."""
        settings = self.settings
        low, high = settings.camera_height_m
        return build_world(
            self.seed,
            self.name,
            index,
            intrinsics=pinhole(
                settings.height, settings.width, settings.focal_length_share, settings.horizon_share
            ),
            camera_height_m=(low, high),
            traffic=settings.traffic,
        )

    def frame_id(self, index: int, frame: int) -> str:
        """Id of a frame: city (the batch), sequence, frame."""
        return f"{self.name}_{index:06d}_{frame:06d}"


def render_batch(
    seed: int,
    batch: str,
    settings: SceneSettings,
    *,
    video_dir: Path,
    truth_dir: Path,
    work_dir: Path,
    open_executor: Callable[[], Executor],
) -> dict[str, Any]:
    """Render a batch of snippets.

    Args:
        seed: The experiment's seed.
        batch: Name of the batch; it is the city of the Cityscapes layout.
        settings: What to render.
        video_dir: Gets images, camera files and ``source.yaml``, and nothing else.
        truth_dir: Gets ``gtFine``, ``objects.parquet``, ``exact`` and ``source.yaml``.
        work_dir: For unfinished work.
        open_executor: Makes the executor.

    Returns:
        Counts, for the stage's metrics.

    Raises:
        DataError: The disk is full.
    """
    rows = deliver(
        settings.n_snippets,
        partial(render_snippet, Batch(seed, batch, settings)),
        folders={VIDEO: video_dir, TRUTH: truth_dir},
        finish=partial(_finish, settings),
        work_dir=work_dir,
        key=f"{seed} {batch} {settings}",
        open_executor=open_executor,
        label=f"scenes {batch}",
    )
    table = _object_frame(rows)
    n_frames = settings.n_snippets * settings.frames_per_snippet
    return {
        "n_snippets": settings.n_snippets,
        "n_frames": n_frames,
        "objects_per_frame": round(len(table) / n_frames, 3),
        "moving_objects_per_frame": round(float(table["is_moving"].sum()) / n_frames, 3),
    }


def render_snippet(batch: Batch, index: int, folder: Path) -> list[Row]:
    """Render and write one snippet below ``folder``; return the rows of its objects."""
    settings = batch.settings
    world = batch.world(index)
    renderer = Renderer(
        world,
        (settings.height, settings.width),
        antialiasing=settings.antialiasing,
        noise=settings.noise,
    )
    rows: list[Row] = []
    views: dict[tuple[int, str], View] = {}
    for frame in range(settings.frames_per_snippet):
        time = frame * settings.time_step_s
        for side, shift in (("left", 0.0), ("right", settings.stereo_baseline_m)):
            rng = numpy_generator(batch.seed, "scene", batch.name, index, f"noise {side} {frame}")
            views[frame, side] = renderer.render(time, shift, rng)
            name = f"{batch.frame_id(index, frame)}_{side}Img8bit.png"
            sequence = folder / VIDEO / f"{side}Img8bit_sequence" / SPLIT / batch.name
            write_png(sequence / name, views[frame, side].image)
        _write_camera(folder, batch, world, index, frame)
        rows += _write_truth(folder, batch, world, views[frame, "left"], index, frame)
    _write_exact(folder, batch, world, views, index)
    return rows


def pinhole(
    height: int, width: int, focal_length_share: float, horizon_share: float
) -> npt.NDArray[np.float64]:
    """(3, 3) intrinsics, pixels; pixel centres are integers, so the image's centre is at (W - 1) / 2."""
    focal_length = focal_length_share * width
    return np.array(
        [[focal_length, 0, (width - 1) / 2], [0, focal_length, horizon_share * height - 0.5], [0, 0, 1]]
    )


def _write_camera(folder: Path, batch: Batch, world: World, index: int, frame: int) -> None:
    intrinsics, camera = world.camera.intrinsics, world.camera
    content = {
        "extrinsic": {
            "baseline": batch.settings.stereo_baseline_m,
            "pitch": camera.pitch,
            "roll": 0.0,
            "x": 0.0,
            "y": 0.0,
            "yaw": 0.0,
            "z": camera.height_m,
        },
        "intrinsic": {
            "fx": intrinsics[0, 0],
            "fy": intrinsics[1, 1],
            "u0": intrinsics[0, 2],
            "v0": intrinsics[1, 2],
        },
    }
    path = folder / VIDEO / "camera" / SPLIT / batch.name / f"{batch.frame_id(index, frame)}_camera.json"
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def _write_truth(folder: Path, batch: Batch, world: World, view: View, index: int, frame: int) -> list[Row]:
    frame_id = batch.frame_id(index, frame)
    stem = folder / TRUTH / "gtFine" / SPLIT / batch.name / f"{frame_id}_gtFine"
    write_png(stem.with_name(f"{stem.name}_labelIds.png"), truth.raw_id_map(world, view))
    values = truth.instance_map(world, view).astype(np.uint16)
    write_png(stem.with_name(f"{stem.name}_instanceIds.png"), values)
    return truth.object_table(world, view, frame_id, frame * batch.settings.time_step_s)


def _write_exact(
    folder: Path, batch: Batch, world: World, views: dict[tuple[int, str], View], index: int
) -> None:
    """Geometry of the first pairs of the batch: frames that have a next one, counted over the snippets."""
    settings = batch.settings
    n_pairs = settings.frames_per_snippet - 1
    for frame in range(min(n_pairs, settings.exact_frames - index * n_pairs)):
        times = (frame * settings.time_step_s, (frame + 1) * settings.time_step_s)
        arrays = truth.exact_geometry(world, views, frame, times, settings.stereo_baseline_m)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        write_bytes(folder / TRUTH / "exact" / f"{batch.frame_id(index, frame)}.npz", content.getvalue())


def _finish(settings: SceneSettings, folder: Path, rows: list[Row]) -> None:
    options = {
        "snippet_length": settings.frames_per_snippet,
        "frame_rate_hz": round(1 / settings.time_step_s, 6),
    }
    write_source(folder / VIDEO, "cityscapes", options)
    write_source(folder / TRUTH, "cityscapes", {})
    with written_aside(folder / TRUTH / "objects.parquet") as aside:
        _object_frame(rows).to_parquet(aside, index=False)


def write_source(folder: Path, adapter: str, options: dict[str, Any]) -> None:
    """Write ``source.yaml``: the layout is the adapter's, and the data lie beside the file."""
    lines = [f"adapter: {adapter}", 'root: "."', "options:" if options else "options: {}"]
    lines += [f"  {name}: {value}" for name, value in options.items()]
    write_bytes(folder / "source.yaml", ("\n".join(lines) + "\n").encode())


def _object_frame(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(OBJECT_COLUMNS))
    return table.sort_values(["frame_id", "instance"], kind="stable", ignore_index=True)
