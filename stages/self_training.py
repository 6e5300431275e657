"""DVC stage ``self_training``: the guided network and unlabelled video -> the network to report.

``torchrun --nproc-per-node 4 -m stages.self_training`` trains it on several devices.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.data.training_state import forget_state
from gestalt.network.checkpoint import load_network, save_network
from gestalt.training.curve import mean_of_last, write_curve
from gestalt.training.dataset import ImageSet, enlarge
from gestalt.training.self_training import train_self
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash
from stages.training import training_run

MANIFESTS, GUIDED = Path("data/manifests"), Path("models/guided")
OUT, CURVE = Path("models/self_trained"), Path("reports/curves/self_training.csv")


def main() -> None:
    """Run the stage."""
    run_stage(train, name="self_training")


def train(stage: Stage) -> Outcome:
    """Continue the guided network on its own predictions of every image of the video."""
    params, settings = stage.params, stage.params.self_training
    frames = [frame for name in params.batches for frame in read_manifest(MANIFESTS / f"{name}.parquet")]
    images = ImageSet(
        frames, enlarge(params.frames, settings.image_scale), keep_in_memory=settings.keep_in_memory
    )
    sources = {"guided": content_hash(GUIDED)}
    manifests = {name: content_hash(MANIFESTS / f"{name}.parquet") for name in params.batches}
    with training_run(stage) as run:
        network, card = load_network(GUIDED, run.device)
        result = train_self(
            images,
            network,
            settings,
            seed=params.seed,
            device=run.device,
            cache_dir=stage.cache,
            key={"sources": sources, "manifests": manifests, "threads": run.threads},
            ranks=run.ranks,
            log=run.log,
            show=run.show,
        )
    metrics = {"n_images": float(len(images)), **mean_of_last(result.curve)}
    if run.ranks.is_first:
        save_network(OUT, result.network, dataclasses.replace(card, sources=sources, metrics=metrics))
        write_curve(CURVE, result.curve)
        forget_state(result.folder)
    return Outcome(metrics, {"n_steps": len(result.curve)})


if __name__ == "__main__":
    main()
