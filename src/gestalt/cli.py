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
    from gestalt.config.params import Params
    from gestalt.doctor import Finding
    from gestalt.gallery import DrawnSheets

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
    _must_not_be_file(out)
    if (bool(frame), worst > 0, every).count(True) != 1:
        raise ConfigError("name frames, or give --worst N, or --all: one of the three")
    params, batches = _params_of_batches(batch)

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


@show.command()
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
    _must_not_be_file(out)
    if bool(frame) == every:
        raise ConfigError("name frames, or give --all: one of the two")
    chosen = _pixel(pixel) if pixel else None
    params, batches = _params_of_batches(batch)

    from gestalt.gallery import all_frames, draw_semantics, find_frames
    from gestalt.runtime import start

    start()
    frames = all_frames(batches) if every else find_frames(frame or [], batches)
    _print_drawn(draw_semantics(frames, params, out, chosen))


@show.command()
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
    _must_not_be_file(out)
    params, batches = _params_of_batches(batch)

    from gestalt.gallery import draw_clusters, spread_frames
    from gestalt.runtime import start

    start()
    path = out / batch / "clusters.png"
    _print_drawn(draw_clusters(spread_frames(n_frames, batches), params, path))


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


@weights.command("list")
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


@weights.command("fetch")
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
    _must_not_be_file(folder)
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


@weights.command("check")
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

    _must_exist(path)
    examination = examine_backbone(path, architecture=architecture, patch_size=patch_size)
    print("\n".join(examination.lines))
    if not examination.is_usable:
        raise typer.Exit(EXIT_ERROR)


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


def _params_of_batches(batch: str) -> tuple[Params, list[str]]:
    """All parameters, and the batch that was named, or every one."""
    from gestalt.config import load_params

    params = load_params()
    if batch and batch not in params.batches:
        raise ConfigError(f"--batch is {batch!r}; the batches of params.yaml: {', '.join(params.batches)}")
    return params, [batch] if batch else list(params.batches)


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
