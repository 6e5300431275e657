"""`gestalt network import` and `gestalt network convert`: networks of other code, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gestalt.commands.arguments import must_be_folder, must_exist, must_not_be_file, parse_size
from gestalt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gestalt.data.weight_report import WeightReport

# What files can be written for, and the endings that tell them apart.
ENDINGS = {"detectron2": (".pth", ".pkl"), "cups": (".ckpt",)}
# Weights of a kind that the table names before the rest is counted only.
SHOWN = 6


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(help="A published checkpoint: CUPS' .ckpt, or detectron2's .pth or .pkl.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, such as models/cups.")],
    part: Annotated[
        str,
        typer.Option(help="student or teacher, where self-training kept both; CUPS publishes the student."),
    ] = "student",
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="data/vocabulary.json: take what fits for these classes and leave the rest random, as a network to "
            "start a training from. Without it the checkpoint must be whole and brings its own classes."
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="HxW", help="Size of the images that predictions are made at.")
    ] = "1024x2048",
) -> None:
    """Bring a published network into a folder that `gestalt predict --network` and trainings take.

    Prints which weights fit. No code in the file is run. Exits with 1, and writes nothing, when a weight is
    missing or has another shape and no vocabulary is given.
    """
    must_exist(checkpoint)
    must_not_be_file(out)
    if vocabulary is not None:
        must_exist(vocabulary)
    image_size = parse_size(size)

    # These take seconds.
    from gestalt.config.presets import default_settings
    from gestalt.network.checkpoint_files import import_network, must_be_foreign
    from gestalt.panoptic import Vocabulary

    must_be_foreign(checkpoint)
    _must_not_replace_another(out, checkpoint)
    found = import_network(
        checkpoint,
        out,
        default_settings("network", "paper"),
        part=part,
        vocabulary=None if vocabulary is None else Vocabulary.load(vocabulary),
        image_size=image_size,
    )
    _print_report(found.report)
    print(f"{found.n_things} thing and {found.n_stuff} stuff classes in the file, SHA-256 {found.sha256}")
    if found.left_out:
        print(f"left out: objects of {', '.join(found.left_out)}")
    after = f"gestalt predict IMAGES --network {out}"
    if vocabulary is not None:
        after = f"gestalt configure guided.initial_network={out}"
    print(f"{out} written. Next: {after}")


def convert(
    network: Annotated[
        Path, typer.Argument(help="Folder of a trained network, such as models/self_trained.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .pth or .pkl for detectron2, .ckpt for CUPS.")],
    to: Annotated[str, typer.Option(help="detectron2 or cups: who is to open the file.")] = "detectron2",
) -> None:
    """Write a network as a file that detectron2 or the authors' code of CUPS opens.

    Only networks that detectron2 has can be converted, such as those of the preset `network=paper`.
    """
    must_be_folder(network, "the network")
    if to not in ENDINGS:
        raise ConfigError(f"--to must be {' or '.join(ENDINGS)}. Got: {to!r}")
    if out.suffix.lower() not in ENDINGS[to]:
        raise ConfigError(f"--out must end with {' or '.join(ENDINGS[to])} for {to}. Got: {out.name}")

    # This takes seconds.
    from gestalt.network.checkpoint_files import convert_network

    convert_network(network, out)
    print(f"{out} written")


def _must_not_replace_another(out: Path, checkpoint: Path) -> None:
    """Raise a ``DataError`` where ``out`` holds a network that did not come from a file of this name."""
    from gestalt.network.checkpoint import CARD, read_card

    if (out / CARD).exists() and not any(
        source.startswith(f"{checkpoint.name} (") for source in read_card(out).sources
    ):
        raise DataError(
            f"{out} holds a network that is not from {checkpoint.name}; choose another --out, or delete it first"
        )


def _print_report(report: WeightReport) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table("weights", Column("number", justify="right"), Column("which", overflow="fold"))
    table.add_row("matched", str(report.fitting), "")
    kinds = {"missing": report.missing, "unexpected": report.unexpected, "other shape": report.misshapen}
    for kind, entries in kinds.items():
        names = "\n".join(entries[:SHOWN])
        if len(entries) > SHOWN:
            names += f"\nand {len(entries) - SHOWN} more"
        table.add_row(kind, str(len(entries)), Text(names))
    Console().print(table)
