"""A trained network as a folder: ``network.safetensors`` (weights) and ``card.json`` (what they are)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from gestalt.config.network import NetworkSettings
from gestalt.config.schema import fill
from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ConfigError, DataError
from gestalt.network.architecture import build_network
from gestalt.network.panoptic_model import PanopticModel
from gestalt.panoptic import Vocabulary

WEIGHTS = "network.safetensors"
CARD = "card.json"
CARD_FORMAT = 1


@dataclass(frozen=True)
class NetworkCard:
    """What a folder's weights are.

    Attributes:
        settings: The architecture.
        vocabulary: The thing-stuff split that the outputs follow.
        image_size: (H, W) of the training images.
        sources: Name and content hash of the artefacts it was trained on.
        metrics: Numbers of the training, such as final losses.
        class_names: A name per unified class; empty until somebody matched the classes.
        class_colours: An RGB colour (0..255) per unified class; empty for the default palette.
    """

    settings: NetworkSettings
    vocabulary: Vocabulary
    image_size: tuple[int, int]
    sources: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    class_colours: tuple[tuple[int, int, int], ...] = ()


def save_network(folder: Path, network: PanopticModel, card: NetworkCard) -> None:
    """Write weights and card; equal content gives equal bytes.

    A folder without a card is no network: the card goes first and comes last, so that weights never have another's.

    Raises:
        DataError: The disk is full.
    """
    (folder / CARD).unlink(missing_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.weights().items()}
    write_bytes(folder / WEIGHTS, save(weights))
    content = {
        "format": CARD_FORMAT,
        "network": dataclasses.asdict(card.settings),
        "vocabulary": {"things": card.vocabulary.things, "stuff": card.vocabulary.stuff},
        "image_size": card.image_size,
        "sources": card.sources,
        "metrics": card.metrics,
        "class_names": card.class_names,
        "class_colours": card.class_colours,
    }
    write_bytes(folder / CARD, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def load_network(folder: Path, device: torch.device) -> tuple[PanopticModel, NetworkCard]:
    """Read what ``save_network`` wrote.

    Args:
        folder: Holds weights and card; safetensors cannot run code.
        device: Where the network goes.

    Returns:
        The network in evaluation mode and its card.

    Raises:
        DataError: A file is missing or broken, or weights and card do not fit.
    """
    card = read_card(folder)
    network = build_network(card.settings, card.vocabulary)
    weights = read_weights(folder)
    if problems := weight_mismatches(network, weights):
        raise DataError(f"{folder / WEIGHTS} does not fit its card:\n" + "\n".join(problems))
    network.load_weights(weights)
    return network.to(device).eval(), card


def read_card(folder: Path) -> NetworkCard:
    """The card of a network folder.

    Raises:
        DataError: The card is missing, broken, or of another format.
    """
    path = folder / CARD
    if not path.exists():
        raise DataError(f"{path} does not exist; `dvc repro guided` or `dvc pull` makes a network folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != CARD_FORMAT:
            raise DataError(f"{path} has format {content['format']}; this version reads format {CARD_FORMAT}")
        return NetworkCard(
            settings=fill(NetworkSettings, content["network"], "network"),
            vocabulary=Vocabulary(
                tuple(content["vocabulary"]["things"]), tuple(content["vocabulary"]["stuff"])
            ),
            image_size=(int(content["image_size"][0]), int(content["image_size"][1])),
            sources=dict(content["sources"]),
            metrics=dict(content["metrics"]),
            class_names=tuple(content["class_names"]),
            class_colours=tuple((int(r), int(g), int(b)) for r, g, b in content["class_colours"]),
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, IndexError, ConfigError) as error:
        raise DataError(f"{path} is not a network card: {error!r}") from error


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a network folder, on the CPU.

    Raises:
        DataError: The file is missing or broken.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise DataError(f"{path} does not exist; `dvc repro guided` or `dvc pull` makes a network folder")
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}); make it again") from error
    return weights


def weight_mismatches(network: PanopticModel, weights: dict[str, torch.Tensor]) -> list[str]:
    """One line per weight that is missing, unexpected or of another shape; empty when all fit."""
    own = network.weights()
    lines = [f"missing: {name} {tuple(own[name].shape)}" for name in own if name not in weights]
    lines += [f"unexpected: {name} {tuple(weights[name].shape)}" for name in weights if name not in own]
    lines += [
        f"shape: {name} expected {tuple(own[name].shape)}, got {tuple(weights[name].shape)}"
        for name in own
        if name in weights and own[name].shape != weights[name].shape
    ]
    return lines


def start_from(network: PanopticModel, vocabulary: Vocabulary, folder: Path) -> int:
    """Copy the weights of another trained network where names and shapes agree.

    Outputs per class are copied only when the vocabularies are equal: their rows mean pseudo-classes.

    Args:
        network: Changed in place.
        vocabulary: Its vocabulary.
        folder: The other network.

    Returns:
        Number of weights copied.

    Raises:
        DataError: Not one weight agrees.
    """
    weights = read_weights(folder)
    is_same = read_card(folder).vocabulary == vocabulary
    own = network.weights()
    fitting = {
        name: weight
        for name, weight in weights.items()
        if name in own and own[name].shape == weight.shape and (is_same or ".classify." not in name)
    }
    if not fitting:
        raise DataError(f"no weight of {folder / WEIGHTS} fits this network; check network.* of both")
    network.load_weights({**own, **fitting})
    return len(fitting)
