"""Work for sharded runs, importable by worker processes."""

import sys
import time
from dataclasses import dataclass

import numpy as np

from gestalt.data.sharded_run import FrameResult


@dataclass(frozen=True)
class Numbered:
    """An item."""

    frame_id: str

    @property
    def number(self) -> int:
        return int(self.frame_id[1:])


def items(n: int) -> list[Numbered]:
    return [Numbered(f"f{i:04d}") for i in range(n)]


def draw(item: Numbered) -> FrameResult:
    """Frames 3, 13, ... fail, frames 5, 15, ... are empty, the others have two maps and up to two records."""
    number = item.number
    if number % 10 == 3:
        raise ValueError(f"frame {number}\ncannot be drawn")
    generator = np.random.default_rng(number)
    maps = {
        "semantic": generator.integers(0, 27, (6, 8)).astype(np.uint8),
        "instance": generator.integers(0, 60000, (6, 8)).astype(np.uint16),
    }
    if number % 10 == 5:
        return FrameResult(item.frame_id, "empty", "nothing moves", {k: v * 0 for k, v in maps.items()})
    records = [
        {"area_px": np.int64(number + i), "score": number / 7, "source": "motion"} for i in range(number % 3)
    ]
    return FrameResult(item.frame_id, "ok", "", maps, records, {"n_masks": number % 3})


def draw_until_8(item: Numbered) -> FrameResult:
    """Say so at frame 9 and wait to be killed."""
    if item.number == 9:
        sys.stdout.write("waiting\n")
        sys.stdout.flush()
        time.sleep(60)
    return draw(item)
