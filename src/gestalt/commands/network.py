"""`gestalt network`: what else a trained network is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gestalt.commands.arguments import must_be_folder, parse_size
from gestalt.commands.checkpoints import convert, import_checkpoint

app = typer.Typer(help="Take a trained network elsewhere.", no_args_is_help=True)
app.command("import")(import_checkpoint)
app.command("convert")(convert)


@app.command("export")
def export_graph(
    network: Annotated[
        Path, typer.Argument(help="Folder of a trained network, such as models/self_trained.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .onnx or .pt2; its card .json lies beside it.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx or torch (a program of torch.export). [default: as the ending of --out says]",
        ),
    ] = "",
    size: Annotated[
        str,
        typer.Option(
            metavar="HxW", help="Size of the images it takes. [default: that of the training images]"
        ),
    ] = "",
) -> None:
    """Write a network as one graph: image in; boxes, scores, classes, masks and semantic logits out.

    One image at a time, of one size. The panoptic merge stays outside (docs/serving.md). The graph is compared with
    the network before it is written.
    """
    must_be_folder(network, "the network")
    image_size = parse_size(size) if size else None

    # These take seconds.
    from gestalt.inference.deployment import card_path, check_target, export_network, form_of
    from gestalt.runtime import available_cores, start

    form = form or form_of(out)
    check_target(out, form)
    start(threads=available_cores())
    card = export_network(network, out, form=form, size=image_size)
    height, width = card.image_size
    print(
        f"{out} written: images of {height}x{width}, {len(card.classes)} classes; {card_path(out)} says more"
    )
    found = dict(card.differences)
    n_boxes, n_unmatched = (int(found.pop(name)) for name in ("n_boxes", "n_unmatched"))
    shown = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
    print(f"largest differences to the network, {n_boxes} boxes, {n_unmatched} without a partner: {shown}")
