"""Sheets of motion for people: which frames of which batches they asked for, and a PNG of each."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gestalt.config.params import Params
from gestalt.data.images import write_png
from gestalt.data.manifest import OK, read_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.shards import FRAMES_FILE, ShardFolder
from gestalt.errors import DataError, GestaltError
from gestalt.motion.picture import motion_sheet
from gestalt.runtime import progress

FAILED = "failed"
# Ids that a message lists.
N_LISTED = 5


@dataclass(frozen=True)
class DrawnSheets:
    """What became of the frames that were to be drawn.

    Attributes:
        paths: The pictures.
        failed: Frame id and reason of those that could not be drawn.
    """

    paths: tuple[Path, ...]
    failed: tuple[tuple[str, str], ...]


def find_frames(
    frame_ids: Sequence[str], batches: Sequence[str], data: Path = Path("data")
) -> list[StereoFrame]:
    """The usable pairs with these ids, in every batch that has them.

    Args:
        frame_ids: As in the column ``frame_id`` of the manifests.
        batches: Where to look.
        data: The folder of the artefacts.

    Raises:
        DataError: An id is unknown or its pair is broken; or a manifest is missing or holds no usable pair.
    """
    frames = all_frames(batches, data)
    known = {frame.frame_id for frame in frames}
    if missing := [wanted for wanted in frame_ids if wanted not in known]:
        reasons = "; ".join(_why_missing(wanted, sorted(known), batches, data) for wanted in missing)
        raise DataError(
            f"no usable frame in {', '.join(batches)}: {reasons}; "
            f"the column frame_id of {data / 'manifests'}/*.parquet lists them"
        )
    return [frame for wanted in dict.fromkeys(frame_ids) for frame in frames if frame.frame_id == wanted]


def all_frames(batches: Sequence[str], data: Path = Path("data")) -> list[StereoFrame]:
    """Every usable pair of some batches.

    Raises:
        DataError: A manifest is missing or holds no usable pair.
    """
    return [frame for batch in batches for frame in read_manifest(data / "manifests" / f"{batch}.parquet")]


def worst_frames(n_frames: int, batches: Sequence[str], data: Path = Path("data")) -> list[StereoFrame]:
    """The pairs that gave the stage ``motion`` most trouble.

    Args:
        n_frames: How many, at most.
        batches: Where to look.
        data: The folder of the artefacts.

    Returns:
        Failed ones first, then those with the smallest share of reliable pixels.

    Raises:
        DataError: The stage ``motion`` has not run on one of the batches.
    """
    tables = []
    for batch in batches:
        folder = data / "motion" / batch
        if not (folder / FRAMES_FILE).is_file():
            raise DataError(
                f"{folder} holds no results to choose the worst frames from; `dvc repro motion@{batch}` makes them"
            )
        tables.append(ShardFolder(folder).frames().assign(batch=batch))
    table = pd.concat(tables, ignore_index=True)
    table["order"] = table["reliable_share"].where(table["status"] != FAILED, -1.0)
    table = table.sort_values(["order", "batch", "frame_id"]).head(n_frames)
    known = {(frame.batch, frame.frame_id): frame for frame in all_frames(batches, data)}
    chosen = table[["batch", "frame_id"]].itertuples(index=False, name=None)
    return [known[key] for key in chosen if key in known]


def draw_sheets(frames: Sequence[StereoFrame], params: Params, out: Path) -> DrawnSheets:
    """Write ``<out>/<batch>/<frame_id>.motion.png`` for every frame; one that cannot be drawn stops no other.

    Args:
        frames: What to draw.
        params: All parameters.
        out: Folder of the pictures.
    """
    paths, failed = [], []
    for frame in progress(frames, label="sheets of motion"):
        path = out / frame.batch / f"{frame.frame_id}.motion.png"
        try:
            sheet = motion_sheet(frame, params.frames, params.motion, params.seed, params.runtime.device)
        except GestaltError as error:
            failed.append((frame.frame_id, str(error)))
            continue
        write_png(path, sheet)
        paths.append(path)
    return DrawnSheets(tuple(paths), tuple(failed))


def _why_missing(wanted: str, known: Sequence[str], batches: Sequence[str], data: Path) -> str:
    """Why a frame cannot be drawn, and which ones look like it."""
    for batch in batches:
        rows = pd.read_parquet(
            data / "manifests" / f"{batch}.parquet", columns=["frame_id", "status", "reason"]
        )
        broken = rows[(rows["frame_id"] == wanted) & (rows["status"] != OK)]
        if len(broken):
            return f"{wanted} is broken ({broken.iloc[0]['reason']})"
    similar = sorted(difflib.get_close_matches(wanted, known, N_LISTED, cutoff=0.7)) or known[:N_LISTED]
    return (
        f"{wanted} is unknown, there are {', '.join(similar)}{', ...' if len(known) > len(similar) else ''}"
    )
