"""The command that trains a backbone without the pipeline, and the folder that is its result.

``python -m gestalt.features.distillation_training --images frames.npz --out folder`` needs torch and NumPy;
``torchrun --nproc_per_node=8 -m gestalt.features.distillation_training ...`` uses several GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from gestalt.config.section_file import read_section
from gestalt.data.atomic_files import written_aside
from gestalt.data.curve import mean_of_rows, write_rows
from gestalt.data.ranks import joined
from gestalt.data.training_command import run_training, training_parser
from gestalt.data.training_state import forget_state
from gestalt.errors import DataError
from gestalt.features.dense import save_features
from gestalt.features.distillation_loop import COLUMNS, CurveRow, TrainedBackbone, train_features
from gestalt.features.distillation_monitors import NAME, same_sequence_share
from gestalt.features.training_images import TrainingImages, read_images
from gestalt.features.vit import VitLayout
from gestalt.features.vit_features import VitFeatures

if TYPE_CHECKING:
    from gestalt.config.distillation import DistillationSettings

SETTINGS = Path(__file__).parents[1] / "conf" / NAME / "embedded.yaml"
# What a machine without safetensors writes instead of the two files of features; `--pack` makes those from it.
CHECKPOINT = "checkpoint.pt"
# Half precision is enough for weights of a frozen backbone, and halves the file.
STORAGE = torch.float16
# Frames that the retrieval of the report looks at, evenly spread, and how many at once.
RETRIEVAL_FRAMES, FRAMES_AT_ONCE = 512, 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on the frames of one file; run it again to go on after an interruption."""
    parser = training_parser(
        "gestalt.features.distillation_training",
        main.__doc__,
        settings=SETTINGS,
        example="steps=1000 views.global_px=96",
    )
    parser.add_argument("--images", type=Path, help="NPZ or NPY of frames; see training_images.read_images")
    parser.add_argument(
        "--pack", type=Path, metavar=CHECKPOINT, help="train nothing: make features of this file, here"
    )
    parsed = parser.parse_args(arguments)
    if (parsed.images is None) == (parsed.pack is None):
        parser.error("either --images or --pack is needed")
    work = _pack if parsed.images is None else _train_folder
    run_training("distillation_training", lambda: work(parsed))


def read_settings(path: Path, overrides: Sequence[str]) -> DistillationSettings:
    """The section from a file of its own, where nothing composes ``params.yaml``.

    Args:
        path: YAML or JSON with every key of the section; YAML needs PyYAML.
        overrides: ``key=value`` or ``section.key=value`` below ``distillation``.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of the wrong type or out of range.
        MissingDependencyError: A YAML file, and nothing that reads it.
        DataError: There is no such file.
    """
    from gestalt.config.distillation import DistillationSettings

    settings: DistillationSettings = read_section(path, DistillationSettings, NAME, overrides)
    return settings


def save_training(
    folder: Path,
    result: TrainedBackbone,
    settings: DistillationSettings,
    *,
    seed: int,
    sources: Mapping[str, str],
) -> None:
    """Write the teacher's backbone as features, in half precision, with a card that says how it was made.

    Args:
        folder: Gets ``weights.safetensors`` and ``card.json``; ``checkpoint.pt`` where safetensors is missing.
        result: Of a training.
        settings: Section ``distillation``, the recipe.
        seed: The experiment's.
        sources: Name and content hash of what it was trained on.

    Raises:
        DataError: The disk is full.
    """
    source = {"name": NAME, "licence": "that of the frames", **dict(sources)}
    record = {
        "recipe": dataclasses.asdict(settings),
        "seed": seed,
        "is_finished": result.is_finished,
        "losses": last_rows(result.curve),
    }
    if importlib.util.find_spec("safetensors") is not None:
        _save(folder, result.backbone.layout, result.backbone.state_dict(), source, record)
        return
    state = {name: value.to("cpu", STORAGE) for name, value in result.backbone.state_dict().items()}
    layout = dataclasses.asdict(result.backbone.layout)
    content = {"teacher": state, "layout": layout, "texts": json.dumps([source, record])}
    with written_aside(folder / CHECKPOINT) as aside:
        torch.save(content, aside)


def pack_checkpoint(path: Path, folder: Path) -> None:
    """Write the features of a ``checkpoint.pt`` that a machine without safetensors left.

    Raises:
        DataError: The file is missing, damaged or something else, or the disk is full.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        layout, (source, record) = VitLayout(**content["layout"]), json.loads(content["texts"])
        _save(folder, layout, content["teacher"], source, record)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; --pack names the {CHECKPOINT} of a training") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no {CHECKPOINT} of this training, or damaged: {reason}") from error


def last_rows(curve: Sequence[CurveRow]) -> dict[str, float]:
    """Means of the losses and measures over the last tenth of the rows."""
    names = [name for name in COLUMNS[1:-1] if curve and name in curve[-1]]
    return mean_of_rows(curve, names)


@torch.no_grad()
def retrieve_sequences(result: TrainedBackbone, images: TrainingImages) -> dict[str, float]:
    """How often the frame that CLS finds nearest is of the same sequence, beside chance; empty without sequences.

    Frames of a sequence look alike, so features worth anything find them; it is a check, and nothing is chosen by it.
    """
    if images.sequences is None or len(images) < 2:
        return {}
    chosen = images.usable[:: -(-len(images) // RETRIEVAL_FRAMES)]
    features = VitFeatures(result.backbone.layout)
    features.network = result.backbone
    device = next(result.backbone.parameters()).device
    found = []
    for start in range(0, len(chosen), FRAMES_AT_ONCE):
        frames = torch.from_numpy(images.frames[chosen[start : start + FRAMES_AT_ONCE]]).to(device)
        cls = features.extract(frames.permute(0, 3, 1, 2).float() / 255).cls
        assert cls is not None
        found.append(cls)
    names = [images.sequences[number] for number in chosen]
    share, chance = same_sequence_share(functional.normalize(torch.cat(found), dim=1), names)
    return {"same_sequence_share": round(share, 4), "same_sequence_chance": round(chance, 4)}


def _save(
    folder: Path,
    layout: VitLayout,
    state: Mapping[str, torch.Tensor],
    source: Mapping[str, Any],
    record: Mapping[str, Any],
) -> None:
    features = VitFeatures(layout, source=source)
    features.network.load_state_dict(state)
    save_features(features, folder, record=record, storage=STORAGE)


def _pack(arguments: argparse.Namespace) -> None:
    pack_checkpoint(arguments.pack, arguments.out)


def _train_folder(arguments: argparse.Namespace) -> None:
    settings = read_settings(arguments.settings, arguments.overrides)
    images = read_images(arguments.images)
    with arguments.images.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with joined(arguments.device) as (ranks, device):
        started = time.perf_counter()
        result = train_features(
            images,
            settings,
            seed=arguments.seed,
            device=device,
            cache_dir=arguments.out / "state",
            key={"images": digest},
            ranks=ranks,
            max_seconds=arguments.max_seconds,
        )
        if not ranks.is_first:
            return
        sources = {"images": arguments.images.name, "sha256": digest}
        save_training(arguments.out, result, settings, seed=arguments.seed, sources=sources)
        rows = [dict.fromkeys(COLUMNS, 0.0) | row for row in result.curve]
        write_rows(arguments.out / "curve.csv", rows, COLUMNS)
        if result.is_finished:
            forget_state(result.folder)
        report = {
            "finished": result.is_finished,
            "images": len(images),
            "constant_images_left_out": images.n_constant,
            "seconds": round(time.perf_counter() - started, 1),
            "images_per_second": round(result.images_per_second, 2),
            **retrieve_sequences(result, images),
            **last_rows(result.curve),
        }
        print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main()
