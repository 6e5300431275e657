"""The tables of the report: benchmarks, published numbers, pseudo-labels, audits, classes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from gestalt.audit.page import Html, table, tag
from gestalt.evaluation.published import published_for

FINAL_NETWORK = "self_trained"
LABELS = "pseudo-labels"
QUALITY_HEADER = ["PQ", "SQ", "RQ", "PQ thing", "PQ stuff", "mIoU", "accuracy"]
CONVENTION_NAMES = {
    "void_neutral": "PQ, void-neutral: unlabelled pixels count for nothing (the published protocol)",
    "standard": "PQ, standard: unlabelled pixels count as errors (the panoptic API)",
}

# What a stage wrote as JSON; its keys are documented where it is written.
Record = dict[str, Any]


def headline_rows(evaluations: Mapping[str, Record], convention: str) -> list[list[Any]]:
    """Benchmark, network, PQ, SQ, RQ, PQ thing, PQ stuff, mIoU, accuracy, images: a row per network."""
    rows = []
    for benchmark, content in evaluations.items():
        for network, metrics in sorted(content["networks"].items()):
            rows.append([benchmark, network, *_quality(metrics, convention), metrics["coverage"]["n_images"]])
    return rows


def _quality(metrics: Record, convention: str) -> list[Any]:
    panoptic = metrics.get(convention)
    if panoptic is None:
        return [None] * 7
    numbers = [
        panoptic["PQ"],
        panoptic["SQ"],
        panoptic["RQ"],
        panoptic["thing"]["PQ"],
        panoptic["stuff"]["PQ"],
    ]
    return [*numbers, metrics["mIoU"], metrics["pixel_accuracy"]]


def benchmark_section(evaluations: Mapping[str, Record]) -> list[str]:
    """Every benchmark and network in both conventions, and what the numbers mean."""
    if not evaluations:
        return []
    lines = ['<h2 id="benchmarks">Benchmarks</h2>']
    header = ["benchmark", "network", *QUALITY_HEADER, "images"]
    for convention, caption in CONVENTION_NAMES.items():
        rows = headline_rows(evaluations, convention)
        strong = [place for place, row in enumerate(rows) if row[1] == FINAL_NETWORK]
        lines.append(table(header, rows, caption=caption, strong=strong))
    meanings = [
        [name, content["protocol"]["meaning"], _protocol(content)] for name, content in evaluations.items()
    ]
    lines.append("<details><summary>What the numbers mean</summary>")
    lines += [table(["benchmark", "protocol", "name and hash"], meanings), "</details>"]
    lines.append(
        '<p class="note">The network to report is <b>self_trained</b>, fixed beforehand. Pseudo-classes are '
        "matched with classes on the evaluation set itself, as all methods of the field do.</p>"
    )
    return lines


def published_section(evaluations: Mapping[str, Record]) -> list[str]:
    """Published numbers of the same data sets, in a table of their own."""
    datasets = dict.fromkeys(content["protocol"]["dataset"] for content in evaluations.values())
    rows = [
        [
            entry.dataset,
            entry.method,
            *(entry.metrics.get(name) for name in names),
            entry.protocol,
            entry.source,
        ]
        for names in [("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "mIoU", "pixel_accuracy")]
        for dataset in datasets
        for entry in published_for(dataset)
    ]
    if not rows:
        return []
    return [
        "<details><summary>Published numbers, on the real images</summary>",
        table(["data set", "method", *QUALITY_HEADER, "protocol", "source"], rows),
        "</details>",
    ]


def label_section(qualities: Mapping[str, Record]) -> list[str]:
    """Pseudo-labels and proposals against the truth of their batch."""
    if not qualities:
        return []
    lines = ['<h2 id="labels">Pseudo-labels against truth</h2>']
    for convention, caption in CONVENTION_NAMES.items():
        rows = [[batch, *_quality(content["labels"], convention)] for batch, content in qualities.items()]
        lines.append(table(["batch", *QUALITY_HEADER], rows, caption=caption))
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
