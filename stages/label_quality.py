"""DVC stage ``label_quality``: pseudo-labels and proposals of a batch against its truth."""

from __future__ import annotations

from pathlib import Path

from gestalt.data.ground_truth import dataset_of, find_ground_truth
from gestalt.data.shards import ShardFolder
from gestalt.evaluation.label_quality import (
    evaluate_labels,
    evaluate_proposals,
    read_moving_objects,
    truth_of_frames,
)
from gestalt.evaluation.protocols import protocol_for
from gestalt.panoptic import Vocabulary
from stages.entry import Outcome, Stage, run_stage, write_json


def main() -> None:
    """Run the stage."""
    run_stage(measure_labels, name="label_quality", item="batch")


def measure_labels(stage: Stage) -> Outcome:
    """Panoptic and semantic quality of pseudo-labels, precision and recall of the proposals behind them."""
    settings, batch = stage.params.label_quality, stage.item
    folder = Path("data/truth") / batch
    protocol = protocol_for(dataset_of(folder), [settings.protocol], key="label_quality.protocol")
    labels = ShardFolder(Path("data/pseudo_labels") / batch)
    truth = truth_of_frames(find_ground_truth(folder), labels, stage.label)
    evaluation = evaluate_labels(
        labels, truth, Vocabulary.load(Path("data/vocabulary.json")), protocol, label=stage.label
    )
    sources = {"motion": Path("data/motion") / batch}
    if stage.params.pseudo_labels.proposals == "normalized_cut":
        sources["normalized_cut"] = Path("data/normalized_cut") / batch
    moving = read_moving_objects(folder)
    proposals = {
        source: evaluate_proposals(
            ShardFolder(path),
            truth,
            moving,
            min_object_px=settings.min_object_px,
            label=f"{stage.label} {source}",
        )
        for source, path in sources.items()
    }
    report = {
        "batch": batch,
        "protocol": {**protocol.to_dict(), "hash": protocol.hash},
        "labels": evaluation.to_dict(),
        "proposals": {source: quality.to_dict() for source, quality in proposals.items()},
    }
    write_json(Path("reports/label_quality") / f"{batch}.json", report)
    used = proposals.get(stage.params.pseudo_labels.proposals, proposals["motion"])
    metrics = {**evaluation.headline(), **used.headline()}
    return Outcome(metrics, {"n_frames": len(truth), "missing": len(evaluation.coverage.missing)})


if __name__ == "__main__":
    main()
