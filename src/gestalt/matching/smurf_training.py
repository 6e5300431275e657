"""The command that trains the network of displacements without the pipeline, and the folder that is its result.

``python -m gestalt.matching.smurf_training --images pairs.npz --out folder`` needs little more than torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gestalt.config.section_file import read_section
from gestalt.data.training_command import run_training, training_parser
from gestalt.errors import MissingDependencyError
from gestalt.matching.smurf_loop import NAME, TrainedNetwork, train_optical_flow
from gestalt.matching.smurf_records import forget_training, last_losses, write_curve
from gestalt.matching.training_pairs import read_pairs
from gestalt.runtime import choose_device

if TYPE_CHECKING:
    from gestalt.config.optical_flow import OpticalFlowSettings

SETTINGS = Path(__file__).parents[1] / "conf" / NAME / "embedded.yaml"


def main() -> None:
    """Train on the pairs of one NPZ file; run it again to go on after an interruption."""
    parser = training_parser(
        "gestalt.matching.smurf_training",
        main.__doc__,
        settings=SETTINGS,
        example="steps=1000 crop.height=160",
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="NPZ of pairs; see training_pairs.read_pairs"
    )
    arguments = parser.parse_args()
    run_training("smurf_training", lambda: _train_folder(arguments))


def save_training(
    folder: Path,
    result: TrainedNetwork,
    settings: OpticalFlowSettings,
    *,
    seed: int,
    sources: Mapping[str, str],
) -> None:
    """Write network and card; ``motion.raft.weights`` can name the folder.

    Args:
        folder: Gets ``network.safetensors`` and ``card.json``.
        result: Of a training of RAFT.
        settings: Section ``optical_flow``, the recipe.
        seed: The experiment's.
        sources: Name and content hash of what it was trained on.

    Raises:
        DataError: The disk is full.
    """
    from gestalt.matching.raft import Raft
    from gestalt.matching.raft_weights import save_network

    assert isinstance(result.network, Raft)
    card = {
        "recipe": dataclasses.asdict(settings),
        "sources": dict(sources),
        "seed": seed,
        "is_finished": result.is_finished,
        "losses": last_losses(result.curve),
    }
    save_network(result.network, folder, card)


def read_settings(path: Path, overrides: Sequence[str]) -> OpticalFlowSettings:
    """The section from a file of its own, where nothing composes ``params.yaml``.

    Args:
        path: YAML or JSON with every key of the section; YAML needs PyYAML.
        overrides: ``key=value`` or ``section.key=value`` below ``optical_flow``.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of the wrong type or out of range.
        MissingDependencyError: A YAML file, and nothing that reads it.
        DataError: There is no such file.
    """
    from gestalt.config.optical_flow import OpticalFlowSettings

    settings: OpticalFlowSettings = read_section(path, OpticalFlowSettings, NAME, overrides)
    return settings


def _train_folder(arguments: argparse.Namespace) -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise MissingDependencyError(
            "the network is written with safetensors, which is missing: pip install safetensors"
        )
    settings = read_settings(arguments.settings, arguments.overrides)
    pairs, device = read_pairs(arguments.images), choose_device(arguments.device, key="--device")
    images = hashlib.sha256(arguments.images.read_bytes()).hexdigest()
    started = time.perf_counter()
    result = train_optical_flow(
        pairs,
        settings,
        seed=arguments.seed,
        device=device,
        cache_dir=arguments.out / "state",
        key={"images": images},
        max_seconds=arguments.max_seconds,
    )
    save_training(
        arguments.out, result, settings, seed=arguments.seed, sources={arguments.images.name: images}
    )
    write_curve(arguments.out / "curve.csv", result.curve)
    if result.is_finished:
        forget_training(result.folder)
    report = {
        "finished": result.is_finished,
        "pairs": len(pairs),
        "seconds": round(time.perf_counter() - started, 1),
        **last_losses(result.curve),
    }
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main()
