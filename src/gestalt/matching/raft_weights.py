"""A RAFT as a folder: ``network.safetensors`` (weights) and ``card.json`` (what they are); SMURF's file read in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gestalt.data.atomic_files import write_bytes
from gestalt.data.weight_files import (
    check_finite,
    enter_part,
    hash_file,
    read_content,
    select_tensors,
    strip_wrappers,
)
from gestalt.data.weight_report import WeightReport, compare_weights
from gestalt.errors import DataError
from gestalt.matching.raft import LAYOUTS, Raft

WEIGHTS = "network.safetensors"
CARD = "card.json"
CARD_FORMAT = 1

# SMURF's published weights are of this variant.
SMURF_VARIANT = "large"
# Wrappers that a network was in when it was saved; each puts its name before every parameter's.
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "raft.")
# Where training scripts put the weights in a file that holds more.
NESTED = ("state_dict", "model_state_dict", "model", "network")


def save_network(network: Raft, folder: Path, card: Mapping[str, Any]) -> None:
    """Write weights and card, each aside and then renamed; equal content gives equal bytes.

    Args:
        network: On any device.
        folder: Made where it does not exist.
        card: What the weights are: recipe, data, seed. Format, variant and content hash are added.

    Raises:
        DataError: The disk is full.
    """
    from safetensors.torch import save

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save(weights)
    # The card goes last and names the weights: an interruption in between cannot pair it with others.
    write_bytes(folder / WEIGHTS, content)
    entries = {
        **card,
        "format": CARD_FORMAT,
        "variant": network.variant,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    write_bytes(folder / CARD, (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode())


def load_network(folder: Path) -> Raft:
    """Read what ``save_network`` wrote.

    Args:
        folder: Holds weights and card; safetensors cannot run code.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        DataError: A file is missing or broken, or weights and card do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    card, path = read_card(folder), folder / WEIGHTS
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != card["weights_sha256"]:
        raise DataError(f"{path} is not the file that {folder / CARD} was written for; make both again")
    network = Raft(card["variant"])
    try:
        weights = load(content)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file ({error}); make it again") from error
    report = compare_weights(network, weights)
    if not report.is_whole:
        raise DataError(f"{path} does not fit its card:\n" + "\n".join(report.lines()))
    network.load_state_dict(weights)
    return network.eval()


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder: format, variant, ``weights_sha256`` and whatever was given to ``save_network``.

    Raises:
        DataError: The card is missing, broken, or of another format.
    """
    path = folder / CARD
    try:
        card = json.loads(_read(path))
        if card["format"] != CARD_FORMAT:
            raise DataError(f"{path} has format {card['format']}; this version reads format {CARD_FORMAT}")
        if card["variant"] not in LAYOUTS or not isinstance(card["weights_sha256"], str):
            raise ValueError(f"variant {card['variant']!r}, hash {card['weights_sha256']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the card of a RAFT: {error!r}") from error
    return dict(card)


def read_smurf(path: Path) -> tuple[Raft, WeightReport]:
    """SMURF's published weights as a network.

    Their names are those of the PyTorch conversion that CUPS uses: torchvision's names, behind ``raft.`` or
    another wrapper's. That conversion looks the correlation up in rows, as our network does; weights for
    torchvision's own order have the same names and shapes and would give a wrong result, but they come with a
    batch normalisation in the context encoder, which the report calls unexpected.

    Args:
        path: A state dict written by ``torch.save``, or a file that holds one under a usual name.

    Returns:
        The network on the CPU, in evaluation mode, with new weights where the report is not whole; and the report.

    Raises:
        DataError: The file cannot be read as weights, has values that are not finite, or one weight twice.

    Source:
        Stone et al., SMURF, CVPR 2021; Hahn et al., CUPS, CVPR 2025.
    """
    network = Raft(SMURF_VARIANT)
    weights = strip_wrappers(read_state_dict(path), WRAPPERS, path)
    check_finite(weights, path)
    report = compare_weights(network, weights)
    if report.is_whole:
        network.load_state_dict(weights)
    return network.eval(), report


def convert_smurf(path: Path, folder: Path) -> WeightReport:
    """Bring SMURF's published weights into the form that ``motion.raft.weights`` names.

    Args:
        path: As for ``read_smurf``.
        folder: Written only when the weights are whole.

    Raises:
        DataError: As for ``read_smurf``.
    """
    network, report = read_smurf(path)
    if report.is_whole:
        card = {
            "recipe": "SMURF (Stone et al., CVPR 2021), converted",
            "source": path.name,
            "source_sha256": hash_file(path),
        }
        save_network(network, folder, card)
    return report


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a file of ``torch.save``, on the CPU, in float32; no code in the file is run.

    Raises:
        DataError: The file is missing, no such file, or holds no weights.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist (seen from {Path.cwd()}); name the file of SMURF's weights")
    content, _ = enter_part(read_content(path), NESTED, path)
    return select_tensors(content, path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; `gestalt weights smurf` and the stage optical_flow write such a folder"
        ) from None
