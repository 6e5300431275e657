"""What both trainings of the network need around their one call: processes, device, threads, curves, pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gestalt.data.images import write_png
from gestalt.data.ranks import Ranks, joined
from gestalt.runtime import limit_threads
from gestalt.tracking.runs import stage_run
from stages.entry import Stage

if TYPE_CHECKING:
    from gestalt.panoptic import UInt8Array
    from gestalt.tracking.runs import StageRun

PICTURES = Path("reports/training")


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A training while it runs.

    Attributes:
        ranks: This process among those that ``torchrun`` started.
        device: Of this process.
        threads: Numeric threads of this process.
        folder: Of the pictures.
        record: Where curves and pictures go besides; None in all processes but the first.
    """

    ranks: Ranks
    device: torch.device
    threads: int
    folder: Path
    record: StageRun | None

    def log(self, step: int, losses: dict[str, float]) -> None:
        """Add a point to the curves."""
        if self.record is not None:
            self.record.log(step, losses)

    def show(self, step: int, picture: UInt8Array) -> None:
        """Keep a picture, named after the number of steps that are done."""
        path = self.folder / f"{step + 1:06d}.png"
        write_png(path, picture)
        if self.record is not None:
            self.record.log_file(path, "training")


@contextlib.contextmanager
def training_run(stage: Stage) -> Iterator[TrainingRun]:
    """Join the other processes, share the threads of the machine with them, and open the record of the run."""
    params = stage.params
    with joined(params.runtime.device, key="runtime.device") as (ranks, device):
        threads = max(1, stage.threads // ranks.size)
        limit_threads(threads)
        recording = stage_run(stage.label, params, device=str(device)) if ranks.is_first else None
        with recording or contextlib.nullcontext() as record:
            yield TrainingRun(ranks, device, threads, PICTURES / stage.name, record)
