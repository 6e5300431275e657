"""Panoptic quality of COCO panoptic predictions: files in, one JSON object out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from gestalt.data.coco_files import CocoPanoptic, read_coco_panoptic
from gestalt.errors import GestaltError
from gestalt.evaluation.coco import intersect_coco, listed_categories, names_without
from gestalt.evaluation.intersections import clear_crowds
from gestalt.evaluation.panoptic_quality import STANDARD, VOID_NEUTRAL, PanopticQuality, panoptic_quality

CONVENTIONS = {"standard": STANDARD, "void-neutral": VOID_NEUTRAL}


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments, compute, print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="GT.json")
    parser.add_argument("--ground-truth-folder", type=Path, required=True, metavar="DIR")
    parser.add_argument("--predictions", type=Path, required=True, metavar="PRED.json")
    parser.add_argument("--predictions-folder", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--convention",
        choices=sorted(CONVENTIONS),
        default="standard",
        help="standard: the official panoptic API; void-neutral: predicted void is left out of every union",
    )
    parser.add_argument(
        "--group-regions",
        choices=("crowd", "segment"),
        help="what iscrowd segments are; default: crowd for standard, an ordinary segment for void-neutral",
    )
    given = parser.parse_args(arguments)
    started, started_cpu = time.perf_counter(), time.process_time()
    group_regions = given.group_regions or ("crowd" if given.convention == "standard" else "segment")
    try:
        truth = read_coco_panoptic(given.ground_truth, given.ground_truth_folder)
        predictions = read_coco_panoptic(given.predictions, given.predictions_folder)
        table = intersect_coco(truth, predictions)
    except GestaltError as error:
        print(f"panoptic_quality: {error}", file=sys.stderr)
        return 1
    missing, extra = names_without(truth, predictions), names_without(predictions, truth)
    if missing:
        print(
            f"{len(missing)} images have no prediction and count as missed: {missing[:10]}", file=sys.stderr
        )
    if extra:
        print(
            f"{len(extra)} predictions have no ground truth and count for nothing: {extra[:10]}",
            file=sys.stderr,
        )
    table = clear_crowds(table) if group_regions == "segment" else table
    quality = panoptic_quality(table, len(listed_categories(truth)), CONVENTIONS[given.convention])
    result = {
        **summarise(quality, truth),
        "convention": given.convention,
        "group_regions": group_regions,
        "n_images": len(truth.images),
        "missing_predictions": missing,
        "extra_predictions": extra,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - started_cpu,
    }
    print(json.dumps(result, indent=2))
    return 0


def summarise(quality: PanopticQuality, truth: CocoPanoptic) -> dict[str, Any]:
    """Means and a record per category id, percent."""
    categories = listed_categories(truth)
    things = {index for index, category in enumerate(categories) if category.is_thing}
    pq, sq, rq = quality.per_class()
    per_class = {
        str(category.id): {
            "name": category.name,
            "PQ": float(pq[index]),
            "SQ": float(sq[index]),
            "RQ": float(rq[index]),
            "TP": int(quality.true_positives[index]),
            "FP": int(quality.false_positives[index]),
            "FN": int(quality.false_negatives[index]),
        }
        for index, category in enumerate(categories)
    }
    return {**quality.to_dict(things), "per_class": per_class}


if __name__ == "__main__":
    sys.exit(main())
