"""Small stereo video of a textured plane in the layouts of data sets, and where real samples lie."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gestalt.data.images import write_png

SAMPLES = Path(__file__).parents[2] / ".." / "shared" / "data"
HEIGHT, WIDTH, DISPARITY, MOTION = 96, 192, 6, 3
FX, FY, U0, V0, STEREO_BASELINE = 200.0, 201.0, 95.0, 47.0, 0.5

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the folder of real samples is not there")


def plane(time: int, side: str, disparity: int = DISPARITY) -> np.ndarray:
    """What one camera sees of a plane that moves ``MOTION`` px per frame to the left."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (HEIGHT, 3 * WIDTH, 3), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX)
    start = WIDTH // 2 + MOTION * time + (disparity if side == "right" else 0)
    return np.ascontiguousarray(texture[:HEIGHT, start : start + WIDTH])


def write_source(folder: Path, adapter: str, root: str = ".", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"adapter": adapter, "root": root, "options": options}
    (folder / "source.yaml").write_text(json.dumps(content))
    return folder


def write_folder_video(folder: Path, numbers: Any = range(3), **calibration: float) -> Path:
    """A plain folder: one sequence with the given frame numbers."""
    for number in numbers:
        write_png(folder / "left" / f"{number:04d}.png", plane(number, "left"))
        write_png(folder / "right" / f"{number:04d}.png", plane(number, "right"))
    values = {"fx": FX, "fy": FY, "cx": U0, "cy": V0, "stereo_baseline": STEREO_BASELINE, "frame_rate_hz": 8}
    lines = [f"{name}: {value}" for name, value in (values | calibration).items()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.yaml").write_text("\n".join(lines))
    return write_source(folder, "folder")


def write_cityscapes_video(
    folder: Path, numbers: Any = range(3), sequence: str = "city_000000", cameras: Any = (0,), **options: Any
) -> Path:
    """Cityscapes sequences: one sequence id with the given frame numbers and camera files."""
    city = sequence.split("_")[0]
    for number in numbers:
        for side in ("left", "right"):
            path = folder / f"{side}Img8bit_sequence" / "train" / city
            write_png(path / f"{sequence}_{number:06d}_{side}Img8bit.png", plane(number % 30, side))
    for number in cameras:
        write_camera(folder / "camera" / "train" / city / f"{sequence}_{number:06d}_camera.json")
    return write_source(folder, "cityscapes", **options)


def write_camera(path: Path, stereo_baseline: float = STEREO_BASELINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "extrinsic": {"baseline": stereo_baseline, "pitch": 0.0},
        "intrinsic": {"fx": FX, "fy": FY, "u0": U0, "v0": V0},
    }
    path.write_text(json.dumps(content))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
