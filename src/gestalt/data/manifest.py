"""The manifest of a batch: a row per stereo pair, checked, with a reason where it cannot be used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gestalt.config.frames import ManifestSettings
from gestalt.data.adapters import video_adapter
from gestalt.data.atomic_files import written_aside
from gestalt.data.images import inspect_image
from gestalt.data.records import BrokenFrame, StereoFrame, StereoPair, check_frame_id
from gestalt.data.source import read_source
from gestalt.data.stereo_checks import stereo_fault
from gestalt.errors import DataError
from gestalt.runtime import progress

SCHEMA = pa.schema(
    [
        ("batch", pa.string()),
        ("sequence", pa.string()),
        ("frame_id", pa.string()),
        ("left", pa.string()),
        ("right", pa.string()),
        ("left_next", pa.string()),
        ("right_next", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("intrinsics", pa.list_(pa.float64())),
        ("stereo_baseline", pa.float64()),
        ("time_step_s", pa.float64()),
        ("optical_flow", pa.string()),
        ("disparity", pa.string()),
        ("disparity_next", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)
OK, BROKEN = "ok", "broken"
IMAGES = ("left", "right", "left_next", "right_next")
MEASUREMENTS = ("optical_flow", "disparity", "disparity_next")
SHOWN_REASONS = 5
# The images of a pair come up again as those of the next one.
REMEMBERED_IMAGES = 64

Inspect = Callable[[Path], tuple[int, int]]


def build_manifest(folder: Path, batch: str, settings: ManifestSettings) -> pd.DataFrame:
    """Find and check the stereo pairs of a batch.

    Args:
        folder: Holds ``source.yaml``.
        batch: Name of the batch.
        settings: Section ``manifest``.

    Returns:
        A row per pair in the order (sequence, frame_id) with the columns of ``SCHEMA``. Paths are relative to
        the working directory, unless ``source.yaml`` names an absolute root outside of it. Broken rows have
        status ``broken`` and a reason ``kind: what, where``.

    Raises:
        DataError: ``source.yaml`` is missing or broken, or no stereo video is found.
        ConfigError: The adapter or one of its options is unknown.
    """
    source = read_source(folder)
    found = list(video_adapter(source.adapter)(source.root, source.options))
    if not found:
        raise DataError(
            f"no stereo video in the layout of {source.adapter} under {source.root}; see the docstring of "
            f"gestalt.data.adapters.{source.adapter} and the options in {folder / 'source.yaml'}"
        )
    inspect = lru_cache(REMEMBERED_IMAGES)(partial(inspect_image, check_content=settings.verify_checksums))
    rows = [_row(batch, entry, inspect) for entry in progress(found, label=f"manifest {batch}", unit="pair")]
    _mark_repeated(rows)
    pairs = [entry for entry, row in zip(found, rows) if row["status"] == OK]
    faults = find_stereo_faults([pair for pair in pairs if isinstance(pair, StereoPair)], settings)
    for row in rows:
        if row["status"] == OK and (fault := faults.get(row["frame_id"])):
            row.update(status=BROKEN, reason=fault)
    rows.sort(key=lambda row: (row["sequence"], row["frame_id"], row["status"]))
    return pd.DataFrame(rows, columns=SCHEMA.names)


def write_manifest(table: pd.DataFrame, path: Path) -> None:
    """Write a manifest; equal tables give equal bytes.

    Raises:
        DataError: The disk is full.
    """
    columns = {name: table[name].tolist() for name in SCHEMA.names}
    with written_aside(path) as aside:
        pq.write_table(pa.table(columns, schema=SCHEMA), aside)


def read_manifest(path: Path) -> list[StereoFrame]:
    """The usable pairs of a manifest.

    Raises:
        DataError: The file is missing or broken, or holds no usable pair.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; the stage `manifest` makes it")
    try:
        table = pq.read_table(path)
        rows = table.select(SCHEMA.names).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        raise DataError(f"{path} is no manifest: {error}; the stage `manifest` makes one") from error
    frames = [_frame(row) for row in rows if row["status"] == OK]
    if not frames:
        raise DataError(f"{path} holds no usable pair.\n{describe_faults([row['reason'] for row in rows])}")
    return frames


def check_share(table: pd.DataFrame, max_broken_share: float) -> None:
    """Raise when too many pairs are broken, or all of them.

    Raises:
        DataError: With the most frequent reasons.
    """
    reasons = table.loc[table["status"] == BROKEN, "reason"].tolist()
    if len(reasons) == len(table) or len(reasons) > max_broken_share * len(table):
        raise DataError(
            f"{len(reasons)} of {len(table)} pairs are broken, more than manifest.max_broken_share = "
            f"{max_broken_share:g} allows.\n{describe_faults(reasons)}"
        )


def count_faults(reasons: Iterable[str]) -> dict[str, int]:
    """Number of broken pairs by the kind of their reason, sorted by kind."""
    return dict(sorted(Counter(reason.partition(":")[0] for reason in reasons).items()))


def describe_faults(reasons: Sequence[str]) -> str:
    """Lines that say how often each kind of fault occurs, with an example."""
    examples = {reason.partition(":")[0]: reason for reason in reversed(reasons)}
    counts = sorted(count_faults(reasons).items(), key=lambda entry: (-entry[1], entry[0]))
    return "\n".join(f"  {n} x {kind}, such as: {examples[kind]}" for kind, n in counts[:SHOWN_REASONS])


def find_stereo_faults(pairs: Sequence[StereoPair], settings: ManifestSettings) -> dict[str, str]:
    """Swapped or unrectified pairs, from a sample of each sequence.

    A sampled pair answers for itself. When most of the sampled pairs of a sequence have a fault, it is the
    cameras', and the pairs in between have it too.

    Returns:
        Reasons by frame id.
    """
    sequences: dict[str, list[StereoPair]] = defaultdict(list)
    for pair in pairs:
        sequences[pair.sequence].append(pair)
    faults: dict[str, str] = {}
    for sequence, members in sorted(sequences.items()):
        verdicts: dict[str, str] = {}
        for position in spread(len(members), settings.content_checks_per_sequence):
            pair = members[position]
            try:
                fault = stereo_fault(
                    pair,
                    check_width=settings.check_width,
                    min_matches=settings.min_matches,
                    max_vertical_offset_px=settings.max_vertical_offset_px,
                    max_negative_share=settings.max_negative_share,
                )
            except DataError as error:
                faults[pair.frame_id] = str(error)
                continue
            if fault is not None:
                verdicts[pair.frame_id] = fault
        found = {name: fault for name, fault in verdicts.items() if fault}
        if 2 * len(found) > len(verdicts):
            first = next(iter(found.values()))
            kind, _, rest = first.partition(":")
            whole = f"{kind}: so are {len(found)} of {len(verdicts)} checked pairs of {sequence};{rest}"
            seen = verdicts | faults
            faults |= {pair.frame_id: whole for pair in members if pair.frame_id not in seen}
        faults |= found
    return faults


def spread(n_items: int, n_wanted: int) -> list[int]:
    """``n_wanted`` positions, or all, evenly spread over 0..n_items-1 in the middle of equal parts."""
    n = min(n_items, n_wanted)
    return [(2 * i + 1) * n_items // (2 * n) for i in range(n)]


def _row(batch: str, entry: StereoPair | BrokenFrame, inspect: Inspect) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys([*IMAGES, *MEASUREMENTS], "")
    row |= {"batch": batch, "sequence": entry.sequence, "frame_id": entry.frame_id, "left": str(entry.left)}
    row |= {"height": 0, "width": 0, "intrinsics": [float("nan")] * 9}
    row |= {"stereo_baseline": float("nan"), "time_step_s": float("nan"), "status": BROKEN}
    if isinstance(entry, BrokenFrame):
        return row | {"reason": entry.reason}
    for name in (*IMAGES, *MEASUREMENTS):
        path = getattr(entry, name)
        row[name] = "" if path is None else str(path)
    row["intrinsics"] = np.asarray(entry.intrinsics, np.float64).reshape(-1).tolist()
    row |= {"stereo_baseline": entry.stereo_baseline, "time_step_s": entry.time_step_s}
    try:
        check_frame_id(entry.frame_id)
        row["height"], row["width"] = _common_size(entry, inspect)
    except DataError as error:
        return row | {"reason": str(error)}
    return row | {"status": OK, "reason": ""}


def _common_size(pair: StereoPair, inspect: Inspect) -> tuple[int, int]:
    """(H, W) of all files of a pair."""
    paths = [path for name in (*IMAGES, *MEASUREMENTS) if (path := getattr(pair, name)) is not None]
    height, width = inspect(pair.left)
    if pair.right is not None and not pair.right.parent.exists():
        raise DataError(
            f"missing image: {pair.right} does not exist, nor does its folder; video of one camera says so with "
            "`options: {monocular: true}` in source.yaml"
        )
    for path in paths[1:]:
        if (size := inspect(path)) != (height, width):
            raise DataError(
                f"size mismatch: {path} is {size[0]} x {size[1]} (rows x columns), "
                f"but {pair.left} is {height} x {width}"
            )
    return height, width


def _mark_repeated(rows: Sequence[dict[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        if row["status"] != OK:
            continue
        if row["frame_id"] in seen:
            row.update(
                status=BROKEN,
                reason=f"repeated frame id: {row['frame_id']} is already that of {seen[row['frame_id']]}",
            )
        else:
            seen[row["frame_id"]] = row["left"]


def _frame(row: dict[str, Any]) -> StereoFrame:
    paths = {name: Path(row[name]) if row[name] else None for name in (*IMAGES, *MEASUREMENTS)}
    left, left_next = paths.pop("left"), paths.pop("left_next")
    assert left is not None
    assert left_next is not None
    return StereoFrame(
        batch=row["batch"],
        sequence=row["sequence"],
        frame_id=row["frame_id"],
        left=left,
        left_next=left_next,
        height=row["height"],
        width=row["width"],
        intrinsics=np.array(row["intrinsics"], np.float64).reshape(3, 3),
        stereo_baseline=row["stereo_baseline"],
        time_step_s=row["time_step_s"],
        right=paths["right"],
        right_next=paths["right_next"],
        optical_flow=paths["optical_flow"],
        disparity=paths["disparity"],
        disparity_next=paths["disparity_next"],
    )
