"""`gestalt data`: bring own stereo video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import EXIT_ERROR, own_section
from gestalt.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(help="Bring own stereo video.", no_args_is_help=True)


@app.command("add")
def add_data(
    batch: Annotated[str, typer.Argument(help="Name of the new batch: letters, digits, _, - and dots.")],
    adapter: Annotated[
        str, typer.Option(help="How the video is laid out: cityscapes, kitti_raw, folder, ...")
    ],
    root: Annotated[
        str, typer.Option(help="Folder that holds the video; may hold ${NAME} of the environment.")
    ],
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE told to the adapter; may be repeated.")
    ] = None,
) -> None:
    """Register stereo video as a batch: writes data/raw/BATCH/source.yaml and adds it to params.yaml.

    Writes nothing when there is no stereo pair to use.
    """
    from gestalt.config import load_params
    from gestalt.config.writing import add_batch
    from gestalt.data.source import locate
    from gestalt.delivery import (
        check_batch_name,
        describe_crop,
        find_video,
        first_size,
        parse_options,
        write_source,
    )

    check_batch_name(batch)
    folder, params = Path("data/raw") / batch, load_params()
    if batch in params.batches or folder.exists():
        raise ConfigError(
            f"batch {batch!r} exists already (in params.yaml or as {folder}); "
            "a batch is immutable, choose a new name"
        )
    place, options = locate(Path.cwd(), root, origin=Path("--root")), parse_options(option or [])
    size = first_size(find_video(adapter, place, options), place)
    write_source(folder, adapter, root, options)
    add_batch(batch)
    print(f"{folder / 'source.yaml'} written, {batch} added to `batches` in params.yaml.")
    if crop := describe_crop(size, params.frames):
        print(crop)
    print(f"Next: gestalt data check {folder}, then dvc repro")


@app.command("check")
def check_data(
    path: Annotated[Path, typer.Argument(help="data/raw/BATCH, or any folder of video with --adapter.")],
    adapter: Annotated[
        str, typer.Option(help="How the video is laid out, when there is no source.yaml.")
    ] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE told to the adapter; may be repeated.")
    ] = None,
) -> None:
    """Find and check the stereo pairs under a folder, without writing anything.

    Exits with 1 when a pair is broken.
    """
    import tempfile

    from gestalt.data.manifest import build_manifest
    from gestalt.delivery import describe_crop, find_video, must_be_folder, parse_options, write_source
    from gestalt.runtime import start

    must_be_folder(path)
    if not adapter and not (path / "source.yaml").exists():
        raise ConfigError(f"{path} holds no source.yaml; say how the video is laid out with --adapter")
    start()
    settings, batch = own_section("manifest"), path.resolve().name
    if not adapter:
        table = build_manifest(path, batch, settings)
    else:
        options = parse_options(option or [])
        # What is wrong with the options or the layout is said here, in terms of what was typed.
        find_video(adapter, path, options)
        with tempfile.TemporaryDirectory() as folder:
            write_source(Path(folder), adapter, str(path.absolute()), options)
            table = build_manifest(Path(folder), batch, settings)
    _print_pairs(table)
    sizes = table.loc[table["status"] == "ok", ["height", "width"]].drop_duplicates()
    for size in sorted(sizes.itertuples(index=False, name=None)):
        if crop := describe_crop(size, own_section("frames")):
            print(crop)
    if (table["status"] != "ok").any():
        raise typer.Exit(EXIT_ERROR)


def _stereo_baseline(metres: float) -> str:
    return "one camera" if math.isnan(metres) else f"{metres:.3f} m"


def _print_pairs(pairs: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.table import Table

    from gestalt.data.manifest import describe_faults

    table = Table("sequence", "pairs", "broken", "size", "stereo baseline")
    for sequence, members in pairs.groupby("sequence"):
        usable = members[members["status"] == "ok"]
        shape = [str(sequence), str(len(members)), str(len(members) - len(usable))]
        if len(usable):
            first = usable.iloc[0]
            shape += [f"{first['height']} x {first['width']}", _stereo_baseline(first["stereo_baseline"])]
        table.add_row(*shape)
    Console().print(table)
    reasons = pairs.loc[pairs["status"] != "ok", "reason"].tolist()
    print(f"{len(pairs) - len(reasons)} of {len(pairs)} pairs are usable")
    if reasons:
        print(describe_faults(reasons))
