"""Deliveries of video on disk: which are complete, where accepted and refused ones go."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

INBOX = Path("data/inbox")
# Accepted deliveries stay here; `data/raw/<batch>/source.yaml` points at them.
DELIVERIES = Path("data/deliveries")
QUARANTINE = Path("data/quarantine")
RAW = Path("data/raw")
REASON_FILE = "reason.txt"
SOURCE_FILE = "source.yaml"
# Batches that were taken in and are not trained on yet: an interrupted retrain goes on with them.
PENDING = DELIVERIES / "pending.json"

# How long a delivery's size must stand still, unless a caller says otherwise.
SETTLE_SECONDS = 60.0

BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class Extent:
    """What tells whether a folder still grows."""

    n_files: int
    n_bytes: int
    newest: float


@dataclass(frozen=True)
class Layout:
    """How the video of a delivery is laid out.

    Attributes:
        adapter: Name of the adapter, such as ``folder`` or ``kitti_raw``.
        options: ``KEY=VALUE`` strings for the adapter.
    """

    adapter: str
    options: tuple[str, ...]


def measure(folder: Path) -> Extent:
    """Files, bytes and the newest change under a folder."""
    stats = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                stats.append(path.stat())
        except FileNotFoundError:  # renamed between listing and looking: the folder is still being written
            continue
    newest = max((stat.st_mtime for stat in stats), default=0.0)
    return Extent(len(stats), sum(stat.st_size for stat in stats), newest)


def find_deliveries(
    inbox: Path = INBOX,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Folders in the inbox whose content stands still; one that still grows waits for the next call.

    Args:
        inbox: Where deliveries arrive, a folder each; names with a leading dot are ignored.
        settle_seconds: How long nothing may change.
        sleep: Waits; replaced in tests.

    Returns:
        The folders, by name.
    """
    if not inbox.exists():
        return []
    before = {
        folder: measure(folder)
        for folder in sorted(inbox.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not before:
        return []
    sleep(settle_seconds)
    return [folder for folder, extent in before.items() if extent.n_files and measure(folder) == extent]


def batch_trouble(name: str, raw: Path = RAW) -> str:
    """Why a delivery of this name cannot become a batch; empty when it can."""
    if not BATCH_NAME.fullmatch(name):
        return (
            f"the folder name {name!r} cannot name a batch: letters, digits, '_', '-' and '.' only, "
            "starting with a letter or digit"
        )
    if (raw / name).exists():
        return f"a batch {name!r} exists already, and batches never change; deliver under a new name"
    return ""


def layout_of(delivery: Path, default: Layout) -> Layout:
    """What the delivery's own ``source.yaml`` says (``adapter``, ``options``), or the default."""
    path = delivery / SOURCE_FILE
    if not path.exists():
        return default
    content = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    options = content.get("options") or {}
    return Layout(
        str(content.get("adapter", default.adapter)),
        tuple(f"{key}={json.dumps(value)}" for key, value in options.items()),
    )


def move_delivery(delivery: Path, folder: Path) -> Path:
    """Move a delivery into another folder; a name that is taken there gets a number.

    Returns:
        Its new place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / delivery.name, 1
    while target.exists():
        number += 1
        target = folder / f"{delivery.name}-{number}"
    shutil.move(delivery, target)
    return target


def quarantine(delivery: Path, reason: str, folder: Path = QUARANTINE) -> Path:
    """Put a refused delivery aside with the reason beside it; nothing is deleted.

    Returns:
        Its new place.
    """
    moved = move_delivery(delivery, folder)
    (moved / REASON_FILE).write_text(reason.rstrip() + "\n", encoding="utf-8")
    return moved


def forget_batch(batch: str, raw: Path = RAW) -> None:
    """Remove the pointer that was written for a delivery; a folder with other content is left alone."""
    (raw / batch / SOURCE_FILE).unlink(missing_ok=True)
    if (raw / batch).exists() and not any((raw / batch).iterdir()):
        (raw / batch).rmdir()


def find_pointers(deliveries: Path = DELIVERIES, raw: Path = RAW) -> list[Path]:
    """The ``source.yaml`` of each batch that came through the inbox, by name.

    Rendered batches have one too; it is an output of their stage, and DVC tracks it.
    """
    pointers = (raw / delivery.name / SOURCE_FILE for delivery in sorted(deliveries.glob("*/")))
    return [pointer for pointer in pointers if pointer.exists()]


def read_pending(path: Path = PENDING) -> list[str]:
    """Batches that an earlier, interrupted retrain took in."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def write_pending(batches: Sequence[str], path: Path = PENDING) -> None:
    """Remember the batches that are taken in and not trained on; none removes the note."""
    if not batches:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(batches)) + "\n", encoding="utf-8")
