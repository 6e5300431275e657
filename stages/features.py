"""DVC stage ``features``: images of the fit batches -> self-supervised dense features."""

from __future__ import annotations

from pathlib import Path

from gestalt.data.frames import load_left
from gestalt.data.manifest import read_manifest
from gestalt.features.dense import save_features
from gestalt.features.fit import choose_evenly, fit_features
from stages.entry import Outcome, Stage, run_stage


def main() -> None:
    """Run the stage."""
    run_stage(fit, name="features")


def fit(stage: Stage) -> Outcome:
    """Fit the dense features on images of the fit batches."""
    params = stage.params
    frames = [
        frame
        for batch in params.fit_batches
        for frame in read_manifest(Path("data/manifests") / f"{batch}.parquet")
    ]
    chosen = choose_evenly(frames, params.features.n_images)
    # One numeric thread, as `run_stage` sets it: sums in another order could move a cluster, and so bytes.
    images = [load_left(frame, params.frames) for frame in chosen]
    features = fit_features(images, params.features, params.seed)
    save_features(features, Path("models/features"))
    metrics = {"dimension": features.dimension, "stride": features.stride, "n_images": len(images)}
    return Outcome(metrics, {"frames": [frame.frame_id for frame in chosen]})


if __name__ == "__main__":
    main()
