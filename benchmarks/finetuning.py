"""Fine-tuning on few labels: what a network that learnt without labels is worth, at each budget of labels.

For every budget, seed and start: draws labelled frames of rendered video, trains, predicts the images of a benchmark
and compares them with their truth in the classes that were learnt; nothing is matched. Starts: the whole network with
the outputs of its pseudo-classes (`largest`, `one to one`) or without them (`fresh classes`), its backbone with fresh
heads, and the bare architecture. The row `no labels` is the network as it is, its pseudo-classes matched to classes
with the truth of the benchmark, as the pipeline's evaluation does.

A seed draws other images and trains with another chance. A run that stands in the file of results is not made again.
The folder is a clone in which the pipeline has run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gestalt.config.network import PredictSettings
from gestalt.config.presets import default_settings
from gestalt.config.section_file import replace_values
from gestalt.data.atomic_files import write_bytes
from gestalt.data.ground_truth import dataset_of, find_ground_truth, read_ground_truth
from gestalt.data.images import read_image
from gestalt.data.label_spaces import load_label_space
from gestalt.data.manifest import read_manifest
from gestalt.data.records import GroundTruthFrame
from gestalt.errors import GestaltError
from gestalt.evaluation.evaluate import evaluate_table
from gestalt.evaluation.intersections import intersect, merge_tables
from gestalt.evaluation.protocols import protocol_for
from gestalt.inference.predictor import Predictor
from gestalt.network.checkpoint import NetworkCard, load_network
from gestalt.runtime import choose_device, progress, start
from gestalt.training.finetuning import finetune, finetuned_card
from gestalt.training.labelled_frames import LabelledFrame, LabelledSamples, draw_frames, find_labelled_frames
from gestalt.training.named_classes import vocabulary_of

# Name of a row -> values of the section `finetune`.
STARTS: dict[str, list[str]] = {
    "network, largest": ["start=network", "class_start=largest"],
    "network, one to one": ["start=network", "class_start=one_to_one"],
    "network, fresh classes": ["start=network", "class_start=fresh"],
    "backbone": ["start=backbone"],
    "scratch": ["start=scratch"],
}
NO_LABELS = "no labels"
NUMBERS = ("PQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(), help="clone with data and models")
    parser.add_argument("--network", type=Path, default=Path("models/self_trained"))
    parser.add_argument("--batches", nargs="+", default=["monday", "tuesday"])
    parser.add_argument("--benchmark", default="cityscapes")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--set", dest="values", nargs="*", default=[], help="values of the section finetune")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON of all runs; those in it are kept")
    parsed = parser.parse_args(arguments)
    start(threads=parsed.threads)
    try:
        rows = _run(parsed)
    except GestaltError as error:
        print(f"finetuning: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(rows)))
    return 0


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown: a line per start and budget, means over seeds and their spread."""
    lines = [
        f"| labels | start | {' | '.join(NUMBERS)} | seeds |",
        "|---" * (len(NUMBERS) + 3) + "|",
    ]
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["n_images"], row["start"]), []).append(row)
    for (n_images, name), group in groups.items():
        cells = []
        for number in NUMBERS:
            values = [row[number] for row in group]
            spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{sum(values) / len(values):.1f}{spread}")
        lines.append(f"| {n_images} | {name} | {' | '.join(cells)} | {len(group)} |")
    return lines


def evaluate_network(
    predictor: Predictor,
    truth: Sequence[GroundTruthFrame],
    dataset: str,
    *,
    classes: Sequence[int],
    label: str,
) -> dict[str, float]:
    """Quality of a network on a benchmark, percent.

    Args:
        predictor: The network.
        truth: Images and their truth.
        dataset: Whose raw ids the truth has.
        classes: The class of each output; empty to match pseudo-classes with the truth.
        label: Of the progress bar.
    """
    protocol = protocol_for(dataset, default_settings("evaluate").protocols)
    tables = []
    for frame in progress(truth, label=label, unit="image"):
        predicted = predictor(read_image(frame.image)).panoptic
        true = read_ground_truth(frame, protocol.label_space, dataset)
        tables.append(intersect(frame.frame_id, predicted, true))
    vocabulary = predictor.card.vocabulary
    headline = evaluate_table(
        merge_tables(tables),
        protocol,
        things=vocabulary.unified_things,
        stuff=vocabulary.unified_stuff,
        classes=classes,
    ).headline()
    return {number: round(headline[number], 3) for number in NUMBERS}


def _run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    folder, device = arguments.folder, choose_device(arguments.device)
    other, card = load_network(folder / arguments.network, device)
    # Truth of rendered video lies apart from it, so manifests say where its images are.
    benchmark = folder / "data/benchmarks" / arguments.benchmark
    truth, dataset = find_ground_truth(benchmark), dataset_of(benchmark)
    frames = find_labelled_frames(
        [folder / "data/truth" / batch for batch in arguments.batches],
        [
            frame
            for batch in arguments.batches
            if (manifest := folder / f"data/manifests/{batch}.parquet").exists()
            for frame in read_manifest(manifest)
        ],
    )
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    plain = Predictor(other, card, _predict_settings(card), device)
    key = {"network": str(arguments.network), "benchmark": arguments.benchmark, "values": arguments.values}

    def missing(**wanted: Any) -> bool:
        return not any(all(row.get(name) == value for name, value in wanted.items()) for row in rows)

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        write_bytes(arguments.out, (json.dumps(rows, indent=1) + "\n").encode())
        print(json.dumps(row), flush=True)

    if missing(**(wanted := {**key, "start": NO_LABELS})):
        quality = evaluate_network(plain, truth, dataset, classes=(), label=NO_LABELS)
        keep({**wanted, "seed": 0, "share": 0.0, "n_images": 0, "seconds": 0.0, **quality})
    for seed in arguments.seeds:
        for share in arguments.shares:
            for name in arguments.starts:
                wanted = {**key, "start": name, "seed": seed, "share": share}
                if not missing(**wanted):
                    continue
                values = [*STARTS[name], f"share={share}", f"draw_seed={seed}", *arguments.values]
                settings = replace_values(default_settings("finetune"), "finetune", values)
                drawn = draw_frames(frames, share, seed=seed, held_out=truth)
                begun = time.perf_counter()
                quality = _judge(drawn.frames, other, card, settings, seed, truth, dataset, name)
                seconds = round(time.perf_counter() - begun, 1)
                keep({**wanted, "n_images": len(drawn.frames), "seconds": seconds, **quality})
    return [row for row in rows if all(row[name] == value for name, value in key.items())]


def _judge(
    frames: Sequence[LabelledFrame],
    other: Any,
    card: NetworkCard,
    settings: Any,
    seed: int,
    truth: Sequence[GroundTruthFrame],
    dataset: str,
    name: str,
) -> dict[str, float]:
    space = load_label_space(settings.label_space)
    vocabulary = vocabulary_of(space)
    device = next(other.parameters()).device
    with tempfile.TemporaryDirectory() as cache:
        result = finetune(
            LabelledSamples(frames, settings.label_space, keep_in_memory=True),
            vocabulary,
            other,
            card.settings,
            card.image_size,
            settings,
            seed=seed,
            device=device,
            cache_dir=Path(cache),
        )
    own = finetuned_card(result, card.settings, space, sources={}, metrics={})
    predictor = Predictor(result.network, own, _predict_settings(own), device)
    return evaluate_network(
        predictor, truth, dataset, classes=vocabulary.stuff + vocabulary.things, label=name
    )


def _predict_settings(card: NetworkCard) -> PredictSettings:
    settings: PredictSettings = default_settings("predict")
    return dataclasses.replace(settings, height_px=settings.height_px or card.image_size[0])


if __name__ == "__main__":
    sys.exit(main())
