"""`gestalt finetune`: few images that people labelled give a trained network their classes, with names.

The one command that learns from labels. It is no stage: the pipeline never sees one.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import DeviceName, OutFolder, must_not_be_file, own_section
from gestalt.commands.predict import FINAL_NETWORK
from gestalt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from gestalt.config.finetune import FinetuneSettings
    from gestalt.data.ranks import Ranks
    from gestalt.data.records import GroundTruthFrame, StereoFrame
    from gestalt.network.checkpoint import NetworkCard
    from gestalt.network.panoptic_model import PanopticModel
    from gestalt.training.class_outputs import ClassOrigins
    from gestalt.training.labelled_frames import DrawnFrames
    from gestalt.training.loop import Log

CURVE, STATE = "curve.csv", "state"
BENCHMARKS = Path("data/benchmarks")


def finetune(
    labels: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of ground truth, each with a source.yaml that names its adapter, as benchmarks have it."
        ),
    ],
    network: Annotated[Path, typer.Option(help="Folder of the network to start from.")] = FINAL_NETWORK,
    out: OutFolder = Path("models/finetuned"),
    share: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the labelled images that is drawn: 0.01, 0.02, 0.05 or any other."
        ),
    ] = None,
    video: Annotated[
        list[Path] | None,
        typer.Option(
            help="Manifest (data/manifests/BATCH.parquet) of video whose labels lie apart from it; may be repeated."
        ),
    ] = None,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a benchmark whose images must not be learnt from; may be repeated. "
            "[default: every folder under data/benchmarks]"
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Value of the section finetune, such as label_space=cityscapes27; may be repeated.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the training; which images are drawn says finetune.draw_seed.")
    ] = 0,
    device: DeviceName = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which images would be drawn, train nothing.")
    ] = False,
) -> None:
    """Teach a trained network classes with names, from a few labelled images; only its heads learn.

    Writes a network folder like any other: `gestalt predict --network models/finetuned` shows class names.
    Interrupted, the same command goes on. Settings are those of the section finetune.
    """
    from gestalt.data.ranks import joined
    from gestalt.runtime import available_cores, start
    from gestalt.training.labelled_frames import draw_frames, find_labelled_frames

    must_not_be_file(out)
    if out.resolve() == network.resolve():
        raise ConfigError(f"--out and --network are both {out}; the network to start from has to stay")
    settings = _settings(share, values or [])
    with joined(device) as (ranks, chosen):
        start(threads=max(1, available_cores() // ranks.size))
        drawn = draw_frames(
            find_labelled_frames(labels, _video_frames(video or [])),
            settings.share,
            seed=settings.draw_seed,
            held_out=_benchmark_frames(held_out),
        )
        if ranks.is_first:
            print(drawn.describe(), flush=True)
        if not dry_run:
            _train(drawn, network, out, settings, seed=seed, ranks=ranks, device=chosen)


def _train(
    drawn: DrawnFrames,
    network: Path,
    out: Path,
    settings: FinetuneSettings,
    *,
    seed: int,
    ranks: Ranks,
    device: torch.device,
) -> None:
    from gestalt.data.label_spaces import load_label_space
    from gestalt.network.checkpoint import save_network
    from gestalt.runtime import available_cores
    from gestalt.training.curve import write_curve
    from gestalt.training.finetuning import finetune as train
    from gestalt.training.finetuning import finetuned_card
    from gestalt.training.labelled_frames import LabelledSamples
    from gestalt.training.named_classes import vocabulary_of

    space = load_label_space(settings.label_space)
    samples = LabelledSamples(drawn.frames, settings.label_space, keep_in_memory=settings.keep_in_memory)
    other, card, sources = _starting_network(network, settings, device)
    sources |= {f"label/{frame.frame_id}": frame.content_hash for frame in drawn.frames}
    with _recorded(out, device) if ranks.is_first else contextlib.nullcontext() as log:
        result = train(
            samples,
            vocabulary_of(space),
            other,
            card.settings,
            card.image_size,
            settings,
            seed=seed,
            device=device,
            cache_dir=out / STATE,
            key={"sources": sources, "threads": available_cores() // ranks.size},
            ranks=ranks,
            log=log,
        )
    if not ranks.is_first:
        return
    metrics = {**samples.metrics, "n_trained": float(result.n_trained)}
    own_card = finetuned_card(result, card.settings, space, sources=sources, metrics=metrics)
    save_network(out, result.network, own_card)
    write_curve(out / CURVE, result.curve)
    # Also what interrupted trainings of other settings left here: nothing goes on from it any more.
    shutil.rmtree(out / STATE, ignore_errors=True)
    if result.origins is not None:
        for line in _describe_origins(result.origins, card, own_card):
            print(line)
    print(f"{out} written: {len(own_card.class_names)} classes of {space.name}.")
    print(f"Next: gestalt predict IMAGES --network {out}")


def _settings(share: float | None, values: list[str]) -> FinetuneSettings:
    from gestalt.config.section_file import replace_values

    chosen = list(values) if share is None else [*values, f"share={share}"]
    settings: FinetuneSettings = replace_values(own_section("finetune"), "finetune", chosen)
    return settings


def _starting_network(
    folder: Path, settings: FinetuneSettings, device: torch.device
) -> tuple[PanopticModel | None, NetworkCard, dict[str, str]]:
    """The network to start from, its card, and its content hash by name."""
    from gestalt.network.checkpoint import WEIGHTS, load_network, read_card
    from gestalt.training.labelled_frames import file_hash

    if settings.start == "scratch":
        # Nothing but the architecture is taken, and whatever trunk the settings name.
        backbone = Path(settings.initial_backbone)
        files = [backbone] if backbone.is_file() else sorted(backbone.glob("*.safetensors"))
        named = files if settings.initial_backbone else []
        return None, read_card(folder), {f"backbone/{file.name}": file_hash(file) for file in named}
    if not folder.is_dir():
        raise DataError(
            f"{folder} holds no trained network; `dvc repro self_training` trains it, `dvc pull` fetches it, "
            "and --network names another one"
        )
    network, card = load_network(folder, device)
    return network, card, {"network": file_hash(folder / WEIGHTS)}


def _video_frames(manifests: list[Path]) -> list[StereoFrame]:
    if not manifests:
        return []
    from gestalt.data.manifest import read_manifest

    return [frame for path in manifests for frame in read_manifest(path)]


def _benchmark_frames(folders: list[Path] | None) -> list[GroundTruthFrame]:
    from gestalt.data.ground_truth import find_ground_truth

    if folders is None:
        folders = sorted(path.parent for path in BENCHMARKS.glob("*/source.yaml"))
    return [frame for folder in folders for frame in find_ground_truth(folder)]


@contextlib.contextmanager
def _recorded(out: Path, device: torch.device) -> Iterator[Log | None]:
    """Curves in the experiment tracker, where this folder is one of experiments."""
    from gestalt.config.loading import PARAMS_FILE, load_params

    if not PARAMS_FILE.exists():
        yield None
        return
    from gestalt.tracking.runs import stage_run

    with stage_run(f"finetune-{out.name}", load_params(), device=str(device)) as run:
        yield run.log


def _describe_origins(origins: ClassOrigins, before: NetworkCard, after: NetworkCard) -> Iterator[str]:
    """A line per class: the pseudo-class whose outputs it started from."""
    n_stuff = len(before.vocabulary.stuff)
    unified = [
        *origins.stuff,
        *(None if origin is None else origin + n_stuff for origin in origins.things),
    ]
    old = before.class_names or tuple(
        f"pseudo-class {number}" for number in before.vocabulary.stuff + before.vocabulary.things
    )
    for name, origin in zip(after.class_names, unified, strict=True):
        yield f"  {name:<16}{'fresh' if origin is None else f'from {old[origin]}'}"
