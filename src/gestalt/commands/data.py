"""`gestalt data`: bring own stereo video, look at ground truth before trusting it, convert it between forms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import EXIT_ERROR, must_be_folder, own_section
from gestalt.errors import ConfigError, DataError, name_some

if TYPE_CHECKING:
    import pandas as pd

    from gestalt.data.source import Source
    from gestalt.data.truth_check import TruthReport

# Adapters of forms where a JSON says which pictures count.
LISTED_IN_JSON = ("cityscapes_panoptic", "coco_panoptic")

app = typer.Typer(
    help="Bring own stereo video; check ground truth and convert it between forms.", no_args_is_help=True
)


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
    path: Annotated[
        Path,
        typer.Argument(
            help="data/raw/BATCH, a benchmark folder with source.yaml, or any folder with --adapter."
        ),
    ],
    adapter: Annotated[
        str, typer.Option(help="How the data is laid out, when there is no source.yaml.")
    ] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE told to the adapter; may be repeated.")
    ] = None,
    what: Annotated[
        str, typer.Option(help="video, truth, or auto: whatever the adapter finds there.")
    ] = "auto",
) -> None:
    """Look at all stereo pairs or all ground truth under a folder, without writing anything.

    Exits with 1 when a pair is broken, or when numbers from this ground truth would lie.
    """
    from gestalt.runtime import start

    must_be_folder(path, "PATH")
    if what not in ("auto", "video", "truth"):
        raise ConfigError(f"--what must be auto, video or truth. Got: {what!r}")
    if not adapter and not (path / "source.yaml").exists():
        raise ConfigError(f"{path} holds no source.yaml; say how the data is laid out with --adapter")
    start()
    source = _source(path, adapter, option or [])
    is_sound = [
        check(path, source, adapter)
        for kind, check in (("truth", _check_truth), ("video", _check_video))
        if kind in _kinds(source, what)
    ]
    if not all(is_sound):
        raise typer.Exit(EXIT_ERROR)


@app.command("convert")
def convert_data(
    path: Annotated[
        Path, typer.Argument(help="A benchmark folder with source.yaml, or any root with --adapter.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; nothing may be there.")],
    to: Annotated[str, typer.Option(help="Form to write: coco_panoptic, cityscapes, bdd, bdd_scalabel, ...")],
    adapter: Annotated[
        str, typer.Option(help="How the ground truth is laid out, when there is no source.yaml.")
    ] = "",
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE told to the adapter; may be repeated.")
    ] = None,
    images: Annotated[
        str, typer.Option(help="none, link (hard links, copies on another disk) or copy.")
    ] = "none",
    renumber: Annotated[
        bool, typer.Option(help="Give objects numbers class * 1000 + n, for forms that need them.")
    ] = False,
    verify: Annotated[bool, typer.Option(help="Read everything back and compare it.")] = True,
) -> None:
    """Write ground truth in another form: nothing is lost, or nothing is written and the frame in the way is named."""
    from gestalt.data.conversion import convert_truth
    from gestalt.data.ground_truth import dataset_of_adapter, find_frames
    from gestalt.data.renumbering import renumber_objects
    from gestalt.runtime import start

    must_be_folder(path, "PATH")
    if not adapter and not (path / "source.yaml").exists():
        raise ConfigError(f"{path} holds no source.yaml; say how the ground truth is laid out with --adapter")
    start()
    source = _source(path, adapter, option or [])
    frames = find_frames(source.adapter, source.root, source.options)
    done = convert_truth(
        renumber_objects(frames) if renumber else frames,
        out,
        to,
        dataset_of_adapter(source.adapter, source.options),
        images=images,
        verify=verify,
    )
    state = "read back and equal, classes and instances" if done.is_verified else "not read back"
    print(f"{done.n_frames} frames written to {out} in the form {to}: {state}.")
    if images != "none":
        print(f"{done.n_images} images beside them.")
    if done.without_image:
        print(f"{len(done.without_image)} frames have no image: {name_some(done.without_image)}")
    if not done.keeps_sequences:
        print(f"The form {to} has no place for sequences: each frame is a single image now.")


def _source(path: Path, adapter: str, option: list[str]) -> Source:
    """Where data comes from: what was typed, or what ``source.yaml`` says."""
    from gestalt.data.source import Source, read_source
    from gestalt.delivery import parse_options

    if not adapter and option:
        raise ConfigError(f"--option needs --adapter; the options of {path} stand in {path / 'source.yaml'}")
    return Source(adapter, path, parse_options(option)) if adapter else read_source(path)


def _kinds(source: Source, what: str) -> list[str]:
    """Which of video and truth to check."""
    from gestalt.data.adapters import TRUTH_ADAPTERS, VIDEO_ADAPTERS, truth_adapter, video_adapter

    if what != "auto":
        return [what]
    known = {"truth": set(TRUTH_ADAPTERS), "video": set(VIDEO_ADAPTERS)}
    kinds = [kind for kind, adapters in known.items() if source.adapter in adapters]
    if not kinds:
        every = ", ".join(sorted({*TRUTH_ADAPTERS, *VIDEO_ADAPTERS}))
        raise ConfigError(f"adapter is {source.adapter!r}; known adapters: {every}")
    if len(kinds) == 1:
        return kinds
    # Some layouts hold both, each with options of its own: what is there decides.
    found: list[str] = []
    for kind, find in (("truth", truth_adapter(source.adapter)), ("video", video_adapter(source.adapter))):
        try:
            if next(iter(find(source.root, source.options)), None) is not None:
                found.append(kind)
        except ConfigError:
            kinds.remove(kind)
    if not found and len(kinds) == 2:
        raise DataError(
            f"neither ground truth nor stereo video in the layout of {source.adapter} under {source.root}; "
            "docs/ground_truth.md and docs/data.md show the tree and the options of each adapter"
        )
    # Options that fit neither are explained where video is looked for.
    return found or kinds or ["video"]


def _check_video(path: Path, source: Source, adapter: str) -> bool:
    """Check stereo pairs; whether all can be used."""
    import tempfile

    from gestalt.data.manifest import build_manifest
    from gestalt.delivery import describe_crop, find_video, write_source

    settings, batch = own_section("manifest"), path.resolve().name
    if not adapter:
        table = build_manifest(path, batch, settings)
    else:
        # What is wrong with the options or the layout is said here, in terms of what was typed.
        find_video(adapter, path, source.options)
        with tempfile.TemporaryDirectory() as folder:
            write_source(Path(folder), adapter, str(path.absolute()), dict(source.options))
            table = build_manifest(Path(folder), batch, settings)
    _print_pairs(table)
    sizes = table.loc[table["status"] == "ok", ["height", "width"]].drop_duplicates()
    for size in sorted(sizes.itertuples(index=False, name=None)):
        if crop := describe_crop(size, own_section("frames")):
            print(crop)
    return not (table["status"] != "ok").any()


def _check_truth(path: Path, source: Source, adapter: str) -> bool:
    """Check ground truth; whether numbers from it can be trusted."""
    from gestalt.data.ground_truth import dataset_of_adapter, find_frames
    from gestalt.data.truth_check import check_truth, unlisted_pictures

    frames = find_frames(source.adapter, source.root, source.options)
    dataset = dataset_of_adapter(source.adapter, source.options)
    unlisted = unlisted_pictures(frames) if source.adapter in LISTED_IN_JSON else []
    report = check_truth(frames, dataset, unlisted)
    _print_truth(report, dataset)
    return report.is_sound


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


def _print_truth(report: TruthReport, dataset: str) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(
        "id", Column("class", overflow="fold"), "frames", "pixels", "share", "objects", "tracks", "groups"
    )
    for entry in report.classes:
        share = f"{100 * entry.n_pixels / report.n_pixels:.2f} %"
        counts = (entry.n_objects, entry.n_tracks if report.sequences else 0, entry.n_groups)
        row = (str(entry.raw_id), entry.name, f"{entry.n_frames}", f"{entry.n_pixels}", share)
        table.add_row(*row, *(f"{count}" if count else "" for count in counts))
    console = Console()
    console.print(table)
    sizes = ", ".join(f"{height} x {width} ({n})" for (height, width), n in report.sizes.items())
    print(f"{report.n_readable} of {report.n_frames} annotated frames can be read; sizes: {sizes or 'none'}")
    if report.sequences:
        print(
            f"{len(report.sequences)} sequences of {min(report.sequences.values())} to "
            f"{max(report.sequences.values())} frames"
        )
    print(f"{report.n_images} of {report.n_frames} images are there")
    # Of no pixel at all nothing is void.
    for space, void_share in report.void_shares.items() if report.n_pixels else ():
        print(f"void in {space}: {100 * void_share:.2f} % of all pixels")
    for fault in report.faults:
        print(f"{'ERROR' if fault.is_error else 'note'}: {fault.n} x {fault.kind}")
        for example in fault.examples:
            print(f"  {example}")
        if fault.n > len(fault.examples):
            print(f"  ... and {fault.n - len(fault.examples)} more")
    verdict = (
        "nothing here makes numbers lie" if report.is_sound else "numbers from this ground truth would lie"
    )
    print(f"Raw ids of {dataset}: {verdict}.")
