"""The command ``gestalt``: use a trained network, bring own data, change the configuration, look at results.

Every import of a room happens inside its command, so that ``gestalt --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gestalt.errors import ConfigError, DataError, GestaltError

if TYPE_CHECKING:
    import pandas as pd

    from gestalt.doctor import Finding

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

app = typer.Typer(
    name="gestalt",
    help="Stereo video in, panoptic network out, with no human label. `make run` runs the whole pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data = typer.Typer(help="Bring own stereo video.", no_args_is_help=True)
show = typer.Typer(help="Pictures of what the pipeline sees.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(show, name="show")

NetworkFolder = Annotated[Path, typer.Option(help="Folder of a trained network.")]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.")]
DeviceName = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a user can mend is one line on standard error and exit code 1."""
    try:
        app(args=arguments)
    except GestaltError as error:
        print(f"gestalt: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


@app.command()
def predict(
    source: Annotated[Path, typer.Argument(help="An image, a folder of images or a video.")],
    network: NetworkFolder = Path("models/self_trained"),
    out: OutFolder = Path("outputs/predictions"),
    device: DeviceName = "auto",
) -> None:
    """Segment images or a video with a trained network: overlays, panoptic PNGs, one JSON."""
    from gestalt.inference.paths import predict_path
    from gestalt.runtime import available_cores, choose_device, start

    start(threads=available_cores())
    summary = predict_path(source, network, out, settings=_own("predict"), device=choose_device(device))
    print(f"{summary.n_images} images -> {summary.out}")
    for name, reason in summary.failed:
        print(f"not read: {name}: {reason}", file=sys.stderr)


@show.command()
def motion(
    frame: Annotated[str, typer.Argument(help="Frame id, as in data/manifests/BATCH.parquet.")],
    batch: Annotated[str, typer.Option(help="Batch of the frame; looked for in all when not given.")] = "",
    out: Annotated[Path, typer.Option(help="Folder of the picture.")] = Path("outputs"),
) -> None:
    """Draw optical flow, disparity and moving-object proposals of one frame."""
    from gestalt.config import load_params
    from gestalt.data.images import write_png
    from gestalt.data.manifest import read_manifest
    from gestalt.motion import motion_sheet
    from gestalt.runtime import start

    start()
    params = load_params()
    for name in [batch] if batch else params.batches:
        for candidate in read_manifest(Path("data/manifests") / f"{name}.parquet"):
            if candidate.frame_id == frame:
                path = out / f"{frame}.motion.png"
                write_png(path, motion_sheet(candidate, params.frames, params.motion, params.seed))
                print(path)
                return
    raise DataError(
        f"no usable frame {frame!r} in {batch or ', '.join(params.batches)}; "
        "the column frame_id of data/manifests/*.parquet lists them"
    )


@data.command("add")
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
    """Register stereo video as a batch: writes data/raw/BATCH/source.yaml and adds it to params.yaml."""
    from gestalt.config import load_params
    from gestalt.config.writing import add_batch
    from gestalt.data.adapters import video_adapter
    from gestalt.data.records import check_frame_id

    check_frame_id(batch)
    video_adapter(adapter)
    _must_exist(Path(os.path.expandvars(root)))
    folder = Path("data/raw") / batch
    if batch in load_params().batches or folder.exists():
        raise ConfigError(
            f"batch {batch!r} exists already (in params.yaml or as {folder}); "
            "a batch is immutable, choose a new name"
        )
    write_source(folder, adapter, root, parse_options(option or []))
    add_batch(batch)
    print(f"{folder / 'source.yaml'} written, {batch} added to `batches` in params.yaml.")
    print(f"Next: gestalt data check {folder}, then dvc repro")


@data.command("check")
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
    from gestalt.runtime import start

    _must_exist(path)
    if not adapter and not (path / "source.yaml").exists():
        raise ConfigError(f"{path} holds no source.yaml; say how the video is laid out with --adapter")
    start()
    settings, batch = _own("manifest"), path.resolve().name
    if not adapter:
        table = build_manifest(path, batch, settings)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_source(Path(folder), adapter, str(path.absolute()), parse_options(option or []))
            table = build_manifest(Path(folder), batch, settings)
    _print_pairs(table)
    if (table["status"] != "ok").any():
        raise typer.Exit(EXIT_ERROR)


@app.command()
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


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A shard folder, such as data/pseudo_labels/monday.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    frame: Annotated[list[str] | None, typer.Option(help="Only this frame; may be repeated.")] = None,
    previews: Annotated[bool, typer.Option(help="Also write maps in colour.")] = True,
) -> None:
    """Unpack maps as PNG files with colour previews, and tables as CSV."""
    from gestalt.export import unpack

    n_frames = unpack(folder, out, frame_ids=frame or [], previews=previews)
    print(f"{n_frames} frames -> {out}")


@app.command()
def doctor() -> None:
    """Say what may keep Gestalt from running here, and the fix. Exits with 1 when there is a problem."""
    from gestalt.doctor import PROBLEM, examine

    findings = examine(Path.cwd())
    _print_findings(findings)
    if any(finding.verdict == PROBLEM for finding in findings):
        raise typer.Exit(EXIT_ERROR)


def write_source(folder: Path, adapter: str, root: str, options: dict[str, Any]) -> None:
    """Write ``source.yaml``; a root inside the working directory is stored relative to the file.

    Args:
        folder: Where to write it.
        adapter: Name of the adapter.
        root: Folder of the video; ``${NAME}`` stays as it is, for every machine to expand.
        options: What the adapter is told besides.
    """
    import io

    from ruamel.yaml import YAML

    from gestalt.data.atomic_files import write_bytes

    place = Path(os.path.abspath(root))
    if "${" not in root and place.is_relative_to(Path.cwd()):
        root = os.path.relpath(place, folder.absolute())
    elif "${" not in root:
        root = str(place)
    stream = io.StringIO()
    YAML().dump({"adapter": adapter, "root": root, "options": options}, stream)
    write_bytes(folder / "source.yaml", stream.getvalue().encode())


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``["camera=2", "grey=true"]`` -> ``{"camera": 2, "grey": True}``, values read as YAML.

    Raises:
        ConfigError: A pair has no ``=``.
    """
    from ruamel.yaml import YAML

    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"--option must be KEY=VALUE. Got: {pair!r}")
        options[key] = YAML(typ="safe").load(value)
    return options


def _own(section: str) -> Any:
    """A section of the ``params.yaml`` here, or of the embedded preset where there is none."""
    from gestalt.config import load_section
    from gestalt.config.loading import PARAMS_FILE
    from gestalt.config.presets import default_settings

    return load_section(section) if PARAMS_FILE.exists() else default_settings(section)


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist (seen from {Path.cwd()})")


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
            shape += [f"{first['height']} x {first['width']}", f"{first['stereo_baseline']:.3f} m"]
        table.add_row(*shape)
    Console().print(table)
    reasons = pairs.loc[pairs["status"] != "ok", "reason"].tolist()
    print(f"{len(pairs) - len(reasons)} of {len(pairs)} pairs are usable")
    if reasons:
        print(describe_faults(reasons))


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


if __name__ == "__main__":
    main()
