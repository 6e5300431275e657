"""What a training of displacements keeps on disk: its state, the labels of its second phase, its curve."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gestalt.data.atomic_files import write_bytes
from gestalt.data.curve import mean_of_rows, write_rows
from gestalt.data.training_state import forget_state
from gestalt.errors import DataError

LABEL_FOLDER = "labels"
# Labels are stored in this part of a pixel, as in KITTI's files.
LABEL_UNITS_PER_PX = 64
COLUMNS = (
    "step",
    "phase",
    "total",
    "census",
    "smoothness",
    "rest",
    "self_supervision",
    "supervised",
    "learning_rate",
)

# A row of the curve: every column by its name; what a phase has not is 0.
CurveRow = dict[str, float]
Log = Callable[[int, dict[str, float]], None]


def forget_training(folder: Path) -> None:
    """Delete the state and the labels of a training that is done."""
    labels = folder / LABEL_FOLDER
    for path in sorted(labels.glob("*.npz")):
        path.unlink()
    if labels.is_dir() and not any(labels.iterdir()):
        labels.rmdir()
    forget_state(folder)


def label_path(folder: Path, index: int) -> Path:
    """File of the label of the pair numbered ``index``."""
    return folder / LABEL_FOLDER / f"{index:06d}.npz"


def write_label(path: Path, optical_flow: Tensor, known: Tensor) -> None:
    """Write displacements (2, H, W) and where they are known (H, W): int16 in 1/64 px, as KITTI rounds them."""
    limit = np.iinfo(np.int16).max
    units = (optical_flow * LABEL_UNITS_PER_PX).round()
    fits = (units.abs() <= limit).all(0) & known
    content = io.BytesIO()
    np.savez_compressed(
        content, optical_flow=(units * fits).to(torch.int16).cpu().numpy(), known=fits.cpu().numpy()
    )
    write_bytes(path, content.getvalue())


def read_label(path: Path) -> tuple[Tensor, Tensor]:
    """What ``write_label`` wrote: (2, H, W) float32 pixels and (H, W) bool.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        with np.load(path) as stored:
            optical_flow, known = stored["optical_flow"], stored["known"]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}); delete its folder to make the labels again") from error
    return torch.from_numpy(optical_flow.astype(np.float32) / LABEL_UNITS_PER_PX), torch.from_numpy(known)


def write_curve(path: Path, curve: Sequence[CurveRow]) -> None:
    """Write the rows as CSV for ``dvc plots``; without a row only the names of the columns."""
    write_rows(path, curve, COLUMNS, whole=("step", "phase"))


def last_losses(curve: Sequence[CurveRow], share: float = 0.1) -> dict[str, float]:
    """Mean losses over the last ``share`` of the rows, at least one; empty without a row."""
    return mean_of_rows(curve, COLUMNS[2:-1], share)
