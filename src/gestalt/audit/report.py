"""The report: one page with the numbers, what they mean, and pictures of every intermediate.

The page is one file that opens from disk. What differs from run to run (seconds, memory) is not in it but in
``cost.js`` beside it, so that equal results give an equal page.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.audit.charts import curves
from gestalt.audit.overlay import contact_sheet
from gestalt.audit.page import cards, embed, figure, number, page, pictures, table
from gestalt.audit.report_pictures import MeasureFlow, Strip, Workspace, batch_strips, benchmark_strips
from gestalt.audit.report_tables import (
    FINAL_NETWORK,
    Record,
    audit_section,
    benchmark_section,
    class_section,
    detail_section,
    label_section,
    published_section,
)
from gestalt.config.frames import FrameSettings
from gestalt.config.report import ReportSettings
from gestalt.data.atomic_files import write_bytes
from gestalt.data.images import write_png

PAGE_FILE, COST_FILE, PICTURES = "index.html", "cost.js", "pictures"
SCRIPT_FILE = Path(__file__).with_suffix(".js")


@dataclass(frozen=True)
class ReportSubject:
    """What the report is about.

    Attributes:
        preset: Name of the composition of parameters.
        batches: Batches of the pipeline.
        benchmarks: Evaluation sets of the pipeline.
        parameters: ``section.key`` -> value, without what changes no result.
        ui_command: Command that opens the runs.
    """

    preset: str
    batches: Sequence[str]
    benchmarks: Sequence[str]
    parameters: Mapping[str, Any]
    ui_command: str


def write_report(
    subject: ReportSubject,
    settings: ReportSettings,
    frames: FrameSettings,
    workspace: Workspace,
    measure_flow: MeasureFlow,
) -> Path:
    """Write the page, its contact sheets and the cost of the stages.

    Args:
        subject: What it is about.
        settings: How much it shows.
        frames: Geometry that the labels were made at.
        workspace: Where the artefacts lie.
        measure_flow: Measures the optical flow of the frames that are shown.

    Returns:
        The page. Parts whose artefacts are missing (no truth, no curve) are left out.
    """
    reports = workspace.reports
    evaluations = _read_all(reports / "evaluation", subject.benchmarks)
    qualities = _read_all(reports / "label_quality", subject.batches)
    gate = _read_all(reports, ["gate"]).get("gate", {})
    strips = _draw(subject, settings, frames, workspace, evaluations, measure_flow)
    for name, of_name in strips.items():
        if of_name:
            write_png(reports / PICTURES / f"{name}.png", _sheet(of_name))
    body = [
        *_head(subject, evaluations, qualities),
        *benchmark_section(evaluations),
        *detail_section(evaluations),
        *published_section(evaluations),
        *label_section(qualities),
        *audit_section(gate),
        *_curve_section(reports / "curves"),
        *_picture_section(strips),
        *class_section(evaluations, qualities),
        *_tail(subject),
    ]
    write_bytes(reports / COST_FILE, _cost(reports).encode())
    path = reports / PAGE_FILE
    title = f"Gestalt report: {subject.preset}"
    write_bytes(path, page(title, body, script=SCRIPT_FILE.read_text(encoding="utf-8")).encode())
    return path


def _head(
    subject: ReportSubject, evaluations: Mapping[str, Record], qualities: Mapping[str, Record]
) -> list[str]:
    figures = []
    for benchmark, content in evaluations.items():
        if metrics := content["networks"].get(FINAL_NETWORK):
            primary = content["protocol"]["conventions"][0]
            figures.append((number(metrics[primary]["PQ"]), f"PQ {benchmark}"))
    for batch, content in qualities.items():
        primary = content["protocol"]["conventions"][0]
        figures.append((number(content["labels"][primary]["PQ"]), f"PQ of the labels of {batch}"))
    links = [("benchmarks", "Benchmarks"), ("labels", "Labels"), ("audit", "Audit"), ("curves", "Training")]
    links += [
        ("pictures", "Pictures"),
        ("classes", "Classes"),
        ("parameters", "Parameters"),
        ("cost", "Cost"),
    ]
    rendered = [name for name, content in evaluations.items() if content["protocol"]["rendered"]]
    lead = (
        f"Preset <b>{escape(subject.preset)}</b>, batches {escape(', '.join(subject.batches))}. "
        "Stereo video in, panoptic network out; no human label was used except to evaluate. "
        "All numbers are percent."
    )
    if rendered:
        lead += (
            f" The images of {escape(', '.join(rendered))} are <b>rendered</b> in the form of the data set "
            "of that name: these numbers do not compare with published ones."
        )
    return [
        "<h1>Gestalt</h1>",
        f'<p class="lead">{lead}</p>',
        cards(figures),
        "<nav>" + "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links) + "</nav>",
    ]


def _curve_section(folder: Path) -> list[str]:
    lines = []
    for path in sorted(folder.glob("*.csv")):
        columns = _read_columns(path)
        steps = columns.pop("step", np.zeros(0))
        if len(steps):
            charts = [curves(steps, {name: _smooth(values)}, name) for name, values in columns.items()]
            lines += [f"<h3>{escape(path.stem)}</h3>", f'<div class="charts">{"".join(charts)}</div>']
    if not lines:
        return []
    note = '<p class="note">Losses over optimiser steps, a running mean over a fiftieth of the training.</p>'
    return ['<h2 id="curves">Training</h2>', note, *lines]


def _picture_section(strips: Mapping[str, Sequence[Strip]]) -> list[str]:
    lines = ['<h2 id="pictures">Pictures</h2>']
    for of_name in strips.values():
        for strip in of_name:
            shown = [
                figure(embed(entry.pixels, is_labels=entry.is_labels), entry.caption)
                for entry in strip.pictures
            ]
            lines += [f"<h3>{escape(strip.title)}</h3>", pictures(shown)]
    return lines


def _tail(subject: ReportSubject) -> list[str]:
    rows = [[key, str(value)] for key, value in sorted(subject.parameters.items())]
    return [
        '<h2 id="parameters">Parameters</h2>',
        "<details><summary>Every value of params.yaml that a result depends on</summary>",
        table(["key", "value"], rows),
        "</details>",
        '<h2 id="cost">Cost</h2>',
        f'<div id="cost-table"><p class="note">{COST_FILE}, written beside this page, is not here.</p></div>',
        f'<script src="{COST_FILE}"></script>',
        "<h2>Runs</h2>",
        "<p>Parameters, metrics, curves and pictures of all runs:</p>",
        f"<pre>{escape(subject.ui_command)}</pre>",
    ]


def _draw(
    subject: ReportSubject,
    settings: ReportSettings,
    frames: FrameSettings,
    workspace: Workspace,
    evaluations: Mapping[str, Record],
    measure_flow: MeasureFlow,
) -> dict[str, list[Strip]]:
    width = settings.picture_width_px
    return {
        **{
            batch: batch_strips(batch, settings.frames_per_batch, frames, workspace, width, measure_flow)
            for batch in subject.batches
        },
        **{
            benchmark: benchmark_strips(benchmark, settings.frames_per_benchmark, workspace, width)
            for benchmark in evaluations
        },
    }


def _sheet(strips: Sequence[Strip]) -> npt.NDArray[np.uint8]:
    """Strips below each other, as one picture for the run's page and for documents."""
    columns = max(len(strip.pictures) for strip in strips)
    pixels, captions = [], []
    for strip in strips:
        for place in range(columns):
            entry = strip.pictures[place] if place < len(strip.pictures) else None
            blank = np.full_like(strip.pictures[0].pixels, 255)
            pixels.append(blank if entry is None else entry.pixels)
            captions.append("" if entry is None else entry.caption)
    return contact_sheet(pixels, captions, columns)


def _cost(reports: Path) -> str:
    """Seconds and memory of the stages as a script that the page loads; not part of the result."""
    rows = []
    for path in sorted((reports / "status").glob("*.json")):
        status = json.loads(path.read_text(encoding="utf-8"))
        rows.append(
            {
                "stage": path.stem,
                **{
                    key: status.get(key)
                    for key in ("seconds", "cpu_seconds", "peak_memory_mib", "frames_per_second")
                },
            }
        )
    return f"window.gestaltCost = {json.dumps(rows, indent=1)};\n"


def _read_all(folder: Path, names: Sequence[str]) -> dict[str, Record]:
    paths = {name: folder / f"{name}.json" for name in names}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()
    }


def _read_columns(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A trailing running mean; the first values average what is there."""
    window = max(len(values) // 50, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
