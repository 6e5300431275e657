"""The page of results: tables and a chart from what the worktrees of ``make results`` hold."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

WORKSPACES = Path(".cache/results")
PAGE, CHART = Path("docs/results.md"), Path("docs/pictures/results.png")

# The variant, and the row that is its guided network without the self-training.
FULL, WITHOUT_SELF_TRAINING = "full", "without_self_training"
COLOURS = ("#9aa5b1", "#5b8def", "#1f4fa3")
BAR_WIDTH = 0.27
CONVENTIONS = {"PQ": "void-neutral", "PQ_standard": "standard"}
MEASURES = ("PQ", "SQ", "RQ", "PQ_thing", "PQ_stuff", "PQ_standard", "mIoU", "pixel_accuracy")


@dataclass(frozen=True)
class Job:
    """One variant with one seed."""

    variant: str
    seed: int

    @property
    def folder(self) -> Path:
        """Its worktree."""
        return WORKSPACES / f"{self.variant}-{self.seed}"


Read = Callable[[Path, str], "float | None"]


def render(jobs: Sequence[Job], preset: str) -> str:
    """The page: mean and spread over seeds at label level and after each training, and paired differences."""
    variants = list(dict.fromkeys(job.variant for job in jobs))
    by_variant = {variant: [job for job in jobs if job.variant == variant] for variant in variants}
    seeds = sorted({job.seed for job in jobs})
    lines = [
        "# Results",
        "",
        "Made by `make results`. Mean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))} (a seed draws other streets, dictionaries, clusters and weights), "
        f"percent. Preset `{preset}`, rendered video and rendered evaluation sets: **not comparable with "
        "published numbers on real data**. The reported network is the EMA teacher of the self-training, "
        "fixed beforehand. What the numbers mean and why: [findings.md](findings.md).",
        "",
        "Two conventions: PQ leaves pixels out that the prediction leaves void, and true objects that are mostly "
        "under them (void-neutral, the published one, which forgives what a network does not say); PQ_standard "
        "counts them as errors. Protocol `cityscapes19_rendered_min64` and its like: 19 classes, true objects "
        f"below 64 pixels are void.{code_of(jobs)}",
        "",
        f"![PQ of every variant at three levels]({CHART.relative_to(PAGE.parent).as_posix()})",
        "",
        "Bars: mean PQ over seeds, networks as mean over the four 19-class evaluation sets. Dots: the seeds.",
        "",
        "## Pseudo-labels against the truth of their own frames",
        "",
        *table(by_variant, read_labels, MEASURES),
        "",
        "Proposals against moving objects of at least 64 visible pixels, IoU above 0.5:",
        "",
        *table(by_variant, read_proposals, ("precision", "recall")),
        "",
        "## Networks on the evaluation set in Cityscapes' format (19 classes, void-neutral PQ)",
        "",
        "After guided training:",
        "",
        *table(by_variant, read_network("guided", ("cityscapes",)), MEASURES),
        "",
        "After self-training (`full` above is the ablation `without_self_training`):",
        "",
        *table(by_variant, read_network("self_trained", ("cityscapes",)), MEASURES),
        "",
        "## Mean over the four 19-class evaluation sets",
        "",
        "After guided training:",
        "",
        *table(by_variant, read_network("guided", PANOPTIC_BENCHMARKS), MEASURES),
        "",
        "After self-training:",
        "",
        *table(by_variant, read_network("self_trained", PANOPTIC_BENCHMARKS), MEASURES),
        "",
        "## PQ of the self-trained network of `full` on each evaluation set",
        "",
        *per_benchmark(by_variant.get(FULL, [])),
        "",
        "## PQ of each class, `full`",
        "",
        "Networks on the evaluation set in Cityscapes' format. Classes without an object there are left out.",
        "",
        *per_class(by_variant.get(FULL, [])),
        "",
        "## Against `full`, seed by seed",
        "",
        "Networks as mean over the four 19-class evaluation sets. PQ, void-neutral:",
        "",
        *differences(by_variant, "PQ"),
        "",
        "PQ, standard:",
        "",
        *differences(by_variant, "PQ_standard"),
    ]
    return "\n".join(lines) + "\n"


PANOPTIC_BENCHMARKS = ("cityscapes", "kitti", "bdd", "waymo")
BENCHMARKS = (*PANOPTIC_BENCHMARKS, "mots")


def read_labels(folder: Path, measure: str) -> float | None:
    """A measure of the pseudo-labels, percent, mean over batches."""
    files = sorted((folder / "reports/label_quality").glob("*.json"))
    return mean(measure_of(json.loads(path.read_text(encoding="utf-8"))["labels"], measure) for path in files)


def read_proposals(folder: Path, measure: str) -> float | None:
    """Precision or recall of the proposals behind the labels, percent, mean over batches."""
    files = sorted((folder / "reports/metrics").glob("label_quality-*.json"))
    return mean(json.loads(path.read_text(encoding="utf-8"))[measure] for path in files)


def read_network(network: str, benchmarks: Sequence[str]) -> Read:
    """Reader of a network's measure, mean over benchmarks."""

    def read(folder: Path, measure: str) -> float | None:
        files = [folder / f"reports/evaluation/{benchmark}.json" for benchmark in benchmarks]
        if not all(path.exists() for path in files):
            return None
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        return mean(measure_of(found["networks"][network], measure) for found in reports)

    return read


def measure_of(evaluation: dict[str, Any], measure: str) -> float:
    """A measure of one evaluation, percent; PQ and its parts are void-neutral unless they say otherwise."""
    if measure in evaluation:
        return float(evaluation[measure])
    name, _, part = measure.partition("_")
    if part == "standard":
        return float(evaluation["standard"][name])
    quality = evaluation["void_neutral"]
    return float((quality[part] if part else quality)[name])


def table(by_variant: dict[str, list[Job]], read: Read, measures: Sequence[str]) -> list[str]:
    """A Markdown table, a row per variant."""
    lines = [f"| variant | seeds | {' | '.join(measures)} |", "|---" * (len(measures) + 2) + "|"]
    for variant, jobs in by_variant.items():
        folders = [job.folder for job in jobs if read(job.folder, measures[0]) is not None]
        cells = [spread([read(folder, measure) for folder in folders]) for measure in measures]
        lines.append(f"| {variant} | {len(folders)} | {' | '.join(cells)} |")
    return lines


def per_benchmark(jobs: Sequence[Job]) -> list[str]:
    """A Markdown table of the full method, a row per benchmark."""
    lines = ["| evaluation set | guided | self-trained |", "|---|---|---|"]
    for benchmark in BENCHMARKS:
        cells = [
            spread([read_network(network, (benchmark,))(job.folder, "PQ") for job in jobs])
            for network in ("guided", "self_trained")
        ]
        lines.append(f"| {benchmark} | {' | '.join(cells)} |")
    return lines


def per_class(jobs: Sequence[Job]) -> list[str]:
    """A Markdown table of the full method, a row per class that occurs."""
    columns: dict[str, list[dict[str, float]]] = {
        "labels": [read_label_classes(job.folder) for job in jobs],
        "guided": [read_network_classes(job.folder, "guided") for job in jobs],
        "self-trained": [read_network_classes(job.folder, "self_trained") for job in jobs],
    }
    names = dict.fromkeys(name for found in columns.values() for classes in found for name in classes)
    lines = [f"| class | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [spread([classes.get(name) for classes in found]) for found in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def read_label_classes(folder: Path) -> dict[str, float]:
    """PQ of each class that occurs, mean over the batches that have it."""
    found: dict[str, list[float]] = {}
    for path in sorted((folder / "reports/label_quality").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, quality in class_quality(content["labels"]).items():
            found.setdefault(name, []).append(quality)
    return {name: statistics.fmean(values) for name, values in found.items()}


def read_network_classes(folder: Path, network: str) -> dict[str, float]:
    """PQ of each class that occurs in the evaluation set in Cityscapes' format."""
    path = folder / "reports/evaluation/cityscapes.json"
    if not path.exists():
        return {}
    return class_quality(json.loads(path.read_text(encoding="utf-8"))["networks"][network])


def class_quality(evaluation: dict[str, Any]) -> dict[str, float]:
    """Void-neutral PQ by class, of the classes that occur."""
    return {
        row["class"]: row["void_neutral"]["PQ"]
        for row in evaluation["per_class"]
        if row["void_neutral"]["occurs"]
    }


def code_of(jobs: Sequence[Job]) -> str:
    """A sentence that names the commits of the runs; empty where there is none."""
    heads = {head_of(job.folder) for job in jobs if job.folder.exists()}
    return f" Code: commit {', '.join(sorted(heads))}." if heads else ""


def head_of(folder: Path) -> str:
    """The short hash that a worktree is on."""
    found = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def levels() -> dict[str, Read]:
    """Readers of the three levels that variants are compared at."""
    return {
        "labels": read_labels,
        "guided": read_network("guided", PANOPTIC_BENCHMARKS),
        "self-trained": read_network("self_trained", PANOPTIC_BENCHMARKS),
    }


def draw(jobs: Sequence[Job], path: Path) -> None:
    """A bar chart for each convention of PQ: a group per variant, a bar per level, a dot per seed."""
    variants = list(dict.fromkeys(job.variant for job in jobs))
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(2, sharex=True, sharey=True), CONVENTIONS.items()):
        for number, (level, read) in enumerate(levels().items()):
            for group, variant in enumerate(variants):
                found = [read(job.folder, measure) for job in jobs if job.variant == variant]
                known = [value for value in found if value is not None]
                if not known:
                    continue
                middle = group + (number - 1) * BAR_WIDTH
                bar = axes.bar(middle, statistics.fmean(known), BAR_WIDTH * 0.94, color=COLOURS[number])
                bar.set_label(level if level not in axes.get_legend_handles_labels()[1] else None)
                axes.plot([middle] * len(known), known, ".", color="black", markersize=4)
        axes.set_xticks(
            range(len(variants)),
            [variant.replace("without_", "without\n").replace("_", " ") for variant in variants],
        )
        axes.set_ylabel(f"PQ {title}, percent")
        axes.spines[["top", "right"]].set_visible(False)
    if axes.containers:
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def differences(by_variant: dict[str, list[Job]], measure: str) -> list[str]:
    """Paired differences of a measure to ``full``: they leave out what the seed does to both."""
    readers = levels()
    lines = [f"| variant minus full | {' | '.join(readers)} |", "|---" * (len(readers) + 1) + "|"]
    for variant, jobs in by_variant.items():
        if variant == FULL:
            continue
        pairs = [(job.folder, Job(FULL, job.seed).folder) for job in jobs]
        cells = [
            spread([subtract(read(ours, measure), read(full, measure)) for ours, full in pairs], signed=True)
            for read in readers.values()
        ]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    full = [job.folder for job in by_variant.get(FULL, [])]
    guided, self_trained = readers["guided"], readers["self-trained"]
    gain = [subtract(guided(folder, measure), self_trained(folder, measure)) for folder in full]
    lines.append(f"| {WITHOUT_SELF_TRAINING} | | | {spread(gain, signed=True)} |")
    return lines


def subtract(left: float | None, right: float | None) -> float | None:
    """The difference where both exist."""
    return None if left is None or right is None else left - right


def mean(values: Iterable[float]) -> float | None:
    """The mean, or nothing of nothing."""
    known = list(values)
    return statistics.fmean(known) if known else None


def spread(values: Sequence[float | None], *, signed: bool = False) -> str:
    """``mean ± standard deviation`` of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return "not run"
    number = f"{statistics.fmean(known):+.1f}" if signed else f"{statistics.fmean(known):.1f}"
    return f"{number} ± {statistics.stdev(known):.1f}" if len(known) > 1 else number
