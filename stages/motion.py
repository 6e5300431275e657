"""DVC stage ``motion``: stereo pairs of a batch -> proposals of moving objects, disparity."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.data.sharded_run import run_sharded
from gestalt.data.shards import ShardFolder
from gestalt.matching.matcher import check_matcher
from gestalt.motion.proposals import FrameProposer, check_frames
from stages.entry import Outcome, Stage, run_stage


def main() -> None:
    """Run the stage."""
    run_stage(propose, name="motion", item="batch")


def propose(stage: Stage) -> Outcome:
    """Measure motion and depth of every pair of a batch and propose what moves on its own."""
    params = stage.params
    out_dir = Path("data/motion") / stage.item
    frames = read_manifest(Path("data/manifests") / f"{stage.item}.parquet")
    check_frames(frames, params.motion)
    summary = run_sharded(
        frames,
        FrameProposer(params.motion, params.frames, params.seed, params.runtime.device),
        out_dir=out_dir,
        cache_dir=stage.cache,
        key={
            "seed": params.seed,
            "settings": [dataclasses.asdict(part) for part in (params.frames, params.motion)],
            "matcher": check_matcher(params.motion),
        },
        shard_size=params.runtime.shard_size,
        open_executor=stage.open_executor,
        max_failed_share=params.runtime.max_failed_share,
        label=stage.label,
    )
    records = ShardFolder(out_dir).records()
    metrics = {**summary.metrics(), "proposals_per_frame": len(records) / summary.n_frames}
    if len(records):
        metrics["mean_consistency"] = float(records["consistency"].mean())
    return Outcome(metrics, summary.status())


if __name__ == "__main__":
    main()
