"""DVC stage ``semantics``: features and disparities of the fit batches -> pseudo-classes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from gestalt.data.code_version import code_version
from gestalt.data.manifest import read_manifest
from gestalt.features.loading import load_features
from gestalt.runtime import choose_device
from gestalt.semantics.code_training import forget_codes
from gestalt.semantics.fit import fit_semantics, load_fit_frames
from gestalt.semantics.probe import CODES, card_metrics
from gestalt.tracking.runs import stage_run
from stages.entry import Outcome, Stage, run_stage

FEATURES, OUT = Path("models/features"), Path("models/semantics")


def main() -> None:
    """Run the stage."""
    run_stage(fit, name="semantics")


def fit(stage: Stage) -> Outcome:
    """Cluster features and geometry of the fit batches, or codes learned from them, into pseudo-classes."""
    params = stage.params
    batches = [
        (read_manifest(Path("data/manifests") / f"{batch}.parquet"), Path("data/motion") / batch)
        for batch in params.fit_batches
    ]
    # One numeric thread, as `run_stage` sets it: sums in another order could move a cluster, and so bytes.
    device = choose_device(params.runtime.device)
    frames = load_fit_frames(batches, params.frames, params.semantics.n_images)
    features = load_features(FEATURES, device)
    # K-means has no curve to follow: no run is opened for it.
    learns = params.semantics.method == CODES
    with stage_run(stage.label, params, device=str(device)) if learns else nullcontext() as run:
        probe = fit_semantics(
            frames,
            features,
            params.semantics,
            params.seed,
            codes=params.codes,
            cache_dir=stage.cache,
            key={"code": code_version()},
            log=run.log if run else None,
        )
    probe.save(OUT)
    forget_codes(stage.cache)
    status = {"frames": [frame.frame_id for frame in frames], "cluster_shares": probe.card.cluster_shares}
    return Outcome({**card_metrics(probe.card), "n_images": len(frames)}, status)


if __name__ == "__main__":
    main()
