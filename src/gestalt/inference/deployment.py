"""A trained network as one file that other programs run: ONNX, or an exported program of PyTorch, and a card.

The graph takes an image of fixed size in [0, 1] and gives boxes, scores, classes, masks inside the boxes, and semantic
logits. Scaling images, several views and the panoptic merge stay outside; ``DeployedPredictor`` does them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ConfigError, DataError, MissingDependencyError
from gestalt.inference.class_legend import class_names
from gestalt.inference.detector_graph import INPUTS, OUTPUTS, DetectorGraph
from gestalt.network.architecture import build_panoptic_network
from gestalt.network.checkpoint import WEIGHTS, NetworkCard, read_card, read_weights, weight_mismatches
from gestalt.network.panoptic_model import COLOUR_MEAN
from gestalt.network.panoptic_network import PanopticNetwork

CARD_FORMAT = 1
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}

# The first operator set in which RoIAlign places its samples as the network does is 16; this one is PyTorch's own.
ONNX_OPSET = 18

# Images smaller than a cell of the coarsest level have no anchors to speak of.
MIN_SIDE_PX = 32

# Another runtime adds in another order; beyond this the graph computes something else.
LOGIT_TOLERANCE = 1e-3
# Boxes farther apart are two boxes, not one computed twice.
PARTNER_PX = 1.0
# Low enough that the comparison at export has boxes to compare, whatever the network learned.
PROBE_THRESHOLD = 0.05

# (1, 3, H, W) float32 image and () float32 score threshold in, what `OUTPUTS` names out.
Engine = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class DeploymentCard:
    """What stands beside an exported graph, ``<name>.json``.

    Attributes:
        format: ``onnx`` or ``torch``.
        image_size: (H, W) that the graph takes.
        trained_size: (H, W) of the training images.
        classes: Per unified class its name and whether it is a thing, stuff first; the graph's class ``c`` is
            unified class ``n_stuff + c``, semantic channel ``s`` from 1 on is ``s - 1``.
        n_stuff: Number of stuff classes.
        padding_colour: RGB in [0, 1] for pixels beside a smaller image; it is 0 after normalisation, which
            the graph does itself.
        weights_sha256: Hash of ``network.safetensors`` that the graph was made of.
        graph_sha256: Hash of the graph's file.
        differences: How far the graph was from the network at export, see ``largest_differences``.
    """

    format: str
    image_size: tuple[int, int]
    trained_size: tuple[int, int]
    classes: tuple[tuple[str, bool], ...]
    n_stuff: int
    padding_colour: tuple[float, float, float]
    weights_sha256: str
    graph_sha256: str
    differences: dict[str, float]


def export_network(
    folder: Path, out: Path, *, form: str, size: tuple[int, int] | None = None
) -> DeploymentCard:
    """Write a network as one graph with a card beside it, and compare the graph with the network.

    Args:
        folder: Network folder.
        out: File to write, with the suffix of its format.
        form: ``onnx`` or ``torch``.
        size: (H, W) of the images that the graph will take; the training images' when None.

    Returns:
        The card.

    Raises:
        ConfigError: The format is unknown, the suffix belongs to another one, or the size is too small.
        DataError: The folder is no network folder, or the graph computes something else than the network.
        MissingDependencyError: ONNX is not installed.
    """
    check_target(out, form)
    network, card = _open_network(folder)
    size = size or card.image_size
    if min(size) < MIN_SIDE_PX:
        raise ConfigError(
            f"the image size must be at least {MIN_SIDE_PX}x{MIN_SIDE_PX}. Got: {size[0]}x{size[1]}"
        )
    if form == "onnx":
        _require_onnx()
    graph = DetectorGraph(network, size).eval()
    content = _onnx_bytes(graph) if form == "onnx" else _program_bytes(graph)
    differences = _compare(graph, _onnx_engine(content) if form == "onnx" else _torch_engine(content))
    things = set(card.vocabulary.unified_things)
    deployment = DeploymentCard(
        format=form,
        image_size=size,
        trained_size=card.image_size,
        classes=tuple((name, number in things) for number, name in enumerate(class_names(card))),
        n_stuff=len(card.vocabulary.stuff),
        padding_colour=COLOUR_MEAN,
        weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        graph_sha256=hashlib.sha256(content).hexdigest(),
        differences=differences,
    )
    write_bytes(out, content)
    write_bytes(card_path(out), _card_bytes(deployment))
    return deployment


def check_target(out: Path, form: str) -> None:
    """Refuse a format or a file name before any work.

    Raises:
        ConfigError: The format is unknown, the suffix belongs to another one, or the card would take the place of
            that of a graph of another format.
    """
    if form not in SUFFIXES:
        raise ConfigError(f"--format is {form!r}; known formats: {', '.join(SUFFIXES)}")
    if out.suffix != SUFFIXES[form]:
        raise ConfigError(f"a file of the format {form} ends in {SUFFIXES[form]}. Got: {out}")
    for suffix in set(SUFFIXES.values()) - {out.suffix}:
        if (other := out.with_suffix(suffix)).exists():
            raise ConfigError(f"{card_path(out)} is the card of {other}; choose another name than {out}")


def form_of(out: Path) -> str:
    """The format whose files end as ``out`` does.

    Raises:
        ConfigError: No format does.
    """
    for form, suffix in SUFFIXES.items():
        if out.suffix == suffix:
            return form
    known = " or ".join(f"{suffix} ({form})" for form, suffix in SUFFIXES.items())
    raise ConfigError(f"--out must end in {known}. Got: {out}")


def card_path(graph: Path) -> Path:
    """Where the card of a graph lies."""
    return graph.with_suffix(".json")


def open_deployment(path: Path) -> tuple[Engine, DeploymentCard]:
    """What ``export_network`` wrote, ready to run on the CPU.

    Args:
        path: The graph; its card lies beside it.

    Raises:
        DataError: Graph or card is missing or broken, or they do not belong together.
        MissingDependencyError: It is ONNX and onnxruntime is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; `gestalt network export` writes it")
    deployment = _read_card(card_path(path))
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != deployment.graph_sha256:
        raise DataError(f"{path} is not the graph that {card_path(path)} describes; export it again")
    engine = _onnx_engine(content) if deployment.format == "onnx" else _torch_engine(content)
    return engine, deployment


def _open_network(folder: Path) -> tuple[PanopticNetwork, NetworkCard]:
    """A network on torchvision's parts, whichever backend trained it: folders hold one set of names."""
    card = read_card(folder)
    vocabulary = card.vocabulary
    network = build_panoptic_network(
        card.settings, n_things=len(vocabulary.things), n_stuff=len(vocabulary.stuff)
    )
    weights = read_weights(folder)
    if problems := weight_mismatches(network, weights):
        raise DataError(f"{folder / WEIGHTS} does not fit its card:\n" + "\n".join(problems))
    network.load_weights(weights)
    return network.eval(), card


def _probe(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An image and a threshold that both sides of a comparison see."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return image, torch.tensor(PROBE_THRESHOLD)


@torch.no_grad()
def _export_program(graph: DetectorGraph) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        # torchvision's own use of a function that PyTorch renamed.
        warnings.simplefilter("ignore", FutureWarning)
        return torch.export.export(graph, _probe(graph.size), strict=False)


def _program_bytes(graph: DetectorGraph) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_export_program(graph), buffer)
    return buffer.getvalue()


def _onnx_bytes(graph: DetectorGraph) -> bytes:
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # A sampling ratio that adapts to the box is -1 in torchvision and 0 in ONNX: nothing is lost.
        warnings.filterwarnings("ignore", message="ONNX export for RoIAlign", category=UserWarning)
        program = torch.onnx.export(
            _export_program(graph),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; `pip install -e '.[onnx]'` brings what ONNX needs, "
            "or export with --format torch"
        ) from error


def _onnx_engine(content: bytes) -> Engine:
    _require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor, score_threshold: Tensor) -> tuple[Tensor, ...]:
        values = (image.numpy(), score_threshold.numpy())
        outputs = session.run(list(OUTPUTS), dict(zip(INPUTS, values, strict=True)))
        return tuple(torch.from_numpy(output) for output in outputs)

    return run


def _torch_engine(content: bytes) -> Engine:
    # Registers the suppression and pooling that the program calls.
    import torchvision  # noqa: F401

    program = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def run(image: Tensor, score_threshold: Tensor) -> tuple[Tensor, ...]:
        return tuple(program(image, score_threshold))

    return run


@torch.no_grad()
def _compare(graph: DetectorGraph, engine: Engine) -> dict[str, float]:
    """Differences on the probe image.

    Raises:
        DataError: Semantic logits, which no decision of suppression can change, differ.
    """
    probe = _probe(graph.size)
    differences = largest_differences(graph(*probe), engine(*probe))
    if not differences["semantic_logits"] <= LOGIT_TOLERANCE:
        raise DataError(
            "the exported graph computes other semantic logits than the network "
            f"(differences: {differences}); nothing was written. Try other versions of torch and onnxruntime"
        )
    return differences


def largest_differences(expected: Sequence[Tensor], got: Sequence[Tensor]) -> dict[str, float]:
    """How far the outputs of two runs are apart.

    Boxes are compared with the nearest box of their class, since the order of nearly equal scores, and with it
    what suppression and the limit of boxes keep, may turn with the last bit.

    Args:
        expected: What ``OUTPUTS`` names, of the network.
        got: The same of a graph.

    Returns:
        Largest absolute difference of ``boxes`` (pixels), ``scores``, ``mask_probs`` (over the boxes that
        have a partner) and ``semantic_logits``; ``n_boxes`` of the network, and ``n_unmatched``, those without
        a partner within a pixel.
    """
    ours, theirs = (dict(zip(OUTPUTS, outputs, strict=True)) for outputs in (expected, got))
    logits = (ours["semantic_logits"] - theirs["semantic_logits"]).abs().max()
    distance = torch.cdist(ours["boxes"], theirs["boxes"], p=float("inf"))
    distance = distance.masked_fill(ours["classes"].unsqueeze(1) != theirs["classes"], float("inf"))
    rows, partners = torch.zeros(2, 0, dtype=torch.int64)
    if distance.numel():
        nearest, partner = distance.min(1)
        rows = torch.nonzero(nearest <= PARTNER_PX).squeeze(1)
        partners = partner[rows]
    differences = {
        name: float((ours[name][rows] - theirs[name][partners]).abs().max()) if len(rows) else 0.0
        for name in ("boxes", "scores", "mask_probs")
    }
    n_boxes = len(ours["boxes"])
    return {
        **differences,
        "semantic_logits": float(logits),
        "n_boxes": float(n_boxes),
        "n_unmatched": float(n_boxes - len(rows)),
    }


def _card_bytes(card: DeploymentCard) -> bytes:
    content: dict[str, Any] = {"card_format": CARD_FORMAT, **dataclasses.asdict(card)}
    content["classes"] = [{"name": name, "is_thing": is_thing} for name, is_thing in card.classes]
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _read_card(path: Path) -> DeploymentCard:
    if not path.is_file():
        raise DataError(f"{path} does not exist; `gestalt network export` writes it beside the graph")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("card_format") != CARD_FORMAT:
            raise DataError(f"{path} has another format than {CARD_FORMAT}; export the network again")
        content["classes"] = tuple((entry["name"], entry["is_thing"]) for entry in content["classes"])
        for key in ("image_size", "trained_size", "padding_colour"):
            content[key] = tuple(content[key])
        return DeploymentCard(**content)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not the card of an exported network: {error!r}") from error
