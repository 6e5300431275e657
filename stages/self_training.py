"""DVC stage ``self_training``: the guided network and unlabelled video -> the network to report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.data.training_state import forget_state
from gestalt.network.checkpoint import load_network, save_network
from gestalt.runtime import choose_device, limit_threads
from gestalt.tracking.runs import stage_run
from gestalt.training.curve import mean_of_last, write_curve
from gestalt.training.dataset import ImageSet
from gestalt.training.self_training import train_self
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash

MANIFESTS, GUIDED = Path("data/manifests"), Path("models/guided")
OUT, CURVE = Path("models/self_trained"), Path("reports/curves/self_training.csv")


def main() -> None:
    """Run the stage."""
    run_stage(train, name="self_training")


def train(stage: Stage) -> Outcome:
    """Continue the guided network on its own predictions of every image of the video."""
    params, settings = stage.params, stage.params.self_training
    limit_threads(stage.threads)
    device = choose_device(params.runtime.device)
    frames = [frame for name in params.batches for frame in read_manifest(MANIFESTS / f"{name}.parquet")]
    images = ImageSet(frames, params.frames, keep_in_memory=settings.keep_in_memory)
    network, card = load_network(GUIDED, device)
    sources = {"guided": content_hash(GUIDED)}
    manifests = {name: content_hash(MANIFESTS / f"{name}.parquet") for name in params.batches}
    with stage_run(stage.label, params, device=str(device)) as run:
        result = train_self(
            images,
            network,
            settings,
            seed=params.seed,
            device=device,
            cache_dir=stage.cache,
            key={"sources": sources, "manifests": manifests, "threads": stage.threads},
            log=run.log,
        )
    metrics = {"n_images": float(len(images)), **mean_of_last(result.curve)}
    save_network(OUT, result.network, dataclasses.replace(card, sources=sources, metrics=metrics))
    write_curve(CURVE, result.curve)
    forget_state(result.folder)
    return Outcome(metrics, {"n_steps": len(result.curve)})


if __name__ == "__main__":
    main()
