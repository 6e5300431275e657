"""Commands around the pipeline: change its configuration, unpack its results, examine the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import EXIT_ERROR, must_not_be_file

if TYPE_CHECKING:
    from gestalt.doctor import Finding


def configure(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Presets and values: `preset=embedded`, `ablation=without_motion`, `motion.runs=4`."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference, write nothing.")] = False,
    table: Annotated[
        Path | None, typer.Option(help="Write the reference of all parameters here (Markdown) and stop.")
    ] = None,
) -> None:
    """Compose presets and values into params.yaml, keeping its comments, and show what changes."""
    from gestalt.config import writing

    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(writing.parameter_table(), encoding="utf-8")
        print(table)
        return
    difference = writing.configure(overrides or [], write=not dry_run)
    print(difference or "params.yaml stays as it is", end="" if difference else "\n")


def export(
    folder: Annotated[Path, typer.Argument(help="A shard folder, such as data/pseudo_labels/monday.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    frame: Annotated[list[str] | None, typer.Option(help="Only this frame; may be repeated.")] = None,
    previews: Annotated[bool, typer.Option(help="Also write maps in colour.")] = True,
) -> None:
    """Unpack maps as PNG files with colour previews, and tables as CSV."""
    from gestalt.export import unpack

    must_not_be_file(out)
    n_frames = unpack(folder, out, frame_ids=frame or [], previews=previews)
    print(f"{n_frames} frames -> {out}")


def doctor() -> None:
    """Say what may keep Gestalt from running here, and the fix. Exits with 1 when there is a problem."""
    from gestalt.doctor import PROBLEM, examine

    findings = examine(Path.cwd())
    _print_findings(findings)
    if any(finding.verdict == PROBLEM for finding in findings):
        raise typer.Exit(EXIT_ERROR)


def _print_findings(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "note": "yellow", "problem": "bold red"}
    table = Table("", "found", "", "fix")
    for finding in findings:
        verdict = Text(finding.verdict, styles[finding.verdict])
        table.add_row(Text(finding.name), Text(finding.found), verdict, Text(finding.fix))
    Console().print(table)
