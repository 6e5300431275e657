"""End-point error of a trained network against dense inverse search, on frames whose optical flow is known exactly.

Reads a rendered batch (`data/raw/<batch>`) and its truth (`data/truth/<batch>`), which no training may read. Prints
one JSON object: for both the mean end-point error over all pixels and over those of moving objects (px) and Fl-all
(percent of pixels that are off by more than 3 px and more than 5 percent); and the network's numbers divided by those
of dense inverse search. Below 1 the network is better.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gestalt.config.presets import default_settings
from gestalt.data.adapters import video_adapter
from gestalt.data.images import read_image
from gestalt.data.source import read_source
from gestalt.errors import DataError, GestaltError
from gestalt.matching.dense_inverse_search import DenseInverseSearch
from gestalt.matching.raft_matcher import RaftMatcher
from gestalt.matching.raft_weights import load_network
from gestalt.runtime import choose_device, limit_threads, progress

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
# What counts as an outlier (Menze and Geiger, CVPR 2015).
OUTLIER_PX, OUTLIER_SHARE = 3.0, 0.05
DIGITS = 4


@dataclass
class Errors:
    """Sums over the frames that were measured so far."""

    total_px: float = 0.0
    n_pixels: int = 0
    moving_px: float = 0.0
    n_moving: int = 0
    n_outliers: int = 0

    def add(self, found: FloatArray, truth: FloatArray, moving: BoolArray) -> None:
        """Add a frame: (2, H, W) found and true displacements, NaN where there is none; (H, W) moving pixels."""
        known = np.isfinite(truth).all(0)
        error = np.linalg.norm(np.where(known, found - truth, 0.0), axis=0)
        length = np.linalg.norm(np.where(known, truth, 0.0), axis=0)
        self.total_px += float(error.sum())
        self.n_pixels += int(known.sum())
        self.moving_px += float(error[moving & known].sum())
        self.n_moving += int((moving & known).sum())
        self.n_outliers += int(((error > OUTLIER_PX) & (error > OUTLIER_SHARE * length)).sum())

    def report(self) -> dict[str, float | None]:
        """The numbers of this benchmark; None where there is no pixel to measure."""
        return {
            "epe_px": _share(self.total_px, self.n_pixels),
            "epe_moving_px": _share(self.moving_px, self.n_moving),
            "fl_all_percent": _share(100.0 * self.n_outliers, self.n_pixels),
        }


@dataclass(frozen=True)
class Frame:
    """A frame with its truth.

    Attributes:
        left: Image at t.
        left_next: Image at t+1.
        exact: NPZ with the exact optical flow and the instances.
        moving: Values of the instances that move.
    """

    left: Path
    left_next: Path
    exact: Path
    moving: list[int] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks/optical_flow.py", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the network, with its card")
    parser.add_argument("--raw", type=Path, required=True, help="such as data/raw/tuesday")
    parser.add_argument("--truth", type=Path, required=True, help="such as data/truth/tuesday")
    parser.add_argument(
        "--frames", type=int, default=0, help="how many, evenly spread; 0 takes all with truth"
    )
    parser.add_argument(
        "--updates", type=int, default=16, help="updates of the network (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="numeric threads (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    limit_threads(parsed.threads)
    try:
        report = measure(parsed)
    except GestaltError as error:
        print(f"benchmarks/optical_flow.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(report))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Errors of both on the same frames."""
    frames = find_frames(arguments.raw, arguments.truth)
    if 0 < arguments.frames < len(frames):
        frames = [frames[index * len(frames) // arguments.frames] for index in range(arguments.frames)]
    settings = default_settings("motion")
    raft = RaftMatcher(
        load_network(arguments.weights),
        dataclasses.replace(settings.raft, flow_iterations=arguments.updates),
        choose_device(arguments.device, key="--device"),
    )
    matchers: dict[str, Callable[[Any, Any], FloatArray]] = {
        "network": lambda first, second: raft.optical_flow(first, second)[0],
        "dense_inverse_search": DenseInverseSearch(settings.dense_inverse_search),
    }
    errors = {name: Errors() for name in matchers}
    for frame in progress(frames, label="optical flow"):
        first, second = read_image(frame.left), read_image(frame.left_next)
        truth, moving = read_truth(frame)
        for name, matcher in matchers.items():
            errors[name].add(matcher(first, second), truth, moving)
    found = {name: own.report() for name, own in errors.items()}
    network, search = found["network"], found["dense_inverse_search"]
    ratio = {name: _share(network[name], search[name]) for name in network}
    return {"n_frames": len(frames), **found, "ratio": ratio}


def find_frames(raw: Path, truth: Path) -> list[Frame]:
    """The frames of a batch that have exact truth, in the order of their ids.

    Raises:
        DataError: There is none.
    """
    source = read_source(raw)
    table_path = truth / "objects.parquet"
    if not table_path.is_file():
        raise DataError(f"{table_path} does not exist; the stage `scenes` makes it")
    table = pd.read_parquet(table_path)
    moving = table[table["is_moving"]].groupby("frame_id")["instance"].apply(list).to_dict()
    found = {}
    for pair in video_adapter(source.adapter)(source.root, source.options):
        exact = truth / "exact" / f"{pair.frame_id}.npz"
        if exact.is_file() and pair.left_next is not None:
            found[pair.frame_id] = Frame(pair.left, pair.left_next, exact, moving.get(pair.frame_id, []))
    if not found:
        raise DataError(
            f"no frame of {raw} has truth in {truth / 'exact'}; scenes.exact_frames says how many get it"
        )
    return [found[frame_id] for frame_id in sorted(found)]


def read_truth(frame: Frame) -> tuple[FloatArray, BoolArray]:
    """(2, H, W) float32 exact optical flow, px, and (H, W) bool, pixels of moving objects."""
    with np.load(frame.exact) as stored:
        optical_flow = np.asarray(stored["optical_flow_forward"], np.float32)
        return optical_flow, np.isin(stored["instance_values"], frame.moving)


def _share(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else round(value / whole, DIGITS)


if __name__ == "__main__":
    main()
