"""DVC stage ``evaluate``: stored predictions of every network against the ground truth of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gestalt.data.ground_truth import dataset_of, find_ground_truth
from gestalt.data.shards import ShardFolder
from gestalt.errors import DataError
from gestalt.evaluation.details import evaluate_details
from gestalt.evaluation.evaluate import Evaluation, evaluate_table, intersect_folder
from gestalt.evaluation.protocols import protocol_for
from gestalt.panoptic import Vocabulary
from stages.entry import Outcome, Stage, run_stage, write_json

# The network whose numbers count, outlines and scores too; of others only PQ is shown beside them.
REPORTED = "self_trained"


def main() -> None:
    """Run the stage."""
    run_stage(evaluate_benchmark, name="evaluate", item="benchmark")


def evaluate_benchmark(stage: Stage) -> Outcome:
    """Match pseudo-classes to classes and compute every metric of the benchmark's protocol, per network."""
    folder = Path("data/benchmarks") / stage.item
    truth = find_ground_truth(folder)
    protocol = protocol_for(dataset_of(folder), stage.params.evaluate.protocols)
    predictions = sorted(path for path in (Path("data/predictions") / stage.item).iterdir() if path.is_dir())
    if not predictions:
        raise DataError(f"data/predictions/{stage.item} holds no network; `dvc repro predict` makes it")
    evaluations: dict[str, Evaluation] = {}
    networks: dict[str, Any] = {}
    for path in predictions:
        vocabulary, maps = read_vocabulary(path.name), ShardFolder(path)
        label = f"{stage.label} {path.name}"
        table, coverage = intersect_folder(
            maps, truth, protocol, n_pseudo_classes=vocabulary.n_pseudo_classes, label=label
        )
        evaluation = evaluate_table(
            table,
            protocol,
            things=vocabulary.unified_things,
            stuff=vocabulary.unified_stuff,
            clusters=vocabulary.stuff + vocabulary.things,
            coverage=coverage,
            sequences={frame.frame_id: frame.sequence for frame in truth},
        )
        evaluations[path.name], networks[path.name] = evaluation, evaluation.to_dict()
        if path.name == REPORTED:
            networks[path.name] |= evaluate_details(maps, truth, table, evaluation, label=label)
    report = {
        "benchmark": stage.item,
        "protocol": {**protocol.to_dict(), "hash": protocol.hash},
        "networks": networks,
    }
    write_json(Path("reports/evaluation") / f"{stage.item}.json", report)
    headlines = {name: evaluation.headline() for name, evaluation in evaluations.items()}
    missing = {f"{name}_missing": len(item.coverage.missing) for name, item in evaluations.items()}
    # The same names as in the metrics of labels, so that `dvc metrics show` needs few columns.
    metrics = headlines.pop(REPORTED, {})
    metrics |= {f"PQ_{name}": headline["PQ"] for name, headline in headlines.items()}
    return Outcome(metrics, {"n_images": len(truth), **missing})


def read_vocabulary(network: str) -> Vocabulary:
    """The split that a network's outputs follow, from its card; a later split of the labels may differ."""
    path = Path("models") / network / "card.json"
    if not path.exists():
        raise DataError(f"{path} does not exist; train that network, or remove its predictions")
    content = json.loads(path.read_text(encoding="utf-8"))["vocabulary"]
    return Vocabulary(tuple(content["things"]), tuple(content["stuff"]))


if __name__ == "__main__":
    main()
