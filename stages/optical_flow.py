"""DVC stage ``optical_flow``: the images of a batch -> a network of displacements, learnt from them alone."""

from __future__ import annotations

from pathlib import Path

from gestalt.data.code_version import code_version
from gestalt.data.manifest import read_manifest
from gestalt.matching.smurf_loop import train_optical_flow
from gestalt.matching.smurf_records import forget_training, last_losses, write_curve
from gestalt.matching.smurf_training import save_training
from gestalt.matching.training_pairs import pairs_of_frames
from gestalt.runtime import choose_device, limit_threads
from gestalt.tracking.runs import stage_run
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash

MANIFESTS, OUT, CURVES = Path("data/manifests"), Path("models/optical_flow"), Path("reports/curves")


def main() -> None:
    """Run the stage."""
    run_stage(train, name="optical_flow", item="batch")


def train(stage: Stage) -> Outcome:
    """Train a network of displacements on the pairs of a batch; no label and no truth is read."""
    params, batch, settings = stage.params, stage.item, stage.params.optical_flow
    limit_threads(stage.threads)
    manifest = MANIFESTS / f"{batch}.parquet"
    pairs = pairs_of_frames(
        read_manifest(manifest),
        params.frames,
        keep_in_memory=settings.keep_in_memory,
        threads=settings.loader_threads,
    )
    sources = {f"manifests/{batch}": content_hash(manifest)}
    device = choose_device(params.runtime.device)
    with stage_run(stage.label, params, device=str(device)) as run:
        result = train_optical_flow(
            pairs,
            settings,
            seed=params.seed,
            device=device,
            cache_dir=stage.cache,
            key={"sources": sources, "threads": stage.threads, "code": code_version()},
            log=run.log,
        )
    save_training(OUT / batch, result, settings, seed=params.seed, sources=sources)
    write_curve(CURVES / f"{stage.label}.csv", result.curve)
    forget_training(result.folder)
    metrics = {
        "n_pairs": len(pairs),
        "n_stereo_pairs": int(pairs.is_stereo.sum()),
        "height": pairs.size[0],
        "width": pairs.size[1],
        **last_losses(result.curve),
    }
    return Outcome(metrics, {"n_steps": int(result.curve[-1]["step"])})


if __name__ == "__main__":
    main()
