"""`gestalt compare`: runs and folders of predictions side by side, in numbers and in pictures."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import must_not_be_file, own_section

if TYPE_CHECKING:
    from gestalt.contestants import Contestant
    from gestalt.evaluation.bootstrap import Interval
    from gestalt.evaluation.comparison import Comparison

# Where files of earlier states are put together while they are looked at: on the disk of DVC's cache, for hard links.
SCRATCH = Path(".cache")
# Intervals of PQ fit a terminal with so many columns; all intervals are on the page.
WIDE_TERMINAL = 100
HEADERS = {"PQ_thing": "thing", "PQ_stuff": "stuff", "pixel_accuracy": "acc."}


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Two or more: recorded runs (id, beginning of an id, or name; RUN/NETWORK says which network) or "
            "folders of predictions. The others are compared with the first. NAME=RUN gives a short name.",
        ),
    ],
    network: Annotated[
        str, typer.Option(help="Which network of a run, or of a folder that holds several.")
    ] = "self_trained",
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this benchmark; may be repeated. Also says what a folder predicts that is not named so."
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Protocols, one per data set. By default evaluate.protocols of params.yaml."),
    ] = None,
    frames: Annotated[int, typer.Option(min=0, help="Images to show per benchmark; 0 for none.")] = 8,
    width: Annotated[int, typer.Option(min=64, help="Widest picture, pixels.")] = 512,
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("reports/comparison"),
    fetch: Annotated[
        bool, typer.Option(help="Ask the DVC remote for predictions that the cache does not hold.")
    ] = True,
    log: Annotated[bool, typer.Option(help="Keep the page and the differences in MLflow.")] = True,
) -> None:
    """Compare runs or predictions: metrics with intervals, differences, parameters, the same images side by side.

    Predictions of a run come from DVC's cache, whatever the workspace holds now. Where they are gone, the numbers
    that the run recorded are shown.

    Examples: `gestalt compare 4db7 423e` · `gestalt compare 423e/guided 423e` ·
    `gestalt compare before=4db7 after=423e --benchmark kitti --frames 20` ·
    `gestalt compare data/predictions/kitti/guided data/predictions/kitti/self_trained`
    """
    must_not_be_file(out)

    from gestalt.contest import hold_contest, log_contest, write_contest
    from gestalt.contestants import common_benchmarks, find_contestants
    from gestalt.runtime import start
    from gestalt.tracking.recorded_runs import find_run, open_records
    from gestalt.tracking.store import repository_root

    start()
    root, wanted = repository_root(), list(benchmark or [])
    contestants = find_contestants(
        runs,
        root=root,
        network=network,
        benchmark=wanted[0] if len(wanted) == 1 else "",
        find_run=lambda text: find_run(*open_records(root), text),
        can_fetch=fetch,
    )
    benchmarks = common_benchmarks(contestants, wanted)
    (root / SCRATCH).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compare-", dir=root / SCRATCH) as scratch:
        contest = hold_contest(
            contestants,
            benchmarks,
            list(protocol or own_section("evaluate").protocols),
            root=root,
            scratch=Path(scratch),
            n_frames=frames,
            width_px=width,
        )
    page = write_contest(contest, out)
    if log:
        log_contest(contest, page, root)
    _print_tables(contestants, [part.comparison for part in contest.parts])
    for note in contest.notes:
        print(note, file=sys.stderr)
    print(page)


def _print_tables(contestants: Sequence[Contestant], comparisons: Sequence[Comparison]) -> None:
    """The headline on the terminal, in the primary convention; contestants by their letters."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from gestalt.audit.comparison_page import letter
    from gestalt.evaluation.comparison import METRICS

    console = Console()
    letters = {entry.name: letter(place) for place, entry in enumerate(contestants)}
    for entry in contestants:
        console.print(
            f"[bold]{letters[entry.name]}[/]  {entry.name}  [dim]{entry.origin}[/]", highlight=False
        )
    table = Table(box=SIMPLE, pad_edge=False)
    is_wide = console.width >= WIDE_TERMINAL
    for _ in ("benchmark", "contestant"):
        table.add_column("", no_wrap=True)
    for metric in METRICS:
        for name in (HEADERS.get(metric, metric), *(("95 %",) if is_wide and metric == METRICS[0] else ())):
            table.add_column(name, justify="right", no_wrap=True)
    for comparison in comparisons:
        primary, base = comparison.protocol.primary, letters[comparison.reference]
        for place, (name, result) in enumerate(comparison.results.items()):
            cells = [_terminal(result.numbers[primary].get(metric)) for metric in METRICS]
            bounds = [_bounds(result.numbers[primary].get(METRICS[0]))] * is_wide
            table.add_row("" if place else comparison.benchmark, letters[name], cells[0], *bounds, *cells[1:])
        for name, result in comparison.results.items():
            if changes := result.differences.get(primary):
                cells = [_terminal(changes.get(metric), is_change=True) for metric in METRICS]
                bounds = [_bounds(changes.get(METRICS[0]), is_change=True)] * is_wide
                table.add_row("", f"{letters[name]} - {base}", cells[0], *bounds, *cells[1:])
        table.add_section()
    console.print(table)
    console.print("[dim]* the 95 % interval over images excludes zero[/]", highlight=False)


def _terminal(value: Interval | None, *, is_change: bool = False) -> str:
    if value is None:
        return ""
    if not is_change:
        return f"{value.value:.1f}"
    return f"{value.value:+.1f}{'*' if value.excludes_zero else ' '}"


def _bounds(value: Interval | None, *, is_change: bool = False) -> str:
    if value is None or not value.is_known:
        return ""
    return f"{value.low:+.1f} {value.high:+.1f}" if is_change else f"{value.low:.1f} {value.high:.1f}"
