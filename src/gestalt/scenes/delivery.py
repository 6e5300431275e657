"""Many scenes into folders: in parallel, resumed after an interruption, moved into place when whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from gestalt.data.atomic_files import explain_full_disk, write_bytes
from gestalt.runtime import progress

Row = dict[str, Any]
# Records of the scenes that are whole.
DONE = "done"

RenderScene = Callable[[int, Path], list[Row]]


def deliver(
    n_scenes: int,
    render_scene: RenderScene,
    *,
    folders: Mapping[str, Path],
    finish: Callable[[Path, list[Row]], None],
    work_dir: Path,
    key: str,
    open_executor: Callable[[], Executor],
    label: str,
) -> list[Row]:
    """Render scenes 0..n-1 and put what they wrote where it belongs.

    Args:
        n_scenes: Number of scenes.
        render_scene: Picklable; writes one scene below the folder that it gets, returns rows about it.
        folders: Destination of each folder that ``render_scene`` and ``finish`` write below theirs.
        finish: Called once with that folder and the rows of all scenes, for what is not per scene.
        work_dir: Unfinished work lies below it and is taken up again by a run with the same ``key``.
        key: Names everything that the result depends on.
        open_executor: Makes the executor.
        label: Of the progress bar.

    Returns:
        The rows of all scenes, in the order of the scenes, whatever the order of the workers.

    Raises:
        DataError: The disk is full.
    """
    work = work_dir / _digest(key)
    work.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with open_executor() as executor:
        done = executor.map(partial(_render_once, render_scene, work), range(n_scenes))
        for scene_rows in progress(done, label=label, total=n_scenes, unit="scene"):
            rows += scene_rows
    finish(work, rows)
    # From here on the work is being taken apart: a run that is killed now must not trust what is left of it.
    shutil.rmtree(work / DONE)
    for name, destination in folders.items():
        with explain_full_disk(destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(destination, ignore_errors=True)
            (work / name).rename(destination)
    shutil.rmtree(work_dir)
    return rows


def _render_once(render_scene: RenderScene, work: Path, index: int) -> list[Row]:
    """Render a scene unless an interrupted run has; its rows are written last and say that it is whole."""
    record = work / DONE / f"{index:06d}.json"
    if record.exists():
        kept: list[Row] = json.loads(record.read_text(encoding="utf-8"))
        return kept
    rows = render_scene(index, work)
    write_bytes(record, json.dumps(rows).encode())
    return rows


def _digest(key: str) -> str:
    """Name of the work of one key and one state of this room's code."""
    digest = hashlib.sha256(key.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
