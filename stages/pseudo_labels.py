"""DVC stage ``pseudo_labels``: proposals and pseudo-classes -> panoptic pseudo-labels of a batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.data.shards import ShardFolder
from gestalt.pseudo_labels.write import FrameLabeller, write_pseudo_labels
from gestalt.semantics import SemanticLabeller
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash

FEATURES, SEMANTICS = Path("models/features"), Path("models/semantics")


def main() -> None:
    """Run the stage."""
    run_stage(label_batch, name="pseudo_labels", item="batch")


def label_batch(stage: Stage) -> Outcome:
    """Label every frame of a batch: pseudo-classes, alignment with proposals, label table, statistics."""
    params, batch = stage.params, stage.item
    motion = Path("data/motion") / batch
    proposals = Path("data") / params.pseudo_labels.proposals / batch
    labeller = FrameLabeller(
        SemanticLabeller(FEATURES, SEMANTICS, params.semantics, params.runtime.device),
        motion=motion,
        proposals=proposals,
        frames=params.frames,
        settings=params.pseudo_labels,
        n_pseudo_classes=params.semantics.n_pseudo_classes,
    )
    summary, statistics = write_pseudo_labels(
        read_manifest(Path("data/manifests") / f"{batch}.parquet"),
        labeller,
        out_dir=Path("data/pseudo_labels") / batch,
        cache_dir=stage.cache,
        key={
            "settings": [
                dataclasses.asdict(part) for part in (params.frames, params.semantics, params.pseudo_labels)
            ],
            "inputs": [ShardFolder(folder).fingerprint() for folder in (motion, proposals)],
            "networks": [content_hash(folder) for folder in (FEATURES, SEMANTICS)],
        },
        shard_size=params.runtime.shard_size,
        open_executor=stage.open_executor,
        max_failed_share=params.runtime.max_failed_share,
        label=stage.label,
    )
    pixels = max(int(statistics.pixels.sum()), 1)
    metrics = {
        **summary.metrics(),
        "instances_per_frame": int(statistics.instances.sum()) / max(statistics.n_frames, 1),
        "pixels_in_instances_share": int(statistics.pixels_in_instances.sum()) / pixels,
        "used_pseudo_classes": int((statistics.pixels > 0).sum()),
    }
    return Outcome(metrics, summary.status())


if __name__ == "__main__":
    main()
