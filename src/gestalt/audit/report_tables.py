"""The tables of the report: benchmarks, published numbers, pseudo-labels, audits, classes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from gestalt.audit.page import Html, number, table, tag
from gestalt.audit.reliability_chart import reliability_chart
from gestalt.evaluation.calibration import Calibration
from gestalt.evaluation.published import published_for

FINAL_NETWORK = "self_trained"
LABELS = "pseudo-labels"
QUALITY_HEADER = ["PQ", "SQ", "RQ", "PQ thing", "PQ stuff", "mIoU", "accuracy"]
CONVENTION_NAMES = {
    "void_neutral": "PQ, void-neutral: unlabelled pixels count for nothing (the published protocol)",
    "standard": "PQ, standard: unlabelled pixels count as errors (the panoptic API)",
    "bdd100k": "PQ, BDD100K: unlabelled pixels count as errors, and so does what is predicted on true void",
}

# As in ``QUALITY_HEADER``, by the names of published results.
METRICS = ("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy")

# What a stage wrote as JSON; its keys are documented where it is written.
Record = dict[str, Any]


def headline_rows(evaluations: Mapping[str, Record], convention: str) -> list[list[Any]]:
    """Benchmark, network, PQ, SQ, RQ, PQ thing, PQ stuff, mIoU, accuracy, interval of PQ, images: a row per network.

    Benchmarks whose protocol does not use the convention have none.
    """
    rows = []
    for benchmark, content in evaluations.items():
        for network, metrics in sorted(content["networks"].items()):
            if convention not in metrics:
                continue
            numbers = [*_quality(metrics, convention), _interval(metrics, convention)]
            rows.append([benchmark, network, *numbers, _images(metrics["coverage"])])
    return rows


def _interval(metrics: Record, convention: str) -> str | None:
    bounds = metrics.get(convention, {}).get("intervals", {}).get("PQ")
    return None if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def _images(coverage: Record) -> Any:
    expected = coverage.get("n_expected")
    is_whole = expected is None or expected == coverage["n_images"]
    return coverage["n_images"] if is_whole else f"{coverage['n_images']} of {expected}"


def _quality(metrics: Record, convention: str) -> list[Any]:
    panoptic = metrics.get(convention)
    if panoptic is None:
        return [None] * len(METRICS)
    # A mean over no class is no number.
    parts = [panoptic[kind]["PQ"] if panoptic[kind]["n_classes"] else None for kind in ("thing", "stuff")]
    return [*(panoptic[name] for name in METRICS[:3]), *parts, *(metrics[name] for name in METRICS[-2:])]


def benchmark_section(evaluations: Mapping[str, Record]) -> list[str]:
    """Every benchmark and network in both conventions, and what the numbers mean."""
    if not evaluations:
        return []
    lines = ['<h2 id="benchmarks">Benchmarks</h2>']
    header = ["benchmark", "network", *QUALITY_HEADER, "PQ, 95 %", "images"]
    for convention, caption in CONVENTION_NAMES.items():
        if not (rows := headline_rows(evaluations, convention)):
            continue
        strong = [place for place, row in enumerate(rows) if row[1] == FINAL_NETWORK]
        lines.append(table(header, rows, caption=caption, strong=strong))
    meanings = [
        [name, content["protocol"]["meaning"], _protocol(content)] for name, content in evaluations.items()
    ]
    lines.append("<details><summary>What the numbers mean</summary>")
    lines += [table(["benchmark", "protocol", "name and hash"], meanings), "</details>"]
    lines.append(
        '<p class="note">The network to report is <b>self_trained</b>, fixed beforehand. Pseudo-classes are '
        "matched with classes on the evaluation set itself, as all methods of the field do. The interval is that "
        "of 1000 resamples of the images (of whole sequences, where the protocol says so): it holds what the choice of "
        "the images explains, not what another seed of the training would change.</p>"
    )
    return lines


def published_section(evaluations: Mapping[str, Record]) -> list[str]:
    """Our numbers on real images beside published ones, each with its protocol; rendered images never."""
    datasets = dict.fromkeys(content["protocol"]["dataset"] for content in evaluations.values())
    rows: list[list[Any]] = []
    strong = []
    for dataset in datasets:
        for benchmark, content in evaluations.items():
            metrics = content["networks"].get(FINAL_NETWORK)
            if (
                content["protocol"]["dataset"] != dataset
                or content["protocol"]["rendered"]
                or metrics is None
            ):
                continue
            images = _images(metrics["coverage"])
            origin = f"this run: {benchmark}, {images} images"
            numbers = _quality(metrics, content["protocol"]["conventions"][0])
            strong.append(len(rows))
            rows.append([dataset, "Gestalt", *numbers, _protocol(content), origin])
        rows += [
            [
                dataset,
                entry.method,
                *(entry.metrics.get(name) for name in METRICS),
                entry.protocol,
                entry.source,
            ]
            for entry in published_for(dataset)
        ]
    if not rows:
        return []
    header = ["data set", "method", *QUALITY_HEADER, "protocol", "source"]
    lines = [table(header, rows, caption="Real images, beside published numbers", strong=strong)]
    if strong:
        return lines
    note = (
        '<p class="note">All benchmarks of this run are rendered, so it has no row here: a number on rendered images '
        "compares with none of these.</p>"
    )
    return ["<details><summary>Published numbers, on the real images</summary>", note, *lines, "</details>"]


def detail_section(evaluations: Mapping[str, Record]) -> list[str]:
    """Outlines of the reported network, whether its right objects come first, and whether its scores are right."""
    details = {
        benchmark: content["networks"][FINAL_NETWORK]
        for benchmark, content in evaluations.items()
        if "boundary" in content["networks"].get(FINAL_NETWORK, {})
    }
    if not details:
        return []
    rows = []
    for benchmark, found in details.items():
        boundary = found["boundary"][evaluations[benchmark]["protocol"]["conventions"][0]]
        precision = found.get("average_precision", {})
        masks, objects = precision.get("class_agnostic", {}), precision.get("of_classes", {})
        calibration = found.get("calibration", {})
        shares = [calibration.get(name) for name in ("expected_error", "auroc")]
        rows.append(
            [
                benchmark,
                boundary["boundary_PQ"],
                boundary["boundary_mIoU"],
                *(masks.get(name) for name in ("AP", "AP50", "AR100")),
                *(objects.get(name) for name in ("AP", "AP50")),
                *(None if share is None else 100 * share for share in shares),
            ]
        )
    header = ["benchmark", "boundary PQ", "boundary mIoU", "AP", "AP50", "AR100", "class AP", "class AP50"]
    header += ["ECE", "AUROC"]
    charts = [
        reliability_chart(Calibration.from_dict(found["calibration"]), benchmark)
        for benchmark, found in details.items()
        if found.get("calibration", {}).get("n_masks")
    ]
    return [
        "<details><summary>Outlines and scores of the reported network</summary>",
        table(header, rows, caption="percent"),
        '<p class="note">AP: instances whatever their class. A score should be the share of instances that hit an '
        "object of their class above IoU 0.5 (ECE says how far off it is); a dot below the diagonal promises too "
        "much.</p>",
        f'<div class="charts">{"".join(charts)}</div>',
        "</details>",
    ]


def label_section(qualities: Mapping[str, Record]) -> list[str]:
    """Pseudo-labels and proposals against the truth of their batch."""
    if not qualities:
        return []
    lines = ['<h2 id="labels">Pseudo-labels against truth</h2>']
    for convention, caption in CONVENTION_NAMES.items():
        rows = [
            [batch, *_quality(content["labels"], convention)]
            for batch, content in qualities.items()
            if convention in content["labels"]
        ]
        lines += [table(["batch", *QUALITY_HEADER], rows, caption=caption)] if rows else []
    rows = [
        [
            batch,
            source,
            objects.replace("_", " "),
            limit.replace("_", " "),
            100 * found["precision"],
            100 * found["recall"],
        ]
        for batch, content in qualities.items()
        for source, quality in content["proposals"].items()
        for objects, limits in quality.items()
        if isinstance(limits, Mapping)
        for limit, found in limits.items()
    ]
    header = ["batch", "source", "against", "objects", "precision", "recall"]
    return [*lines, table(header, rows, caption="Class-agnostic proposals, a hit is an IoU above 0.5")]


def audit_section(gate: Record) -> list[str]:
    """Verdict per batch, with the broken expectations and a link to the evidence."""
    if not gate:
        return []
    rows = []
    for batch, verdict in gate["batches"].items():
        reasons = "".join(f"<div>{escape(reason)}</div>" for reason in verdict["reasons"])
        link = Html(f'<a href="audit/{escape(batch)}/index.html">{escape(batch)}</a>')
        rows.append([link, tag(verdict["verdict"]), Html(reasons)])
    state = "open" if gate["open"] else "closed"
    return [
        f'<h2 id="audit">Audit of the labels: the gate is {state}</h2>',
        table(["batch", "verdict", "broken expectations"], rows),
    ]


def class_section(evaluations: Mapping[str, Record], qualities: Mapping[str, Record]) -> list[str]:
    """A table per evaluation with the numbers of each class."""
    subjects = {
        f"{benchmark}, {FINAL_NETWORK}": (content["networks"][FINAL_NETWORK], content["protocol"])
        for benchmark, content in evaluations.items()
        if FINAL_NETWORK in content["networks"]
    }
    subjects |= {
        f"{batch}, {LABELS}": (content["labels"], content["protocol"]) for batch, content in qualities.items()
    }
    if not subjects:
        return []
    header = ["class", "", "PQ", "SQ", "RQ", "IoU", "hits", "false", "missed", "pseudo-classes"]
    lines = ['<h2 id="classes">Classes</h2>']
    for title, (metrics, protocol) in subjects.items():
        primary = protocol["conventions"][0]
        matched: dict[str, list[str]] = {}
        for entry in metrics["assignment"]:
            matched.setdefault(entry["class"], []).append(str(entry["cluster"]))
        rows = [
            [
                entry["class"],
                "thing" if entry["is_thing"] else "stuff",
                *(entry[primary][key] for key in ("PQ", "SQ", "RQ")),
                entry["IoU"],
                *(entry[primary][key] for key in ("true_positives", "false_positives", "false_negatives")),
                ", ".join(matched.get(entry["class"], [])),
            ]
            for entry in metrics["per_class"]
            if entry[primary]["occurs"]
        ]
        lines += [f"<details><summary>{escape(title)}</summary>", table(header, rows), "</details>"]
    return lines


def _protocol(content: Record) -> str:
    return f"{content['protocol']['name']}@{content['protocol']['hash']}"
