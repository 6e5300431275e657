"""Sheets for people: which frames of which batches they asked for, and a PNG of each.

Motion, pseudo-classes, and one page of all pseudo-classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gestalt.cluster_page import N_EXAMPLES, compose_cluster_page
from gestalt.config.params import Params
from gestalt.data.images import write_png
from gestalt.data.manifest import OK, read_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.shards import FRAMES_FILE, ShardFolder
from gestalt.errors import DataError, GestaltError
from gestalt.features.fit import choose_evenly
from gestalt.motion.page import draw_page
from gestalt.motion.picture import UInt8Array, motion_sheet
from gestalt.runtime import progress
from gestalt.semantic_sheet import FeatureColours, FrameViewer, compose_semantic_sheet, fit_feature_colours
from gestalt.semantics import SemanticLabeller
from gestalt.semantics.picture import ClusterGallery

FAILED = "failed"
# Ids that a message lists.
N_LISTED = 5
# Frames whose features decide which colours all sheets show features in.
COLOUR_FRAMES = 16


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

    def draw(frame: StereoFrame) -> UInt8Array:
        return motion_sheet(frame, params.frames, params.motion, params.seed, params.runtime.device)

    return _draw_each(frames, "motion", draw, out)


def draw_semantics(
    frames: Sequence[StereoFrame],
    params: Params,
    out: Path,
    pixel: tuple[int, int] | None = None,
    *,
    data: Path = Path("data"),
    models: Path = Path("models"),
) -> DrawnSheets:
    """Write ``<out>/<batch>/<frame_id>.semantics.png`` for every frame; one that cannot be drawn stops no other.

    Features have the same colours on all sheets.

    Args:
        frames: What to draw.
        params: All parameters.
        out: Folder of the pictures.
        pixel: Row and column whose likeness is shown first; others are chosen.
        data: The folder of the artefacts.
        models: The folder of the stages' models.

    Raises:
        DataError: Features or pseudo-classes are missing.
        ConfigError: They were fitted with other parameters.
    """
    viewer = _viewer(params, data, models)
    colours = _fit_colours(viewer, frames)

    def draw(frame: StereoFrame) -> UInt8Array:
        seen = viewer.see(frame)
        return draw_page(compose_semantic_sheet(seen, colours or fit_feature_colours([seen.grid]), pixel))

    return _draw_each(frames, "semantics", draw, out)


def draw_clusters(
    frames: Sequence[StereoFrame],
    params: Params,
    path: Path,
    *,
    data: Path = Path("data"),
    models: Path = Path("models"),
) -> DrawnSheets:
    """Write one page with the most typical, largest and most uncertain segments of every pseudo-class.

    Args:
        frames: Where to look for them; one that cannot be labelled stops no other.
        params: All parameters.
        path: The picture.
        data: The folder of the artefacts.
        models: The folder of the stages' models.

    Raises:
        DataError: Features or pseudo-classes are missing, or no frame could be labelled.
        ConfigError: They were fitted with other parameters.
    """
    viewer, failed = _viewer(params, data, models), []
    gallery = ClusterGallery(viewer.labeller.probe.card.n_pseudo_classes, N_EXAMPLES)
    for frame in progress(frames, label="segments of pseudo-classes"):
        try:
            gallery.add(frame.frame_id, *viewer.label(frame))
        except GestaltError as error:
            failed.append((frame.frame_id, str(error)))
    if not gallery.n_frames:
        raise DataError(f"no frame could be labelled; the first one: {failed[0][0]}: {failed[0][1]}")
    batches = ", ".join(dict.fromkeys(frame.batch for frame in frames))
    page = compose_cluster_page(gallery, f"The pseudo-classes of {batches}")
    write_png(path, draw_page(page))
    return DrawnSheets((path,), tuple(failed))


def spread_frames(n_frames: int, batches: Sequence[str], data: Path = Path("data")) -> list[StereoFrame]:
    """Usable pairs evenly spread over some batches, ``n_frames`` at most.

    Raises:
        DataError: A manifest is missing or holds no usable pair.
    """
    return choose_evenly(all_frames(batches, data), n_frames)


def _draw_each(
    frames: Sequence[StereoFrame], kind: str, draw: Callable[[StereoFrame], UInt8Array], out: Path
) -> DrawnSheets:
    paths, failed = [], []
    for frame in progress(frames, label=f"sheets of {kind}"):
        path = out / frame.batch / f"{frame.frame_id}.{kind}.png"
        try:
            sheet = draw(frame)
        except GestaltError as error:
            failed.append((frame.frame_id, str(error)))
            continue
        write_png(path, sheet)
        paths.append(path)
    return DrawnSheets(tuple(paths), tuple(failed))


def _viewer(params: Params, data: Path, models: Path) -> FrameViewer:
    """Looks at frames; missing models are found before the first one."""
    labeller = SemanticLabeller(
        models / "features", models / "semantics", params.semantics, params.runtime.device
    )
    _ = labeller.probe
    return FrameViewer(labeller, params.frames, data)


def _fit_colours(viewer: FrameViewer, frames: Sequence[StereoFrame]) -> FeatureColours | None:
    """Colours for all sheets; None where no image could be read, which is said when its sheet is drawn."""
    grids = []
    for frame in choose_evenly(frames, COLOUR_FRAMES):
        try:
            grids.append(viewer.features_of(frame))
        except GestaltError:
            continue
    return fit_feature_colours(grids) if grids else None


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
