"""`gestalt predict`: what a trained network sees in images and videos."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gestalt.commands.arguments import (
    EXIT_ERROR,
    DeviceName,
    NetworkFolder,
    OutFolder,
    must_be_folder,
    must_exist,
    must_not_be_file,
    own_section,
)
from gestalt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gestalt.config.network import PredictSettings

# The network that `gestalt predict` takes when none is named.
FINAL_NETWORK = Path("models/self_trained")

# Sizes of views that make sense, relative to the working height.
MIN_VIEW_SCALE, MAX_VIEW_SCALE = 0.01, 8.0


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
            "0 keeps it for the network too. No side gets longer than 4000 pixels. By default predict.height_px "
            "of params.yaml; where that is 0, the height that the network was trained at.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images of one size at once. By default predict.batch_size.")
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            metavar="SCALES",
            help="Average over views of these sizes, such as 0.75,1.0,1.25: better and slower. "
            "By default predict.view_scales.",
        ),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            help="Average each view with its mirror image. By default predict.view_flip.",
            show_default=False,
        ),
    ] = None,
    video: Annotated[
        bool | None,
        typer.Option(
            "--video/--no-video",
            help="Link objects over the images, which are one sequence in the order of their names, or several where "
            "they are called <city>_<sequence>_<frame> as in Cityscapes: ids and colours stay from frame to frame. By "
            "default for video files only. Section tracks of params.yaml says how.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="overlay (a picture per image, one video of a video), coco (panoptic PNGs, predictions.json) or "
            "cityscapes (16-bit instanceIds.png: id * 1000 + n for objects, id for the rest, 0 for neither; the "
            "ids of Cityscapes where the network's card names all classes so, otherwise pseudo-classes counted from "
            "1 in the network's order; instanceIds.json lists them). May be repeated. [default: overlay, coco]",
        ),
    ] = None,
) -> None:
    """Segment images or a video with a trained network: overlays, panoptic PNGs, one JSON.

    Exits with 1 when an image could not be read; the others are predicted all the same.
    """
    must_exist(source)
    must_not_be_file(out)
    if network != FINAL_NETWORK:
        must_be_folder(network, "--network")
    scales = None if views is None else _scales(views)

    # These take seconds.
    from gestalt.inference.formats import FORMS_WITH_TRACKS, PREDICTIONS, USUAL_FORMS, check_forms
    from gestalt.inference.paths import predict_path
    from gestalt.runtime import available_cores, choose_device, start

    forms = tuple(form or USUAL_FORMS)
    check_forms(forms)
    chosen = choose_device(device, key="--device")
    given: dict[str, Any] = {
        "batch_size": batch,
        "view_scales": scales,
        "view_flip": flip,
    }
    settings = dataclasses.replace(
        _predict_settings(network, height), **{key: given[key] for key in given if given[key] is not None}
    )
    start(threads=available_cores())
    summary = predict_path(
        source,
        network,
        out,
        settings=settings,
        device=chosen,
        forms=forms,
        is_video=video,
        tracks=own_section("tracks"),
    )
    linked = ""
    if summary.n_tracks is not None and set(forms) & set(FORMS_WITH_TRACKS):
        linked = f", {_count(summary.n_tracks, 'object')} followed"
    print(f"{_count(summary.n_images, 'image')}{linked} -> {summary.out}")
    for name, reason in summary.failed:
        print(f"not read: {name}: {reason}", file=sys.stderr)
    if summary.failed:
        n_failed = len(summary.failed)
        n_all = _count(summary.n_images + n_failed, "image")
        listed = f"; {out / PREDICTIONS} lists them under `failed`" if "coco" in forms else ""
        print(f"{n_failed} of {n_all} could not be read{listed}", file=sys.stderr)
        raise typer.Exit(EXIT_ERROR)


def _count(number: int, what: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _scales(text: str) -> list[float]:
    """``0.75,1.0`` as numbers."""
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(MIN_VIEW_SCALE <= scale <= MAX_VIEW_SCALE for scale in scales):
        raise ConfigError(
            f"--views must be numbers from {MIN_VIEW_SCALE} to {MAX_VIEW_SCALE:g}, such as 0.75,1.0,1.25. Got: {text!r}"
        )
    return scales


def _predict_settings(network: Path, height: int | None) -> PredictSettings:
    """The section ``predict`` with the working height that was asked for, or that of the training."""
    from gestalt.inference.predictor import at_trained_height
    from gestalt.network.checkpoint import CARD, WEIGHTS, read_card

    if missing := [name for name in (CARD, WEIGHTS) if not (network / name).is_file()]:
        hint = f"--network must be the folder of one, such as {FINAL_NETWORK}"
        if network == FINAL_NETWORK:
            hint = (
                "`dvc repro self_training` trains it, `dvc pull` fetches it, and --network names another one"
            )
        raise DataError(f"{network} holds no trained network ({' and '.join(missing)} missing); {hint}")
    settings: PredictSettings = own_section("predict")
    if height is not None:
        return dataclasses.replace(settings, height_px=height)
    return at_trained_height(settings, read_card(network))
