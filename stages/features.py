"""DVC stage ``features``: images of the fit batches, or weights somebody brings -> self-supervised dense features."""

from __future__ import annotations

from pathlib import Path

from gestalt.config import Params
from gestalt.data.code_version import code_version
from gestalt.data.curve import write_rows
from gestalt.data.frames import load_left
from gestalt.data.manifest import read_manifest
from gestalt.data.records import StereoFrame
from gestalt.data.training_state import forget_state
from gestalt.features.adoption import adopt_backbone
from gestalt.features.dense import save_features
from gestalt.features.distillation_loop import COLUMNS, train_features
from gestalt.features.distillation_training import last_rows, save_training
from gestalt.features.fit import choose_evenly, fit_features
from gestalt.features.training_images import load_frames, make_images
from gestalt.runtime import choose_device, limit_threads
from gestalt.tracking.runs import stage_run
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash

MANIFESTS, OUT, CURVE = Path("data/manifests"), Path("models/features"), "curve.csv"


def main() -> None:
    """Run the stage."""
    run_stage(make_features, name="features")


def make_features(stage: Stage) -> Outcome:
    """Fit or train dense features on images of the fit batches, or adopt a backbone that is brought."""
    makers = {"dictionary": fit_dictionary, "distillation": train_backbone, "file": adopt_file}
    return makers[stage.params.features.source](stage)


def fit_dictionary(stage: Stage) -> Outcome:
    """Fit the features that take seconds."""
    params = stage.params
    chosen = choose_evenly(fit_frames(params), params.features.dictionary.n_images)
    # One numeric thread, as `run_stage` sets it: sums in another order could move a cluster, and so bytes.
    images = [load_left(frame, params.frames) for frame in chosen]
    features = fit_features(images, params.features.dictionary, params.seed)
    save_features(features, OUT)
    metrics = {"dimension": features.dimension, "stride": features.stride, "n_images": len(images)}
    return Outcome(metrics, {"frames": [frame.frame_id for frame in chosen]})


def train_backbone(stage: Stage) -> Outcome:
    """Train a small vision transformer on all images of the fit batches."""
    params, settings = stage.params, stage.params.distillation
    limit_threads(stage.threads)
    frames, sequences = load_frames(fit_frames(params), params.frames, left_only=False)
    images = make_images(frames, sequences, origin=", ".join(params.fit_batches))
    sources = {f"manifests/{batch}": content_hash(manifest(batch)) for batch in params.fit_batches}
    device = choose_device(params.runtime.device)
    with stage_run(stage.label, params, device=str(device)) as run:
        result = train_features(
            images,
            settings,
            seed=params.seed,
            device=device,
            cache_dir=stage.cache,
            key={"sources": sources, "threads": stage.threads, "code": code_version()},
            log=run.log,
        )
    save_training(OUT, result, settings, seed=params.seed, sources=sources)
    write_rows(OUT / CURVE, result.curve, COLUMNS)
    forget_state(result.folder)
    metrics = {
        "dimension": settings.vit.width,
        "stride": settings.vit.patch_px,
        "n_images": len(images),
        **last_rows(result.curve),
    }
    return Outcome(metrics, {"n_steps": settings.steps, "constant_images": images.n_constant})


def adopt_file(stage: Stage) -> Outcome:
    """Check weights that are brought and keep them as this pipeline's features."""
    features = adopt_backbone(Path(stage.params.features.file.path), stage.params.features.file.facet)
    save_features(features, OUT)
    return Outcome({"dimension": features.dimension, "stride": features.stride}, {"card": features.card()})


def manifest(batch: str) -> Path:
    """The manifest of a batch."""
    return MANIFESTS / f"{batch}.parquet"


def fit_frames(params: Params) -> list[StereoFrame]:
    """The usable pairs of the fit batches."""
    return [frame for batch in params.fit_batches for frame in read_manifest(manifest(batch))]


if __name__ == "__main__":
    main()
