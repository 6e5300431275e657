"""DVC stage ``thing_stuff``: statistics of all batches -> which pseudo-classes are things."""

from __future__ import annotations

from pathlib import Path

from gestalt.data.manifest import read_manifest
from gestalt.pseudo_labels.thing_stuff import split_things_from_stuff, sum_statistics
from stages.entry import Outcome, Stage, run_stage


def main() -> None:
    """Run the stage."""
    run_stage(split_vocabulary, name="thing_stuff")


def split_vocabulary(stage: Stage) -> Outcome:
    """Sum the statistics of every batch, split the pseudo-classes, write ``data/vocabulary.json``."""
    batches = stage.params.batches
    statistics = sum_statistics(
        {batch: Path("data/pseudo_labels") / batch for batch in batches},
        {
            batch: [frame.frame_id for frame in read_manifest(Path("data/manifests") / f"{batch}.parquet")]
            for batch in batches
        },
    )
    split = split_things_from_stuff(statistics, stage.params.thing_stuff.psi)
    split.save(Path("data/vocabulary.json"))
    return Outcome(split.metrics(), {"n_frames": statistics.n_frames})


if __name__ == "__main__":
    main()
