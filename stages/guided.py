"""DVC stage ``guided``: pseudo-labels of all batches -> a trained panoptic network.

``torchrun --nproc-per-node 4 -m stages.guided`` trains it on several devices.
"""

from __future__ import annotations

from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.data.shards import ShardFolder
from gestalt.data.training_state import forget_state
from gestalt.network.checkpoint import NetworkCard, save_network
from gestalt.panoptic import Vocabulary
from gestalt.training.curve import mean_of_last, write_curve
from gestalt.training.dataset import LabelledBatch, PseudoLabelSet
from gestalt.training.guided import train_guided
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash
from stages.training import training_run

MANIFESTS, LABELS = Path("data/manifests"), Path("data/pseudo_labels")
VOCABULARY = Path("data/vocabulary.json")
OUT, CURVE = Path("models/guided"), Path("reports/curves/guided.csv")


def main() -> None:
    """Run the stage."""
    run_stage(train, name="guided")


def train(stage: Stage) -> Outcome:
    """Train on every frame whose pseudo-label holds an object."""
    params, settings = stage.params, stage.params.guided
    vocabulary = Vocabulary.load(VOCABULARY)
    batches = [
        LabelledBatch(name, read_manifest(MANIFESTS / f"{name}.parquet"), ShardFolder(LABELS / name))
        for name in params.batches
    ]
    samples = PseudoLabelSet(
        batches,
        vocabulary,
        params.frames,
        ignore_uncovered_things=settings.ignore_uncovered_things,
        keep_in_memory=settings.keep_in_memory,
    )
    sources = {f"pseudo_labels/{batch.name}": batch.labels.fingerprint() for batch in batches}
    for start in (settings.initial_backbone, settings.initial_network):
        if start:
            sources[start] = content_hash(Path(start))
    with training_run(stage) as run:
        result = train_guided(
            samples,
            vocabulary,
            params.network,
            settings,
            seed=params.seed,
            device=run.device,
            cache_dir=stage.cache,
            key={"sources": sources, "threads": run.threads},
            ranks=run.ranks,
            log=run.log,
            show=run.show,
        )
    metrics = {"n_samples": float(len(samples)), **mean_of_last(result.curve)}
    if run.ranks.is_first:
        card = NetworkCard(params.network, vocabulary, samples[0].size, sources, metrics)
        save_network(OUT, result.network, card)
        write_curve(CURVE, result.curve)
        forget_state(result.folder)
    return Outcome(metrics, {"n_steps": len(result.curve)})


if __name__ == "__main__":
    main()
