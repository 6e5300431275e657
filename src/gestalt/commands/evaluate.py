"""`gestalt evaluate`: predictions of any tool against ground truth, with the protocol beside every number."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gestalt.commands.arguments import must_exist, must_not_be_file
from gestalt.errors import ConfigError, DataError, name_some

if TYPE_CHECKING:
    from gestalt.evaluation.evaluate import Coverage, Evaluation
    from gestalt.evaluation.pairing import PairedSides
    from gestalt.evaluation.predicted_side import PredictedSide
    from gestalt.evaluation.protocols import Protocol
    from gestalt.evaluation.table_files import TableFiles
    from gestalt.evaluation.truth_side import TruthSide

# Of predicted instances, by image id and instance.
Scores = Mapping[tuple[str, int], float]

REPORT, SHEET = "evaluation.json", "worst_images.png"
# Fewer images are done before other processes have started.
MIN_IMAGES_PER_PROCESS = 200


def evaluate(
    ground_truth: Annotated[
        Path,
        typer.Option(
            help="COCO panoptic JSON, a benchmark folder with source.yaml, or any folder with --adapter."
        ),
    ],
    predictions: Annotated[
        Path, typer.Option(help="COCO panoptic JSON of any tool, its folder, or a shard folder of ours.")
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="Name of a protocol, such as cityscapes19, or a YAML file. Without one the categories of the ground "
            "truth's JSON count, by the rules of the official panoptic API."
        ),
    ] = "",
    ground_truth_folder: Annotated[
        Path | None, typer.Option(help="Pictures of the ground truth's JSON. [default: named as the file]")
    ] = None,
    predictions_folder: Annotated[
        Path | None, typer.Option(help="Pictures of the predictions' JSON. [default: named as the file]")
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            metavar="known|match",
            help="known: categories of the predictions are those of the ground truth, by id or by name; match: they "
            "are pseudo-classes, matched as the protocol says. Shard folders are always matched.",
        ),
    ] = "known",
    adapter: Annotated[str, typer.Option(help="How the ground truth is laid out, without source.yaml.")] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE told to the adapter; may be repeated.")
    ] = None,
    boundary: Annotated[bool, typer.Option("--boundary", help="Also Boundary PQ and Boundary IoU.")] = False,
    ap: Annotated[
        bool, typer.Option("--ap", help="Also average precision of instances, from `score` of segments.")
    ] = False,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Also whether `score` of segments is right.")
    ] = False,
    video: Annotated[
        bool, typer.Option("--video", help="Also STQ and VPQ; ids of objects must last over frames.")
    ] = False,
    worst: Annotated[int, typer.Option(min=0, help="Images on the sheet of the worst; 0 for none.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one per core.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for {REPORT} and {SHEET}; nothing is written without it.")
    ] = None,
) -> None:
    """Evaluate predictions of any tool: PQ, mIoU and more with 95 % intervals, per class, and who was left out.

    Images without a prediction count as missed and are named. Files that contradict each other are explained, and no
    number is printed.

    Examples: `gestalt evaluate --ground-truth gt.json --predictions pred.json` ·
    `gestalt evaluate --ground-truth cityscapes_panoptic_val.json --predictions out/predictions.json --protocol
    cityscapes19 --classes match --out reports/mine`
    """
    for path in (ground_truth, predictions, ground_truth_folder, predictions_folder):
        if path is not None:
            must_exist(path)
    if out is not None:
        must_not_be_file(out)

    from gestalt.evaluation.evaluate import evaluate_table
    from gestalt.evaluation.image_pairs import intersect_to_files
    from gestalt.evaluation.pairing import mask_scores, pair_sides
    from gestalt.evaluation.protocols import load_protocol
    from gestalt.evaluation.scored_instances import instance_calibration, instance_precision
    from gestalt.evaluation.truth_side import check_sequences
    from gestalt.runtime import start

    start()
    truth = _open_truth(
        ground_truth,
        ground_truth_folder,
        load_protocol(protocol) if protocol else None,
        adapter,
        option or [],
        is_video=video,
    )
    predicted = _open_predictions(predictions, predictions_folder, truth, classes)
    paired = pair_sides(truth, predicted)
    # What is missing for a part is said before hours of work.
    scores = mask_scores(paired, predicted) if ap or calibration else {}
    if video:
        check_sequences(truth)
    with tempfile.TemporaryDirectory(prefix="gestalt-evaluate-") as place:
        tables = intersect_to_files(
            paired.pairs,
            Path(place),
            protocol=truth.protocol,
            workers=_processes(workers, len(paired.pairs)),
            label=predictions.name,
        )
        evaluation = evaluate_table(
            tables,
            truth.protocol,
            things=predicted.things,
            stuff=predicted.stuff,
            coverage=paired.coverage,
            clusters=predicted.clusters,
            classes=predicted.classes,
            sequences={image_id: image.sequence for image_id, image in truth.images.items()},
            space=truth.space,
            keeps_segments=truth.is_as_listed and bool(predicted.classes),
        )
        report = _report(evaluation, truth, predicted, paired)
        if boundary:
            report["boundary"] = _boundary(paired, evaluation)
        if ap:
            report["average_precision"] = {
                name: instance_precision(tables, evaluation, scores, with_classes=with_classes).to_dict()
                for name, with_classes in (("class_agnostic", False), ("of_classes", True))
            }
        if calibration:
            report["calibration"] = instance_calibration(tables, evaluation, scores).to_dict()
        if video:
            report["video"] = _video(tables, evaluation, truth)
    _print_report(report, evaluation)
    _print_coverage(paired.coverage, truth.protocol)
    if out is not None:
        _write(out, report, evaluation, truth, paired, worst)


def _open_truth(
    path: Path,
    folder: Path | None,
    protocol: Protocol | None,
    adapter: str,
    option: list[str],
    *,
    is_video: bool,
) -> TruthSide:
    from gestalt.data.coco_files import read_coco_panoptic
    from gestalt.data.ground_truth import (
        dataset_of,
        dataset_of_adapter,
        find_frames,
        find_ground_truth,
    )
    from gestalt.data.source import SOURCE_FILE
    from gestalt.delivery import parse_options
    from gestalt.evaluation.coco import picture_folder
    from gestalt.evaluation.protocols import known_protocols, load_protocol
    from gestalt.evaluation.truth_side import coco_truth, frame_truth

    if path.is_file() and not adapter:
        return coco_truth(
            read_coco_panoptic(path, folder or picture_folder(path)), protocol, is_video=is_video
        )
    if path.is_file():
        raise ConfigError(
            f"an adapter reads a folder, but --ground-truth {path} is a file; leave --adapter out"
        )
    if adapter:
        options = parse_options(option)
        frames = find_frames(adapter, path, options)
        dataset = dataset_of_adapter(adapter, options)
    elif (path / SOURCE_FILE).is_file():
        frames, dataset = find_ground_truth(path), dataset_of(path)
    else:
        raise ConfigError(
            f"--ground-truth {path} is a folder without {SOURCE_FILE}; say how it is laid out with --adapter, or name "
            "a COCO panoptic JSON"
        )
    if protocol is None:
        fitting = [name for name in known_protocols() if load_protocol(name).dataset == dataset]
        raise ConfigError(
            f"ground truth of {dataset} needs a --protocol, which says the classes and the rules; made for it: "
            f"{', '.join(fitting) or 'none'}; all: {', '.join(known_protocols())}"
        )
    return frame_truth(frames, protocol, dataset)


def _open_predictions(path: Path, folder: Path | None, truth: TruthSide, classes: str) -> PredictedSide:
    from gestalt.contestants import card_vocabulary
    from gestalt.data.coco_files import read_coco_panoptic
    from gestalt.data.shards import INDEX_FILE
    from gestalt.evaluation.coco import picture_folder
    from gestalt.evaluation.predicted_side import coco_predicted, shard_predicted

    if classes not in ("known", "match"):
        raise ConfigError(f"--classes must be one of known, match. Got: {classes!r}")
    if path.is_dir() and (path / INDEX_FILE).is_file():
        return shard_predicted(path, card_vocabulary(path, Path.cwd()))
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if len(files) != 1:
            found = name_some([file.name for file in files]) or "none"
            raise DataError(
                f"{path} must be a shard folder ({INDEX_FILE}) or hold one COCO panoptic JSON. Got: {found}; name the "
                "JSON file itself"
            )
        path = files[0]
    return coco_predicted(
        read_coco_panoptic(path, folder or picture_folder(path)),
        truth,
        "match" if classes == "match" else "known",
    )


def _processes(workers: int, n_images: int) -> int:
    from gestalt.runtime import available_cores

    if workers:
        return workers
    return max(1, min(available_cores(), n_images // MIN_IMAGES_PER_PROCESS))


def _boundary(paired: PairedSides, evaluation: Evaluation) -> dict[str, Any]:
    from gestalt.evaluation.boundary_evaluation import evaluate_boundaries
    from gestalt.evaluation.image_pairs import panoptic_of, read_pair
    from gestalt.runtime import progress

    def images() -> Any:
        for pair in progress(paired.pairs, label="boundaries", unit="image"):
            truth, prediction = read_pair(pair, evaluation.protocol)
            yield pair.image_id, None if prediction is None else panoptic_of(prediction), panoptic_of(truth)

    return evaluate_boundaries(images(), evaluation).to_dict()


def _video(tables: TableFiles, evaluation: Evaluation, truth: TruthSide) -> dict[str, Any]:
    from gestalt.evaluation.intersections import merge_tables, relabel_predictions
    from gestalt.evaluation.video_quality import evaluate_video

    space, protocol = evaluation.space, evaluation.protocol
    # Sequences have to be whole, and parts end anywhere.
    table = relabel_predictions(merge_tables(tables), evaluation.assignment.class_of, space.thing_ids)
    quality = evaluate_video(
        table,
        {image_id: (image.sequence, image.number) for image_id, image in truth.images.items()},
        len(space.classes),
        space.thing_ids,
        protocol.ignored_ids(space),
        group_regions={name: protocol.group_regions[name] for name in protocol.conventions},
    )
    return quality.to_dict([entry.name for entry in space.classes])


def _report(
    evaluation: Evaluation, truth: TruthSide, predicted: PredictedSide, paired: PairedSides
) -> dict[str, Any]:
    report = evaluation.to_dict()
    for record in report["assignment"] if predicted.names else ():
        record["name"] = predicted.names[record["pseudo_class"]]
    return {
        **report,
        "protocol_fields": evaluation.protocol.to_dict(),
        "notes": [*truth.notes, *predicted.notes, paired.note],
    }


def _print_report(report: dict[str, Any], evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    print(f"protocol {evaluation.protocol.label}: {evaluation.protocol.meaning}")
    for note in report["notes"]:
        print(note)
    numbers = Table("", *evaluation.protocol.conventions, title="percent [95 % interval over images]")
    intervals = evaluation.intervals()
    for metric in next(iter(intervals.values())):
        cells = [
            f"{bounds[metric].value:.2f} "
            + (f"[{bounds[metric].low:.1f}, {bounds[metric].high:.1f}]" if bounds[metric].is_known else "[-]")
            for bounds in intervals.values()
        ]
        numbers.add_row(metric, *cells)
    console.print(numbers)
    of_class = Table("class", "kind", "IoU", *(f"PQ {name}" for name in evaluation.protocol.conventions))
    absent = 0
    for record in report["per_class"]:
        if record["IoU"] is None and not any(
            record[name]["occurs"] for name in evaluation.protocol.conventions
        ):
            absent += 1
            continue
        iou = "-" if record["IoU"] is None else f"{record['IoU']:.1f}"
        qualities = [record[name] for name in evaluation.protocol.conventions]
        cells = [f"{quality['PQ']:.1f}" if quality["occurs"] else "-" for quality in qualities]
        of_class.add_row(record["class"], "thing" if record["is_thing"] else "stuff", iou, *cells)
    console.print(of_class)
    if absent:
        print(f"{absent} more classes occur in neither ground truth nor predictions and are in no mean")
    if any(record["found_by"] != "known" for record in report["assignment"]):
        matched = Table("pseudo-class", "kind", "class", "found by", "pixels")
        for record in report["assignment"]:
            name = record.get("name", str(record["cluster"]))
            kind = "thing" if record["is_thing"] else "stuff"
            matched.add_row(name, kind, record["class"], record["found_by"], str(record["n_pixels"]))
        console.print(matched)
    for title in ("boundary", "average_precision", "calibration", "video"):
        if title in report:
            print(f"{title}: {json.dumps(_headline(report[title]))}")


def _headline(content: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a part, without its tables."""
    short: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, float):
            short[name] = None if math.isnan(value) else round(value, 3)
        elif isinstance(value, dict) and name != "per_class" and (inner := _headline(value)):
            short[name] = inner
    return short


def _print_coverage(coverage: Coverage, protocol: Protocol) -> None:
    print(f"{coverage.n_images} images with ground truth")
    if coverage.is_partial:
        print(
            f"warning: the benchmark of protocol {protocol.name} has {coverage.n_expected} images; these numbers are "
            "of another set",
            file=sys.stderr,
        )
    if coverage.missing:
        print(
            f"warning: {len(coverage.missing)} images have no prediction and count as missed: "
            f"{name_some(coverage.missing)}",
            file=sys.stderr,
        )
    if coverage.extra:
        print(
            f"warning: {len(coverage.extra)} predictions have no ground truth and count for nothing: "
            f"{name_some(coverage.extra)}",
            file=sys.stderr,
        )


def _write(
    out: Path,
    report: dict[str, Any],
    evaluation: Evaluation,
    truth: TruthSide,
    paired: PairedSides,
    n_worst: int,
) -> None:
    from gestalt.data.atomic_files import write_bytes

    write_bytes(out / REPORT, (json.dumps(report, indent=1) + "\n").encode("utf-8"))
    written = [REPORT]
    if n_worst:
        _write_sheet(out / SHEET, evaluation, truth, paired, n_worst)
        written.append(SHEET)
    print(f"{' and '.join(written)} -> {out}")


def _write_sheet(
    path: Path, evaluation: Evaluation, truth: TruthSide, paired: PairedSides, n_worst: int
) -> None:
    import numpy as np

    from gestalt.audit.worst_images import WorstImage, draw_worst, worst_first
    from gestalt.data.images import read_image, write_png
    from gestalt.evaluation.image_pairs import panoptic_of, read_pair
    from gestalt.panoptic import VOID

    protocol, space = evaluation.protocol, evaluation.space
    counts = evaluation.panoptic_counts[protocol.primary]
    quality = counts.of_images()
    ignored = protocol.ignored_ids(space)
    counted = [index for index in range(len(space.classes)) if index not in ignored]
    pq = quality.means(counted)[0]
    places = worst_first(pq, np.asarray(quality.occurs[:, counted].any(axis=-1)), n_worst)
    class_of = np.full(VOID + 1, VOID, np.int64)
    class_of[: len(evaluation.assignment.class_of)] = evaluation.assignment.class_of
    pairs = {pair.image_id: pair for pair in paired.pairs}
    images = []
    for place in places:
        image_id = counts.image_ids[place]
        true, predicted = read_pair(pairs[image_id], protocol)
        photo = truth.images[image_id].image
        images.append(
            WorstImage(
                f"{image_id}  PQ {pq[place]:.1f}",
                read_image(photo) if photo is not None and photo.is_file() else None,
                panoptic_of(true),
                None if predicted is None else panoptic_of(predicted, class_of),
            )
        )
    if images:
        write_png(path, draw_worst(images, space))
