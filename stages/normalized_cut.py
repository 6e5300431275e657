"""DVC stage ``normalized_cut``: images and dense features -> proposals of a baseline, in motion's form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.baselines.normalized_cut import CutProposer
from gestalt.data.manifest import read_manifest
from gestalt.data.sharded_run import run_sharded
from stages.entry import Outcome, Stage, run_stage
from stages.inputs import content_hash

FEATURES = Path("models/features")


def main() -> None:
    """Run the stage."""
    run_stage(propose_batch, name="normalized_cut", item="batch")


def propose_batch(stage: Stage) -> Outcome:
    """Propose masks for every frame of a batch by iterated normalised cut of dense features."""
    params, batch = stage.params, stage.item
    summary = run_sharded(
        read_manifest(Path("data/manifests") / f"{batch}.parquet"),
        CutProposer(FEATURES, params.frames, params.normalized_cut, params.seed),
        out_dir=Path("data/normalized_cut") / batch,
        cache_dir=stage.cache,
        key={
            "settings": [dataclasses.asdict(part) for part in (params.frames, params.normalized_cut)],
            "seed": params.seed,
            "features": content_hash(FEATURES),
        },
        shard_size=params.runtime.shard_size,
        open_executor=stage.open_executor,
        max_failed_share=params.runtime.max_failed_share,
        label=stage.label,
    )
    return Outcome(summary.metrics(), summary.status())


if __name__ == "__main__":
    main()
