"""A folder of labelled images in Cityscapes form, from the tiny world of trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gestalt.data.images import write_png
from tests.training.conftest import make_scene

# Pseudo-classes of the tiny world -> raw ids: sky, wall, road; discs are people, boxes are cars.
RAW_IDS = {0: 23, 2: 12, 4: 7, 3: 24, 1: 26}


def write_labels(folder: Path, seeds: range, *, images: bool = True) -> Path:
    """Write images, annotations and ``source.yaml``; a frame's id ends in its seed."""
    for seed in seeds:
        image, semantic, instance = make_scene(seed)
        raw = np.zeros(semantic.shape, np.uint16)
        for pseudo_class, raw_id in RAW_IDS.items():
            inside = semantic == pseudo_class
            raw[inside] = raw_id
            if pseudo_class in (1, 3):
                raw[inside] = raw_id * 1000 + instance[inside]
        name = f"town_000000_{seed:06d}"
        write_png(folder / f"gtFine/train/town/{name}_gtFine_instanceIds.png", raw)
        if images:
            write_png(folder / f"leftImg8bit/train/town/{name}_leftImg8bit.png", image)
    (folder / "source.yaml").write_text('adapter: cityscapes\nroot: "."\n', encoding="utf-8")
    return folder
