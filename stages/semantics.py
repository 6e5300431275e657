"""DVC stage ``semantics``: features and disparities of the fit batches -> pseudo-classes."""

from __future__ import annotations

from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.features.loading import load_features
from gestalt.semantics.fit import fit_semantics, load_fit_frames
from gestalt.semantics.probe import card_metrics
from stages.entry import Outcome, Stage, run_stage


def main() -> None:
    """Run the stage."""
    run_stage(fit, name="semantics")


def fit(stage: Stage) -> Outcome:
    """Cluster features and geometry of the fit batches into pseudo-classes."""
    params = stage.params
    batches = [
        (read_manifest(Path("data/manifests") / f"{batch}.parquet"), Path("data/motion") / batch)
        for batch in params.fit_batches
    ]
    # One numeric thread, as `run_stage` sets it: sums in another order could move a cluster, and so bytes.
    frames = load_fit_frames(batches, params.frames, params.semantics.n_images)
    probe = fit_semantics(frames, load_features(Path("models/features")), params.semantics, params.seed)
    probe.save(Path("models/semantics"))
    status = {"frames": [frame.frame_id for frame in frames], "cluster_shares": probe.card.cluster_shares}
    return Outcome({**card_metrics(probe.card), "n_images": len(frames)}, status)


if __name__ == "__main__":
    main()
