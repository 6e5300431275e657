"""Shard folders as plain files for people: PNG maps, coloured previews, tables as CSV."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.data.atomic_files import write_bytes
from gestalt.data.images import write_png
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.panoptic import VOID, UInt8Array
from gestalt.runtime import progress

# Successive ids get hues this far apart (golden section), so that neighbours in number never look alike.
HUE_STEP = 0.618034

# Disparity above this quantile is drawn in the last colour; single wild matches would darken the rest.
BRIGHTEST_QUANTILE = 0.99


def unpack(folder: Path, out: Path, *, frame_ids: Collection[str] = (), previews: bool = True) -> int:
    """Write every map of a shard folder as ``<frame_id>.<map>.png``, and its tables as CSV.

    Frames that failed have no map; their rows are in ``frames.csv`` when no frame is asked for.

    Args:
        folder: A shard folder, such as ``data/pseudo_labels/monday``.
        out: Folder to write; existing files of the same names are replaced.
        frame_ids: Only these frames, in the tables too; all when empty.
        previews: Also write ``<frame_id>.<map>.colour.png``.

    Returns:
        Number of frames written.

    Raises:
        DataError: ``folder`` is no shard folder, or does not hold a frame that is asked for.
    """
    shards = ShardFolder(folder)
    if unknown := sorted(set(frame_ids) - set(shards.frame_ids)):
        example = shards.frame_ids[0] if shards.frame_ids else "none"
        raise DataError(f"{folder} holds no maps of frame {unknown[0]!r}; it has {example!r}, for example")
    wanted = [name for name in shards.frame_ids if not frame_ids or name in frame_ids]
    for frame_id in progress(wanted, label=f"export {folder}"):
        for kind in shards.kinds:
            array = shards.read_map(frame_id, kind)
            write_png(out / f"{frame_id}.{kind}.png", array)
            if previews:
                write_png(out / f"{frame_id}.{kind}.colour.png", colour_preview(array, kind))
    for name, table in (("frames", shards.frames()), ("records", shards.records())):
        if frame_ids:
            table = table[table["frame_id"].isin(wanted)]
        write_bytes(out / f"{name}.csv", table.to_csv(index=False).encode())
    return len(wanted)


def colour_preview(array: npt.NDArray[Any], kind: str) -> UInt8Array:
    """A map in colours that a person can tell apart.

    Args:
        array: (H, W) unsigned integer.
        kind: Name of the map: ``disparity`` is drawn from blue (far) to red (near), ``semantic`` has 255
            black, every other map is of ids with 0 black.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if kind == "disparity":
        return _heat(array)
    colours = _id_colours(int(array.max(initial=0)) + 1)
    coloured: UInt8Array = colours[array]
    coloured[array == (VOID if kind == "semantic" else 0)] = 0
    return coloured


def _heat(array: npt.NDArray[Any]) -> UInt8Array:
    known = array > 0
    brightest = np.quantile(array[known], BRIGHTEST_QUANTILE) if known.any() else 1.0
    scaled = np.clip(array / brightest * 255, 0, 255).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.where(known[..., None], heat, 0).astype(np.uint8)


def _id_colours(n_ids: int) -> UInt8Array:
    ids = np.arange(n_ids)
    hue = (ids * HUE_STEP) % 1.0 * 179
    # Two levels of each keep hues apart that come close again after many ids.
    saturation, value = 150 + 80 * (ids % 2), 255 - 70 * (ids // 2 % 2)
    hsv = np.stack([hue, saturation, value], axis=-1).astype(np.uint8)[None]
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0], np.uint8)
