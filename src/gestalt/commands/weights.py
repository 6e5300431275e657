"""`gestalt weights`: bring published weights that cannot be shipped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gestalt.commands.arguments import EXIT_ERROR, OutFolder, must_exist, must_not_be_file
from gestalt.errors import ConfigError, DataError

app = typer.Typer(help="Bring published weights that cannot be shipped.", no_args_is_help=True)


@app.command("smurf")
def convert_smurf_weights(
    file: Annotated[
        Path, typer.Argument(help="SMURF's weights as a PyTorch state dict, such as raft_smurf.pt.")
    ],
    out: OutFolder = Path("models/optical_flow/smurf"),
) -> None:
    """Convert SMURF's weights for optical flow and disparity, and say whether they are whole.

    Exits with 1, and writes nothing, when a weight is missing, unexpected or of another shape.
    """
    from gestalt.matching.raft_weights import convert_smurf

    must_not_be_file(out)
    report = convert_smurf(file, out)
    print("\n".join(report.lines()))
    if not report.is_whole:
        raise DataError(f"{file} does not hold SMURF's network; nothing was written")
    print(f"{out} written. Next: gestalt configure motion.matcher=raft motion.raft.weights={out}")


@app.command("list")
def list_backbones() -> None:
    """Name the published backbones that `fetch` knows, with size and licence. Downloads nothing."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from gestalt.features.catalogue import read_catalogue

    table = Table(
        Column("name", no_wrap=True), Column("architecture", overflow="fold"), "MB", "licence", "from"
    )
    for entry in read_catalogue().values():
        size = "" if entry.megabytes is None else f"{entry.megabytes:.0f}"
        place = "a folder" if entry.url is None else "its authors"
        table.add_row(*(Text(cell) for cell in (entry.name, entry.architecture, size, entry.licence, place)))
    Console().print(table)


@app.command("fetch")
def fetch_weights(
    name: Annotated[str, typer.Argument(help="As `gestalt weights list` names it.")],
    origin: Annotated[
        Path | None,
        typer.Option("--from", help="Folder that holds the authors' file; nothing is downloaded then."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. [default: models/backbones/NAME]")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept the licence and download without asking.")
    ] = False,
) -> None:
    """Fetch a published backbone and convert it for features.file.path; says the licence and asks first.

    A download that was interrupted goes on where it stopped.
    """
    from gestalt.features.catalogue import published_backbone
    from gestalt.features.fetching import fetch_backbone

    entry = published_backbone(name)
    folder = Path("models/backbones") / name if out is None else out
    must_not_be_file(folder)
    print(f"{entry.name}: {entry.architecture}, file {entry.file}, licence {entry.licence}")
    if origin is None and entry.url is not None and not yes:
        size = "" if entry.megabytes is None else f" ({entry.megabytes:.0f} MB)"
        if not sys.stdin.isatty():
            raise ConfigError(f"to download {entry.url}{size} under this licence, add --yes")
        typer.confirm(f"Download {entry.url}{size}?", abort=True)
    fetched = fetch_backbone(entry, folder, origin=origin)
    verdict = "as expected" if fetched.is_verified else "not known before: compare it with another source"
    print(f"SHA-256 {fetched.sha256} ({verdict})")
    print(f"{folder} written. Next: gestalt configure features.source=file features.file.path={folder}")


@app.command("check")
def check_weights(
    path: Annotated[Path, typer.Argument(help="A file of weights, or a folder that `fetch` wrote.")],
    architecture: Annotated[
        str, typer.Option(help="Name of timm's architecture, where the tensors do not tell.")
    ] = "",
    patch_size: Annotated[
        int | None, typer.Option(min=1, help="Side of a patch that is expected, px.")
    ] = None,
) -> None:
    """Say what a file of weights holds: architecture, tensors, hash, licence, features of a small image.

    No code in the file is run. Exits with 1 when it is not whole.
    """
    from gestalt.features.examination import examine_backbone

    must_exist(path)
    examination = examine_backbone(path, architecture=architecture, patch_size=patch_size)
    print("\n".join(examination.lines))
    if not examination.is_usable:
        raise typer.Exit(EXIT_ERROR)
