"""Prediction of a whole benchmark into a shard folder, frame by frame, resumable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gestalt.config.network import PredictSettings
from gestalt.data.images import read_image
from gestalt.data.records import GroundTruthFrame
from gestalt.data.sharded_run import FrameResult, RunSummary, run_sharded
from gestalt.inference.predictor import Predictor, at_trained_height
from gestalt.network.checkpoint import load_network
from gestalt.panoptic import VOID, UInt8Array
from gestalt.runtime import choose_device

SCORE_DIGITS = 6


@dataclass(frozen=True)
class BenchmarkImage:
    """An image to predict; of a benchmark's frame nothing else is known here, least of all its truth."""

    frame_id: str
    image: Path
    # Where the image is inside another file; as in GroundTruthFrame.
    read: Callable[[], UInt8Array] | None = None


@dataclass(frozen=True)
class FramePredictor:
    """Predicts one benchmark image; picklable, every worker opens the network once per shard."""

    network: Path
    settings: PredictSettings
    device: str

    @cached_property
    def _predictor(self) -> Predictor:
        device = choose_device(self.device)
        network, card = load_network(self.network, device)
        return Predictor(network, card, at_trained_height(self.settings, card), device)

    def __call__(self, item: BenchmarkImage) -> FrameResult:
        """Maps ``semantic`` (unified classes) and ``instance``, and a record per segment."""
        prediction = self._predictor(read_image(item.image) if item.read is None else item.read())
        panoptic, segments = prediction.panoptic, prediction.segments
        return FrameResult(
            frame_id=item.frame_id,
            status="ok" if segments else "empty",
            reason="" if segments else "no segment above the limits",
            maps={"semantic": panoptic.semantic_map, "instance": panoptic.instance_map},
            records=[
                {
                    "unified_class": entry.unified_class,
                    "instance": entry.instance,
                    "score": round(entry.score, SCORE_DIGITS),
                    "area_px": entry.area_px,
                }
                for entry in segments
            ],
            counts={
                "n_things": float(sum(entry.instance > 0 for entry in segments)),
                "n_stuff": float(sum(entry.instance == 0 for entry in segments)),
                "void_share": float(np.mean(panoptic.semantic_map == VOID)),
            },
        )

    def __getstate__(self) -> dict[str, Any]:
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def predict_benchmark(
    frames: Sequence[GroundTruthFrame],
    predictor: FramePredictor,
    *,
    out_dir: Path,
    cache_dir: Path,
    key: Mapping[str, Any],
    shard_size: int,
    open_executor: Callable[[], Executor] | None,
    max_failed_share: float,
    label: str,
) -> RunSummary:
    """Predict every image of a benchmark.

    Args:
        frames: Of the benchmark; only their images are read.
        predictor: The network and its settings.
        out_dir: The shard folder to write.
        cache_dir: Unfinished shards.
        key: What the predictions depend on besides images and code: content of the network, settings.
        shard_size: Frames per archive.
        open_executor: Gives the executor; None works in this process, which is right with a GPU.
        max_failed_share: Largest share of failed frames.
        label: Name on the progress bar.

    Raises:
        DataError: Too many frames failed, or there is none.
    """
    return run_sharded(
        [BenchmarkImage(frame.frame_id, frame.image, frame.read_image) for frame in frames],
        predictor,
        out_dir=out_dir,
        cache_dir=cache_dir,
        key=key,
        shard_size=shard_size,
        open_executor=open_executor,
        max_failed_share=max_failed_share,
        label=label,
    )
