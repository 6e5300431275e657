"""A contest: contestants on all their common benchmarks, as numbers, as a page and as a record in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.audit.comparison_page import (
    BenchmarkPart,
    ComparedRun,
    DifferingValues,
    letter,
    write_comparison,
)
from gestalt.audit.comparison_pictures import draw_frames
from gestalt.contestants import Contestant, Entry, open_benchmark, seed_groups
from gestalt.data.atomic_files import write_bytes
from gestalt.data.ground_truth import dataset_of, find_ground_truth
from gestalt.errors import DataError
from gestalt.evaluation.comparison import METRICS, compare_predictions, seed_spreads, worst_images
from gestalt.evaluation.protocols import protocol_for
from gestalt.evaluation.truth_side import frame_truth
from gestalt.tracking.recorded_runs import log_comparison
from gestalt.tracking.store import SideEffect, open_store

if TYPE_CHECKING:
    from gestalt.evaluation.bootstrap import Interval

PAGE_FILE, SUMMARY_FILE = "index.html", "summary.json"
# Lineage of a run that a reader looks for first, as the page calls it.
FACTS = {"seed": "seed", "git.commit": "commit", "device": "device"}
SHORT_HASH = 8
# Tags of a run that tell where it worked.
ENVIRONMENT = ("env.", "device")


@dataclass(frozen=True)
class Contest:
    """Everything that a comparison found.

    Attributes:
        contestants: The reference first.
        parts: Benchmarks on which at least two contestants were left.
        notes: What a reader must know: who was left out, where pictures are missing.
    """

    contestants: Sequence[Contestant]
    parts: Sequence[BenchmarkPart]
    notes: Sequence[str]


def hold_contest(
    contestants: Sequence[Contestant],
    benchmarks: Sequence[str],
    protocols: Sequence[str],
    *,
    root: Path,
    scratch: Path,
    n_frames: int,
    width_px: int,
) -> Contest:
    """Measure all contestants and draw the images that tell them apart.

    Args:
        contestants: The reference first.
        benchmarks: Which ones; see ``common_benchmarks``.
        protocols: Names of protocols, one per data set.
        root: Repository root.
        scratch: Empty folder for states that are not in the workspace; may be deleted afterwards.
        n_frames: Images to draw per benchmark.
        width_px: Widest picture.

    Raises:
        DataError: On no benchmark are two contestants left.
    """
    parts: list[BenchmarkPart] = []
    notes = _same_bytes(contestants, benchmarks)
    for name in benchmarks:
        part, of_part = _hold_on(name, contestants, protocols, root, scratch / name, n_frames, width_px)
        notes += of_part
        parts += [part] if part else []
    if not parts:
        raise DataError("nothing is left to compare:\n  " + "\n  ".join(notes))
    return Contest(contestants, parts, notes)


def write_contest(contest: Contest, out: Path) -> Path:
    """Write the page and all numbers as ``summary.json``; returns the page."""
    write_bytes(out / SUMMARY_FILE, (json.dumps(summarise(contest), indent=2) + "\n").encode())
    runs = [ComparedRun(entry.name, entry.origin, _facts(entry)) for entry in contest.contestants]
    values = differing_values(contest.contestants)
    return write_comparison(out / PAGE_FILE, runs, values, contest.notes, contest.parts)


def log_contest(contest: Contest, page: Path, root: Path) -> bool:
    """Record the contest in MLflow, if a recorded run is part of it; a store that cannot be written costs a warning.

    Returns:
        Whether it was recorded.
    """
    run_ids = [entry.run.run_id for entry in contest.contestants if entry.run is not None]
    if not run_ids:
        return False
    with SideEffect("the comparison") as attempt:
        client, experiment = open_store(root)
        log_comparison(
            client,
            experiment,
            name=f"compare {', '.join(entry.name for entry in contest.contestants)}",
            run_ids=list(dict.fromkeys(run_ids)),
            parameters={
                letter(place): f"{entry.name}: {entry.origin}"
                for place, entry in enumerate(contest.contestants)
            },
            page=page,
            summary=summarise(contest),
            metrics=difference_metrics(contest),
        )
    return attempt.is_done


def difference_metrics(contest: Contest) -> dict[str, float]:
    """``difference_PQ/<benchmark>/B`` and so on: points in the primary convention, by the letter of the contestant."""
    letters = {entry.name: letter(place) for place, entry in enumerate(contest.contestants)}
    return {
        f"difference_{metric}/{part.comparison.benchmark}/{letters[name]}": changes[metric].value
        for part in contest.parts
        for name, result in part.comparison.results.items()
        if (changes := result.differences.get(part.comparison.protocol.primary))
        for metric in METRICS
        if metric in changes
    }


def summarise(contest: Contest) -> dict[str, Any]:
    """All numbers with their intervals, for JSON."""

    def plain(numbers: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
        return {
            convention: {metric: _plain(value) for metric, value in of_metric.items()}
            for convention, of_metric in numbers.items()
        }

    return {
        "contestants": [
            {"name": entry.name, "is": entry.origin, **_facts(entry)} for entry in contest.contestants
        ],
        "benchmarks": {
            part.comparison.benchmark: {
                "protocol": part.comparison.label,
                "n_images": len(part.comparison.image_ids),
                "reference": part.comparison.reference,
                "contestants": {
                    name: {"numbers": plain(result.numbers), "differences": plain(result.differences)}
                    for name, result in part.comparison.results.items()
                },
            }
            for part in contest.parts
        },
        "notes": list(contest.notes),
    }


def differing_values(contestants: Sequence[Contestant]) -> list[DifferingValues]:
    """Parameters, code and environment in which the recorded runs differ."""
    runs = [contestant.run for contestant in contestants]

    def rows(of_runs: Sequence[Mapping[str, str] | None]) -> dict[str, list[str | None]]:
        keys = sorted({key for values in of_runs if values is not None for key in values})
        found = {key: [None if values is None else values.get(key) for values in of_runs] for key in keys}
        return {
            key: values
            for key, values in found.items()
            if len({value for value, of_run in zip(values, of_runs) if of_run is not None}) > 1
        }

    parameters = rows([None if run is None else run.parameters for run in runs])
    known_to_all = {
        key: values
        for key, values in parameters.items()
        if all(value is not None for value, run in zip(values, runs) if run is not None)
    }
    code = rows([None if run is None else _short_hashes(run.code) for run in runs])
    environment = rows(
        [
            None
            if run is None
            else {key: value for key, value in run.tags.items() if key.startswith(ENVIRONMENT)}
            for run in runs
        ]
    )
    return [
        DifferingValues("Parameters", known_to_all),
        DifferingValues("Code behind the predictions, by its hash", code),
        DifferingValues("Machine and libraries", environment),
        DifferingValues(
            "Parameters that not all runs know",
            {key: values for key, values in parameters.items() if key not in known_to_all},
        ),
    ]


def _hold_on(
    name: str,
    contestants: Sequence[Contestant],
    protocols: Sequence[str],
    root: Path,
    place: Path,
    n_frames: int,
    width_px: int,
) -> tuple[BenchmarkPart | None, list[str]]:
    """One benchmark: its part of the page, if two contestants are left, and what must be said about it."""
    try:
        opened = open_benchmark(name, contestants, root, place / "benchmark")
    except DataError as error:
        # The other benchmarks can still be compared.
        return None, [str(error)]
    notes = list(opened.notes)
    protocol = protocol_for(dataset_of(opened.folder), protocols)
    frames = find_ground_truth(opened.folder)
    truth = frame_truth(frames, protocol, protocol.dataset)
    fitting = {entry.name: entry.entries[name] for entry in contestants if entry.name in opened.names}
    predictions = {
        who: entry.open_predictions(place / str(number), truth)
        for number, (who, entry) in enumerate(fitting.items())
        if entry.open_predictions is not None
    }
    gone = {who: entry for who, entry in fitting.items() if who not in predictions}
    # Among themselves, recorded numbers compare under whatever protocol they have in common.
    labels = {entry.protocol for entry in gone.values()}
    label = labels.pop() if not predictions and len(labels) == 1 else protocol.label
    recorded = {
        who: entry.numbers for who, entry in gone.items() if entry.numbers and entry.protocol == label
    }
    notes += [_why_no_pictures(name, who, entry, label) for who, entry in gone.items()]
    if len(predictions) + len(recorded) < 2:
        return None, [*notes, f"{name}: fewer than two contestants are left"]
    order = [contestant.name for contestant in contestants]
    comparison = compare_predictions(name, predictions, recorded, truth, order=order)
    comparison = replace(comparison, label=label)
    chosen = worst_images(comparison, n_frames)
    return BenchmarkPart(
        comparison,
        draw_frames(comparison, frames, chosen, width_px=width_px),
        {
            group: seed_spreads(comparison, group)
            for group in seed_groups(contestants)
            if set(group) <= set(comparison.results)
        },
    ), notes


def _why_no_pictures(name: str, who: str, entry: Entry, label: str) -> str:
    """The line that says so, and what becomes of the recorded numbers."""
    line = f"{name}: no pictures of {who}: {entry.why_none}"
    if not entry.numbers:
        return f"{line}; it recorded no numbers either and is left out"
    if entry.protocol != label:
        return f"{line}; its numbers were recorded under {entry.protocol} instead of {label} and are left out"
    return f"{line}; its numbers are those that the run recorded under {label}, without intervals"


def _facts(contestant: Contestant) -> dict[str, str]:
    if contestant.run is None:
        return {}
    found = {"id": contestant.run.run_id[:SHORT_HASH], "started": contestant.run.started}
    for tag, name in FACTS.items():
        value = contestant.run.tags.get(tag, "")
        found[name] = value[:SHORT_HASH] if name == "commit" else value
    return found | {"network": contestant.network}


def _short_hashes(code: Mapping[str, str]) -> dict[str, str]:
    return {path: " ".join(state[:SHORT_HASH] for state in states.split()) for path, states in code.items()}


def _same_bytes(contestants: Sequence[Contestant], benchmarks: Sequence[str]) -> list[str]:
    """Contestants with the very same predictions: their differences are zero for a reason."""
    notes = []
    for name in benchmarks:
        of_identity: dict[str, list[str]] = {}
        for contestant in contestants:
            entry = contestant.entries.get(name)
            if entry is not None and entry.identity:
                of_identity.setdefault(entry.identity, []).append(contestant.name)
        notes += [
            f"{name}: {' and '.join(same)} are the same predictions, byte for byte"
            for same in of_identity.values()
            if len(same) > 1
        ]
    return notes


def _plain(value: Interval) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {"value": value.value, "interval": value.to_list()}
