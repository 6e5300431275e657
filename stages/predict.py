"""DVC stage ``predict``: every trained network on the images of a benchmark."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.data.ground_truth import find_ground_truth
from gestalt.inference.benchmark import FramePredictor, predict_benchmark
from gestalt.runtime import choose_device, limit_threads
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash

NETWORKS = ("guided", "self_trained")

# Starting a worker costs as much as predicting a hundred small images; with a GPU all would share it.
WORTH_WORKERS = 500


def main() -> None:
    """Run the stage."""
    run_stage(predict, name="predict", item="benchmark")


def predict(stage: Stage) -> Outcome:
    """Write panoptic maps of the benchmark's images, one shard folder per network; no truth is read."""
    params = stage.params
    frames = find_ground_truth(Path("data/benchmarks") / stage.item)
    is_large = len(frames) > WORTH_WORKERS and choose_device(params.runtime.device).type == "cpu"
    limit_threads(1 if is_large else stage.threads)
    metrics, status = {}, {}
    for name in NETWORKS:
        network = Path("models") / name
        summary = predict_benchmark(
            frames,
            FramePredictor(network, params.predict, params.runtime.device),
            out_dir=Path("data/predictions") / stage.item / name,
            cache_dir=stage.cache / name,
            key={"settings": dataclasses.asdict(params.predict), "network": content_hash(network)},
            shard_size=params.runtime.shard_size,
            open_executor=stage.open_executor if is_large else None,
            max_failed_share=params.runtime.max_failed_share,
            label=f"{stage.label} {name}",
        )
        metrics[name], status[name] = summary.metrics(), summary.status()
    return Outcome(metrics, status)


if __name__ == "__main__":
    main()
