"""`gestalt show`: pictures of what the pipeline sees."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import EXIT_ERROR, must_not_be_file, params_of_batches
from gestalt.errors import ConfigError

if TYPE_CHECKING:
    from gestalt.gallery import DrawnSheets

app = typer.Typer(help="Pictures of what the pipeline sees.", no_args_is_help=True)


@app.command()
def motion(
    frame: Annotated[
        list[str] | None, typer.Argument(help="Frame ids, as in data/manifests/BATCH.parquet.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch of the frames; all of them when not given.")] = "",
    worst: Annotated[
        int,
        typer.Option(
            min=0, help="Instead: the N frames that gave the stage most trouble, failed or least reliable."
        ),
    ] = 0,
    every: Annotated[bool, typer.Option("--all", help="Instead: every usable frame.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("outputs"),
) -> None:
    """Draw everything that the stage `motion` sees and makes of frames, a sheet each.

    Images, optical flow, disparity, reliable pixels, deviation from the ego-motion, the masks of every run,
    what was kept and what was dropped and why, and the proposals. Exits with 1 when a frame could not be drawn.
    """
    must_not_be_file(out)
    if (bool(frame), worst > 0, every).count(True) != 1:
        raise ConfigError("name frames, or give --worst N, or --all: one of the three")
    params, batches = params_of_batches(batch)

    from gestalt.gallery import all_frames, draw_sheets, find_frames, worst_frames
    from gestalt.runtime import start

    start()
    if worst:
        frames = worst_frames(worst, batches)
    elif every:
        frames = all_frames(batches)
    else:
        frames = find_frames(frame or [], batches)
    _print_drawn(draw_sheets(frames, params, out))


@app.command()
def semantics(
    frame: Annotated[
        list[str] | None, typer.Argument(help="Frame ids, as in data/manifests/BATCH.parquet.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch of the frames; all of them when not given.")] = "",
    pixel: Annotated[
        str,
        typer.Option(
            metavar="ROW,COLUMN", help="Show what looks like this pixel, beside what looks like a few others."
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Instead of ids: every usable frame.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("outputs"),
) -> None:
    """Draw how the pixels of frames get their pseudo-classes, a sheet each.

    Features as colours, what looks like a pixel, attention; pseudo-classes at half and at full size, fused by
    depth and refined, each with the same colours; what each step changed; confidence. Exits with 1 when a frame
    could not be drawn.
    """
    must_not_be_file(out)
    if bool(frame) == every:
        raise ConfigError("name frames, or give --all: one of the two")
    chosen = _pixel(pixel) if pixel else None
    params, batches = params_of_batches(batch)

    from gestalt.gallery import all_frames, draw_semantics, find_frames
    from gestalt.runtime import start

    start()
    frames = all_frames(batches) if every else find_frames(frame or [], batches)
    _print_drawn(draw_semantics(frames, params, out, chosen))


@app.command()
def clusters(
    batch: Annotated[str, typer.Option(help="Batch of the frames; all of them when not given.")] = "",
    n_frames: Annotated[
        int, typer.Option(min=1, help="Frames to look at, evenly spread; more show rarer things.")
    ] = 48,
    out: Annotated[Path, typer.Option(help="Folder of the picture.")] = Path("outputs"),
) -> None:
    """Draw one page of all pseudo-classes: the most typical, largest and most uncertain segments of each.

    Exits with 1 when a frame could not be labelled; the page shows the others all the same.
    """
    must_not_be_file(out)
    params, batches = params_of_batches(batch)

    from gestalt.gallery import draw_clusters, spread_frames
    from gestalt.runtime import start

    start()
    path = out / batch / "clusters.png"
    _print_drawn(draw_clusters(spread_frames(n_frames, batches), params, path))


def _pixel(text: str) -> tuple[int, int]:
    """``ROW,COLUMN`` as numbers."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--pixel must be ROW,COLUMN, such as 120,64. Got: {text!r}")
    return int(parts[0]), int(parts[1])


def _print_drawn(drawn: DrawnSheets) -> None:
    """Pictures on standard output, what failed on standard error; exit code 1 if anything did."""
    for path in drawn.paths:
        print(path)
    for name, reason in drawn.failed:
        print(f"not drawn: {name}: {reason}", file=sys.stderr)
    if drawn.failed:
        raise typer.Exit(EXIT_ERROR)
