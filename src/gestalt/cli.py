"""The command ``gestalt``: use a trained network, bring own data, change the configuration, look at results.

Every import of a room happens inside its command, so that ``gestalt --help`` answers at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gestalt.errors import ConfigError, DataError, GestaltError

if TYPE_CHECKING:
    import pandas as pd

    from gestalt.config.network import PredictSettings
    from gestalt.doctor import Finding

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130

# The network that `gestalt predict` takes when none is named.
FINAL_NETWORK = Path("models/self_trained")

app = typer.Typer(
    name="gestalt",
    help="Stereo video in, panoptic network out, with no human label. `make run` runs the whole pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data = typer.Typer(help="Bring own stereo video.", no_args_is_help=True)
show = typer.Typer(help="Pictures of what the pipeline sees.", no_args_is_help=True)
weights = typer.Typer(help="Bring published weights that cannot be shipped.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(show, name="show")
app.add_typer(weights, name="weights")

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
    network: NetworkFolder = FINAL_NETWORK,
    out: OutFolder = Path("outputs/predictions"),
    device: DeviceName = "auto",
    height: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Rows that images are scaled to for the network; maps keep the images' own size. "
            "0 keeps it for the network too. By default predict.height_px of params.yaml; "
            "where that is 0, the height that the network was trained at.",
        ),
    ] = None,
) -> None:
    """Segment images or a video with a trained network: overlays, panoptic PNGs, one JSON.

    Exits with 1 when an image could not be read; the others are predicted all the same.
    """
    from gestalt.inference.paths import PREDICTIONS, predict_path
    from gestalt.runtime import available_cores, choose_device, start

    _must_exist(source)
    _must_not_be_file(out)
    chosen, settings = choose_device(device, key="--device"), _predict_settings(network, height)
    start(threads=available_cores())
    summary = predict_path(source, network, out, settings=settings, device=chosen)
    print(f"{summary.n_images} images -> {summary.out}")
    for name, reason in summary.failed:
        print(f"not read: {name}: {reason}", file=sys.stderr)
    if summary.failed:
        n_failed = len(summary.failed)
        print(
            f"{n_failed} of {summary.n_images + n_failed} images could not be read; "
            f"{out / PREDICTIONS} lists them under `failed`",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_ERROR)


@show.command()
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
    from gestalt.config import load_params

    _must_not_be_file(out)
    if (bool(frame), worst > 0, every).count(True) != 1:
        raise ConfigError("name frames, or give --worst N, or --all: one of the three")
    params = load_params()
    if batch and batch not in params.batches:
        raise ConfigError(f"--batch is {batch!r}; the batches of params.yaml: {', '.join(params.batches)}")

    from gestalt.gallery import all_frames, draw_sheets, find_frames, worst_frames
    from gestalt.runtime import start

    start()
    batches = [batch] if batch else list(params.batches)
    if worst:
        frames = worst_frames(worst, batches)
    elif every:
        frames = all_frames(batches)
    else:
        frames = find_frames(frame or [], batches)
    drawn = draw_sheets(frames, params, out)
    for path in drawn.paths:
        print(path)
    for name, reason in drawn.failed:
        print(f"not drawn: {name}: {reason}", file=sys.stderr)
    if drawn.failed:
        raise typer.Exit(EXIT_ERROR)


@weights.command("smurf")
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

    _must_not_be_file(out)
    report = convert_smurf(file, out)
    print("\n".join(report.lines()))
    if not report.is_whole:
        raise DataError(f"{file} does not hold SMURF's network; nothing was written")
    print(f"{out} written. Next: gestalt configure motion.matcher=raft motion.raft.weights={out}")


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
    from gestalt.delivery import describe_crop, find_video, must_be_folder, parse_options, write_source
    from gestalt.runtime import start

    must_be_folder(path)
    if not adapter and not (path / "source.yaml").exists():
        raise ConfigError(f"{path} holds no source.yaml; say how the video is laid out with --adapter")
    start()
    settings, batch = _own("manifest"), path.resolve().name
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
        if crop := describe_crop(size, _own("frames")):
            print(crop)
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

    _must_not_be_file(out)
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


def _own(section: str) -> Any:
    """A section of the ``params.yaml`` here, or of the embedded preset where there is none."""
    from gestalt.config import load_section
    from gestalt.config.loading import PARAMS_FILE
    from gestalt.config.presets import default_settings

    return load_section(section) if PARAMS_FILE.exists() else default_settings(section)


def _predict_settings(network: Path, height: int | None) -> PredictSettings:
    """The section ``predict`` with the working height that was asked for, or that of the training."""
    import dataclasses

    from gestalt.network.checkpoint import CARD, WEIGHTS, read_card

    if network == FINAL_NETWORK and not all((network / name).is_file() for name in (CARD, WEIGHTS)):
        raise DataError(
            f"{network} holds no trained network; `dvc repro self_training` trains it, `dvc pull` fetches it, "
            "and --network names another one"
        )
    settings: PredictSettings = _own("predict")
    # Objects much larger than those of the training images are not found.
    trained_height = read_card(network).image_size[0]
    return dataclasses.replace(
        settings, height_px=(settings.height_px or trained_height) if height is None else height
    )


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist (seen from {Path.cwd()})")


def _must_not_be_file(out: Path) -> None:
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise DataError(f"results go into a folder, but {path} is a file; choose another place")


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
