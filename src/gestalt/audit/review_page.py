"""The review page of a batch: verdicts, histograms, worst frames first; a folder that opens from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.audit.charts import bars, histogram
from gestalt.audit.expectations import PASSED, Finding, describe_limits, worst_verdict
from gestalt.audit.measures import LabelMeasures
from gestalt.audit.overlay import (
    blend,
    colour_instances,
    colour_semantic,
    distinct_colours,
    draw_panoptic,
    fit_width,
)
from gestalt.audit.page import Html, cards, number, page, table, tag
from gestalt.config.audit import AuditSettings
from gestalt.data.images import write_png
from gestalt.data.shards import ShardFolder
from gestalt.panoptic import PanopticMap, Vocabulary

UInt8Array = npt.NDArray[np.uint8]
Pictures = dict[str, UInt8Array]

RESULT_FILE, PAGE_FILE, PICTURES = "result.json", "index.html", "pictures"
VIEWS = ("overlay", "image", "semantic", "instances")

SCRIPT_FILE = Path(__file__).with_suffix(".js")


def write_review(
    out_dir: Path,
    batch: str,
    measures: LabelMeasures,
    findings: Sequence[Finding],
    labels: ShardFolder,
    read_left: Callable[[str], UInt8Array],
    vocabulary: Vocabulary,
    settings: AuditSettings,
) -> dict[str, Any]:
    """Write the evidence of a batch: ``result.json``, the page, and pictures of the worst frames.

    Args:
        out_dir: The folder; replaced as a whole.
        batch: Name of the batch.
        measures: Its measures.
        findings: What the expectations found.
        labels: Shard folder of its pseudo-labels.
        read_left: Frame id -> (H, W, 3) uint8 RGB image in the geometry of the labels.
        vocabulary: Which pseudo-classes are things, for colours and names.
        settings: Section ``audit``.

    Returns:
        What ``result.json`` holds: no times, no absolute paths.
    """
    aside = out_dir.with_name(f".{out_dir.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / PICTURES).mkdir(parents=True)
    palette = class_palette(vocabulary)
    worst = measures.frames.head(settings.worst_frames)
    known = set(labels.frame_ids)
    for frame_id in worst["frame_id"]:
        if frame_id in known:
            for view, picture in frame_pictures(labels, frame_id, read_left(frame_id), palette).items():
                shown = fit_width(
                    picture, settings.picture_width_px, is_labels=view in ("semantic", "instances")
                )
                write_png(aside / PICTURES / f"{frame_id}.{view}.png", shown)
    result = {
        "batch": batch,
        "verdict": worst_verdict(list(findings)),
        "n_frames": len(measures.frames),
        "findings": [finding.to_dict() for finding in findings],
        "batch_measures": _plain_row(measures.batch.iloc[0].to_dict()),
        "class_shares": [round(float(share), 6) for share in measures.class_shares],
        "worst_frames": [_plain_row(row) for row in worst.to_dict("records")],
    }
    (aside / RESULT_FILE).write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    html = _render(batch, measures, findings, known, vocabulary, palette, settings)
    (aside / PAGE_FILE).write_text(html, encoding="utf-8")
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(out_dir)
    return result


def class_palette(vocabulary: Vocabulary) -> UInt8Array:
    """(256, 3) uint8 RGB colours of pseudo-classes, the same on all pages of a pipeline."""
    return distinct_colours(vocabulary.n_pseudo_classes)


def frame_pictures(labels: ShardFolder, frame_id: str, image: UInt8Array, palette: UInt8Array) -> Pictures:
    """The views of one labelled frame, by name.

    Args:
        labels: Shard folder with the maps ``semantic`` and ``instance``.
        frame_id: The frame.
        image: (H, W, 3) uint8 RGB.
        palette: (256, 3) uint8 RGB.
    """
    panoptic = PanopticMap(
        labels.read_map(frame_id, "semantic").astype(np.uint8),
        labels.read_map(frame_id, "instance").astype(np.uint16),
    )
    return {
        "overlay": draw_panoptic(image, panoptic, palette),
        "image": image,
        "semantic": colour_semantic(panoptic.semantic_map, palette),
        "instances": blend(image // 3, colour_instances(panoptic.instance_map), 0.85),
    }


def _render(
    batch: str,
    measures: LabelMeasures,
    findings: Sequence[Finding],
    known: set[str],
    vocabulary: Vocabulary,
    palette: UInt8Array,
    settings: AuditSettings,
) -> str:
    verdict, row = worst_verdict(list(findings)), measures.batch.iloc[0]
    broken = sum(not finding.success for finding in findings)
    body = [
        f"<h1>Labels of {escape(batch)} {tag(verdict)}</h1>",
        f'<p class="lead">{len(findings) - broken} of {len(findings)} expectations are met.</p>',
        cards(
            [
                (number(len(measures.frames)), "frames"),
                (number(int(row["n_instances"])), "instances"),
                (f"{100 * row['mean_coverage']:.1f} %", "mean coverage"),
                (f"{100 * row['no_instance_share']:.1f} %", "frames without an instance"),
                (f"{100 * row['failed_share']:.1f} %", "frames failed"),
                (f"{100 * row['class_drift']:.1f} %", "class drift"),
            ]
        ),
        "<h2>Expectations</h2>",
        _findings_table(findings),
        "<h2>Distributions</h2>",
        f'<div class="charts">{"".join(_charts(measures, vocabulary, palette, settings))}</div>',
        "<h2>Worst frames first</h2>",
        '<p class="note">Suspicion joins all causes; it orders the frames and stops nothing. '
        "Keys: <kbd>j</kbd> <kbd>k</kbd> or arrows for the next and previous frame, <kbd>1</kbd> to "
        "<kbd>4</kbd> for the view.</p>",
        '<div class="bar">'
        + "".join(
            f'<button data-view="{view}" aria-pressed="{str(view == VIEWS[0]).lower()}">{view}</button>'
            for view in VIEWS
        )
        + "</div>",
        *(_frame(record, known) for record in measures.frames.head(settings.worst_frames).to_dict("records")),
    ]
    return page(f"Labels of {batch}", body, script=SCRIPT_FILE.read_text(encoding="utf-8"))


def _findings_table(findings: Sequence[Finding]) -> str:
    rows = []
    for finding in sorted(findings, key=lambda entry: entry.verdict == PASSED):
        entry = finding.expectation
        details = finding.error or "; ".join(finding.examples)
        rows.append(
            [
                tag(finding.verdict),
                entry.meaning,
                Html(f"{entry.table}.<b>{escape(entry.column)}</b>"),
                finding.observed if entry.table == "batch" else None,
                describe_limits(entry.limits),
                finding.n_unexpected,
                finding.n_rows,
                entry.severity,
                Html(f"<details><summary>show</summary>{escape(details)}</details>") if details else "",
            ]
        )
    header = ["verdict", "expected", "column", "observed", "limits", "broken", "of", "severity", "examples"]
    return _with_digits(header, rows)


def _with_digits(header: Sequence[str], rows: list[list[Any]]) -> str:
    """Shares need three digits where the pages' tables show one."""
    for row in rows:
        row[:] = [Html(f"{value:.3f}") if isinstance(value, float) else value for value in row]
    return table(header, rows)


def _charts(
    measures: LabelMeasures, vocabulary: Vocabulary, palette: UInt8Array, settings: AuditSettings
) -> list[str]:
    frames, segments = measures.frames, measures.segments
    instances = segments[segments["instance"] > 0]
    names = [
        f"{'thing' if entry in vocabulary.things else 'stuff'} {entry}"
        for entry in range(vocabulary.n_pseudo_classes)
    ]
    colours = ["rgb({},{},{})".format(*palette[entry]) for entry in range(vocabulary.n_pseudo_classes)]
    return [
        bars(
            [float(share) for share in measures.class_shares],
            names,
            "share of pixels per pseudo-class",
            colours,
        ),
        histogram(frames["coverage"], "coverage of frames", limits=[settings.min_frame_coverage]),
        histogram(frames["n_instances"], "instances per frame", limits=[settings.max_instances_per_frame]),
        histogram(
            100 * instances["area_share"],
            "area of instances, % of frame",
            limits=[100 * settings.max_instance_share],
        ),
        histogram(instances["instance_depth_m"], "depth of instances, m", limits=[settings.max_depth_m]),
        histogram(
            instances["instance_speed_m_s"], "speed of instances, m/s", limits=[settings.max_speed_m_s]
        ),
        histogram(instances["consistency"], "ensemble consistency", limits=[settings.min_consistency]),
        histogram(segments["confidence"], "confidence of segments"),
        histogram(frames["suspicion"], "suspicion of frames"),
    ]


def _frame(record: dict[Any, Any], known: set[str]) -> str:
    name = str(record["frame_id"])
    source = f"{PICTURES}/{escape(name)}.{VIEWS[0]}.png"
    picture = f'<img loading="lazy" data-name="{escape(name)}" src="{source}" alt="">'
    facts = [
        ("suspicion", Html(f"{record['suspicion']:.3f}")),
        ("strongest cause", record["why"]),
        ("status", record["status"]),
        ("reason", record["reason"]),
        ("coverage", _share(record["coverage"])),
        ("instances", str(record["n_instances"])),
        ("largest instance", _share(record["largest_instance_share"])),
        ("lowest consistency", _share(record["min_consistency"])),
        ("confidence", _share(record["confidence"])),
        ("pseudo-classes", str(record["n_pseudo_classes"])),
    ]
    shown = table(["frame", name], [fact for fact in facts if fact[1] not in ("", None)])
    left = picture if name in known else '<p class="note">no maps: the frame failed</p>'
    return f'<div class="frame"><div>{left}</div><div>{shown}</div></div>'


def _share(value: float) -> str | None:
    return None if value != value else f"{100 * value:.1f} %"


def _plain_row(row: dict[Any, Any]) -> dict[str, Any]:
    """JSON knows no NaN; six digits are the same on every machine."""
    plain: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, str):
            plain[str(key)] = value
        else:
            as_float = float(value)
            is_whole = isinstance(value, int | np.integer)
            plain[str(key)] = None if as_float != as_float else int(value) if is_whole else round(as_float, 6)
    return plain
