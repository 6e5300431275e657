"""Networks and backbones in the files of other code, both ways.

Read are the published checkpoints of CUPS and what detectron2 writes, and ResNet weights of DINO, torchvision and
detectron2 for the trunk. Written is what detectron2 and the authors' loader open. Code in a file is never run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gestalt.config.network import NetworkSettings, check_network
from gestalt.data.atomic_files import write_bytes
from gestalt.data.weight_files import (
    check_finite,
    enter_part,
    hash_file,
    read_content_without_classes,
    select_tensors,
    strip_wrappers,
)
from gestalt.data.weight_report import WeightReport, compare_tensors
from gestalt.errors import ConfigError, DataError
from gestalt.network.architecture import build_network, build_panoptic_network
from gestalt.network.checkpoint import CARD, WEIGHTS, NetworkCard, read_card, read_weights, save_network
from gestalt.network.detectron2_names import check_expressible, from_detectron2, to_detectron2
from gestalt.network.inferred_settings import count_classes, infer_settings
from gestalt.network.panoptic_model import COLOUR_MEAN, COLOUR_STD, PanopticModel
from gestalt.panoptic import Vocabulary

# The networks that a checkpoint of self-training holds.
PARTS = ("student", "teacher")
# What stands before the names of the teacher in the checkpoints of CUPS.
TEACHER = "teacher_model."
# Where training scripts put the weights in a file that holds more.
NESTED = ("state_dict", "model_state_dict", "model")
BACKBONE_NESTED = ("teacher", "model_ema", "student", *NESTED, "backbone")
# Wrappers that a network was in when it was saved; each puts its name before every tensor's.
WRAPPERS = ("module.", "_orig_mod.", "model.")
BACKBONE_WRAPPERS = (*WRAPPERS, "backbone.", "bottom_up.", "network.", "encoder.")
# Buffers that older versions of detectron2 keep beside the weights.
COLOURS = {"pixel_mean": COLOUR_MEAN, "pixel_std": COLOUR_STD}
# A normalisation counts the batches of its training; the count serves nothing afterwards and some files lack it.
STATISTIC, COUNTER = ".running_mean", ".num_batches_tracked"
TRUNK, THEIR_TRUNK = "backbone.trunk.", "backbone.bottom_up."
# A backbone that was adopted lies in a folder of these files, and is of this kind.
BACKBONE_WEIGHTS, BACKBONE_CARD, BACKBONE_KIND = "weights.safetensors", "card.json", "resnet"
# Who wrote a file: detectron2 asks for it in a pickle, and takes names as they are where it is there.
AUTHOR = "Gestalt"


@dataclass(frozen=True, eq=False)
class NetworkCheckpoint:
    """A panoptic network out of a file of other code.

    Attributes:
        tensors: By our names, float32 on the CPU; those that we have no name for keep the file's.
        settings: The architecture, as far as the tensors tell it; the rest as was given.
        n_things: Thing classes T; 0 where the file has no box head.
        n_stuff: Stuff classes S; 0 where the file has no semantic head.
        report: The file against a network of these settings and counts, in detectron2's names. Where a count is 0, a
            network with one such class.
        sha256: Of the whole file.
        left_out: Classes and functions of other code that the file names, none of which was loaded.
    """

    tensors: dict[str, Tensor]
    settings: NetworkSettings
    n_things: int
    n_stuff: int
    report: WeightReport
    sha256: str
    left_out: tuple[str, ...]


def read_network_checkpoint(
    path: Path, settings: NetworkSettings, *, part: str = PARTS[0]
) -> NetworkCheckpoint:
    """A panoptic network as CUPS publishes it and detectron2 writes it.

    Args:
        path: A Lightning ``.ckpt`` (``state_dict`` with ``model.`` before every name, and ``teacher_model.`` before
            those of the teacher), or detectron2's ``.pth`` or ``.pkl`` (``model``). Optimisers, options and callbacks
            in it are left out.
        settings: What the tensors do not tell, such as sizes of anchors: those of the preset ``paper`` for CUPS. Counts
            and widths are taken from the file.
        part: ``student``, which is what the authors' loader takes, or ``teacher``, which self-training averages.

    Raises:
        DataError: The file is missing, damaged, holds no panoptic network or not this part of one, has one weight
            twice, weights that are not finite, or expects other colours.
        ConfigError: ``part`` is unknown.
    """
    if part not in PARTS:
        raise ConfigError(f"the part of a checkpoint must be {' or '.join(PARTS)}. Got: {part!r}")
    must_be_foreign(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the file of a checkpoint in it")
    if not path.is_file():
        raise DataError(f"{path} does not exist (seen from {Path.cwd()}); name the file of a checkpoint")
    content, left_out = read_content_without_classes(path)
    entry, _ = enter_part(content, NESTED, path)
    named = strip_wrappers(_choose_part(select_tensors(entry, path), part, path), WRAPPERS, path)
    _check_colours(named, path)
    theirs = _with_counters({name: tensor for name, tensor in named.items() if name not in COLOURS})
    check_finite(theirs, path)
    tensors = from_detectron2(theirs)
    n_things, n_stuff = count_classes(tensors)
    settings = infer_settings(tensors, settings)
    try:
        check_network(settings)
    except ConfigError as error:
        raise DataError(f"{path} holds a network that cannot be built here: {error}") from error
    own = _empty_network(settings, n_things=max(n_things, 1), n_stuff=max(n_stuff, 1)).weights()
    report = compare_tensors(to_detectron2(own), theirs)
    if not report.fitting:
        raise DataError(
            f"{path} must hold a panoptic network under detectron2's names, such as "
            "roi_heads.mask_head.predictor.weight. Got:\n" + "\n".join(report.lines())
        )
    return NetworkCheckpoint(tensors, settings, n_things, n_stuff, report, hash_file(path), left_out)


def must_be_foreign(path: Path) -> None:
    """Raise a ``DataError`` where ``path`` is a network folder of Gestalt, or the weights or the card in one."""
    folder = path if path.is_dir() else path.parent
    if (folder / CARD).is_file() and (path.is_dir() or path.name in (CARD, WEIGHTS)):
        raise DataError(
            f"{path} is a network of Gestalt already, there is nothing to import; give its folder to commands that "
            f"take a network: --network {folder}"
        )


def load_checkpoint(
    checkpoint: NetworkCheckpoint, vocabulary: Vocabulary, *, backend: str = "torchvision", seed: int = 0
) -> PanopticModel:
    """A network with the weights of a checkpoint wherever name and shape agree, and random ones elsewhere.

    Args:
        checkpoint: As it was read.
        vocabulary: The classes of the network. Outputs of classes fit where it has as many as the checkpoint.
        backend: The library that the parts come from.
        seed: Of the random weights.

    Returns:
        The network on the CPU, in evaluation mode.
    """
    torch.manual_seed(seed)
    network = build_network(dataclasses.replace(checkpoint.settings, backend=backend), vocabulary)
    own = network.weights()
    fitting = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if name in own and own[name].shape == tensor.shape
    }
    network.load_weights({**own, **fitting})
    return network.eval()


def unified_vocabulary(n_things: int, n_stuff: int) -> Vocabulary:
    """The vocabulary of a network whose pseudo-classes nobody wrote down: their ids are those of the unified space.

    Stuff s is pseudo-class s and thing t is S + t, as CUPS numbers its predictions.
    """
    return Vocabulary(tuple(range(n_stuff, n_stuff + n_things)), tuple(range(n_stuff)))


def import_network(
    path: Path,
    out: Path,
    settings: NetworkSettings,
    *,
    part: str = PARTS[0],
    vocabulary: Vocabulary | None = None,
    image_size: tuple[int, int],
) -> NetworkCheckpoint:
    """Bring a checkpoint of other code into the form of ``load_network``.

    Args:
        path: See ``read_network_checkpoint``.
        out: Folder to write.
        settings: See ``read_network_checkpoint``.
        part: See ``read_network_checkpoint``.
        vocabulary: Classes of the network to write. Then a checkpoint that does not have all of its weights is taken
            too, such as one without a semantic head, and the others are random: a network to start a training from.
            None takes the checkpoint's own classes, and refuses one that lacks a weight.
        image_size: (H, W) that predictions are made at; the files do not tell it.

    Returns:
        What was read.

    Raises:
        DataError: As ``read_network_checkpoint``, or the checkpoint lacks a weight and no vocabulary is given.
    """
    checkpoint = read_network_checkpoint(path, settings, part=part)
    if vocabulary is None:
        if checkpoint.report.missing or checkpoint.report.misshapen:
            raise DataError(
                f"{path} does not hold a whole panoptic network, so nothing was written. To start a training from what "
                "it has, name the classes to train with --vocabulary\n" + "\n".join(checkpoint.report.lines())
            )
        vocabulary = unified_vocabulary(checkpoint.n_things, checkpoint.n_stuff)
    network = load_checkpoint(checkpoint, vocabulary)
    card = NetworkCard(
        settings=checkpoint.settings,
        vocabulary=vocabulary,
        image_size=image_size,
        sources={f"{path.name} ({part})": checkpoint.sha256},
    )
    save_network(out, network, card)
    return checkpoint


def convert_network(folder: Path, path: Path) -> None:
    """Write a network folder as a file that other code opens.

    Args:
        folder: Of a network, see ``save_network``.
        path: ``.pth`` or ``.pkl`` for detectron2's ``DetectionCheckpointer``, ``.ckpt`` for the loader of CUPS. Appears
            whole or not at all.

    Raises:
        DataError: The folder is none, or its weights are not those of its card.
        ConfigError: Detectron2 has no such network, or the file would have another ending.
    """
    card = read_card(folder)
    check_expressible(card.settings)
    weights = read_weights(folder)
    n_things, n_stuff = len(card.vocabulary.things), len(card.vocabulary.stuff)
    own = _empty_network(card.settings, n_things=n_things, n_stuff=n_stuff).weights()
    report = compare_tensors(own, weights)
    if not report.is_whole:
        raise DataError(f"{folder} holds weights that do not fit its card:\n" + "\n".join(report.lines()))
    write_bytes(path, _encode(to_detectron2(weights), path))


def load_backbone(network: PanopticModel, path: Path) -> WeightReport:
    """Give the trunk of a network weights that were trained without it.

    Args:
        network: Changed in place; its pyramid and heads stay.
        path: A ResNet under torchvision's or detectron2's names: DINO's ``dino_resnet50_pretrain.pth``, a training
            checkpoint of DINO (its teacher), ``dino_RN50_pretrain_d2_format.pkl``; or a folder that
            `gestalt weights fetch` wrote.

    Returns:
        The file against the trunk, in torchvision's names. Heads in the file count as unexpected.

    Raises:
        DataError: The file cannot be read, or a weight of the trunk is missing or of another shape.
    """
    own = network.weights()
    trunk = {name.removeprefix(TRUNK): tensor for name, tensor in own.items() if name.startswith(TRUNK)}
    tensors = _read_backbone(path)
    report = compare_tensors(trunk, tensors)
    if report.missing or report.misshapen:
        raise DataError(
            f"{path} does not hold the trunk of this network (network.block, network.stage_blocks and the like):\n"
            + "\n".join(report.lines())
        )
    network.load_weights({**own, **{f"{TRUNK}{name}": tensors[name] for name in trunk}})
    return report


def _read_backbone(path: Path) -> dict[str, Tensor]:
    """Tensors of a ResNet under torchvision's names, and of heads under the file's."""
    if path.is_dir():
        path = _adopted_weights(path)
    if not path.is_file():
        raise DataError(
            f"{path} does not exist (seen from {Path.cwd()}); `gestalt weights list` names what can be fetched"
        )
    content, _ = read_content_without_classes(path)
    entry, _ = enter_part(content, BACKBONE_NESTED, path)
    tensors = strip_wrappers(select_tensors(entry, path), BACKBONE_WRAPPERS, path)
    check_finite(tensors, path)
    # detectron2's names of a trunk begin with these two; torchvision's are left as they are.
    own = from_detectron2(
        {
            f"{THEIR_TRUNK}{name}" if re.match(r"stem\.|res\d\.", name) else name: tensor
            for name, tensor in tensors.items()
        }
    )
    return _with_counters({name.removeprefix(TRUNK): tensor for name, tensor in own.items()})


def _adopted_weights(folder: Path) -> Path:
    """The file of weights in a folder of an adopted backbone, which must be a ResNet."""
    try:
        card = json.loads((folder / BACKBONE_CARD).read_text(encoding="utf-8"))
        kind = card.get("kind")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder} must hold {BACKBONE_CARD} and {BACKBONE_WEIGHTS}, as `gestalt weights fetch` writes them "
            f"({error})"
        ) from error
    if kind != BACKBONE_KIND:
        raise DataError(f"{folder} must hold a backbone of kind {BACKBONE_KIND}. Got: {kind}")
    return folder / BACKBONE_WEIGHTS


def _choose_part(tensors: Mapping[str, Tensor], part: str, path: Path) -> dict[str, Tensor]:
    teacher = {
        name.removeprefix(TEACHER): tensor for name, tensor in tensors.items() if name.startswith(TEACHER)
    }
    if part == "teacher":
        if not teacher:
            raise DataError(
                f"{path} holds no teacher; only checkpoints of self-training do. Take the student"
            )
        return teacher
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(TEACHER)}


def _check_colours(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a network that was trained on colours of another order or spread, where the file says so."""
    for name, expected in COLOURS.items():
        found = tensors[name].flatten().tolist() if name in tensors else list(expected)
        # Colours of 0..255 are the same after normalisation.
        if not any(_is_near(found, [value * scale for value in expected]) for scale in (1, 255)):
            raise DataError(
                f"{path}: {name} must be {list(expected)}, or 255 times that, for RGB images. Got: {found}"
            )


def _is_near(found: list[float], expected: list[float]) -> bool:
    return len(found) == len(expected) and all(
        abs(one - other) <= 0.01 * other for one, other in zip(found, expected, strict=True)
    )


def _with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors and a count of 0 for each normalisation whose count the file lacks."""
    counters = {
        name.removesuffix(STATISTIC) + COUNTER: torch.tensor(0)
        for name in tensors
        if name.endswith(STATISTIC)
    }
    return {**counters, **tensors}


def _empty_network(settings: NetworkSettings, *, n_things: int, n_stuff: int) -> PanopticModel:
    """A network with names and shapes but without values."""
    with torch.device("meta"):
        return build_panoptic_network(settings, n_things=n_things, n_stuff=n_stuff)


def _encode(weights: Mapping[str, Tensor], path: Path) -> bytes:
    kind = path.suffix.lower()
    if kind == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        return pickle.dumps({"model": arrays, "__author__": AUTHOR}, protocol=4)
    content = io.BytesIO()
    if kind == ".pth":
        torch.save({"model": dict(weights), "__author__": AUTHOR}, content)
    elif kind == ".ckpt":
        torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}, content)
    else:
        raise ConfigError(
            f"a network is written as .pth or .pkl (detectron2) or .ckpt (CUPS). Got: {path.name}"
        )
    return content.getvalue()
