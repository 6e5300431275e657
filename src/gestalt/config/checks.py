"""What neither the type nor the range of a key can say: names of files, lengths of lists, keys that must agree."""

from __future__ import annotations

import re
from pathlib import Path

from gestalt.config.groups import option_names, option_values
from gestalt.config.params import Params
from gestalt.errors import ConfigError

PROTOCOLS = Path(__file__).parents[1] / "evaluation" / "protocols"
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
# What the network is built of, which checks it too: the strides of its levels, and the most stages of its cascade.
STRIDES, MAX_CASCADE = (4, 8, 16, 32), 3


def check_consistency(params: Params) -> None:
    """Raise on the first value that has the right type and range and still cannot work.

    Raises:
        ConfigError: With the key's full path, what is allowed and the value found.
    """
    _check_protocols(params)
    _check_lengths(params)
    _check_fit_batches(params)
    if not DEVICE.fullmatch(params.runtime.device):
        raise ConfigError(f"runtime.device must be auto, cpu, cuda or cuda:N. Got: {params.runtime.device!r}")


def _check_protocols(params: Params) -> None:
    known = sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))
    named = {
        "evaluate.protocols": params.evaluate.protocols,
        "label_quality.protocol": [params.label_quality.protocol],
    }
    for key, protocols in named.items():
        for protocol in protocols:
            if protocol not in known:
                raise ConfigError(
                    f"{key} must name files in src/gestalt/evaluation/protocols: {', '.join(known)}. "
                    f"Got: {protocol!r}"
                )


def _check_lengths(params: Params) -> None:
    network = params.network
    for key, values in (
        ("stage_channels", network.stage_channels),
        ("stage_blocks", network.stage_blocks),
        ("proposals.anchor_sizes_px", network.proposals.anchor_sizes_px),
    ):
        if len(values) != len(STRIDES):
            raise ConfigError(
                f"network.{key} must have {len(STRIDES)} values, one per stride {STRIDES}. Got: {values}"
            )
    cascade = network.instances.cascade_ious
    if not 1 <= len(cascade) <= MAX_CASCADE:
        raise ConfigError(
            f"network.instances.cascade_ious must have 1 to {MAX_CASCADE} values. Got: {cascade}"
        )


def _check_fit_batches(params: Params) -> None:
    """Features are fitted on batches that are there, or that are still to be added: any before the first."""
    if not params.batches:
        return
    for batch in params.fit_batches:
        if batch not in params.batches and batch not in _awaited_batches(params.preset):
            raise ConfigError(
                f"fit_batches must be among batches: {', '.join(params.batches)}. Got: {batch!r}; "
                "name one of them, or add this one first: gestalt data add"
            )


def _awaited_batches(preset: str) -> list[str]:
    """The deliveries that a preset is fitted on without listing them: ``gestalt data add`` brings them."""
    values = option_values("preset", preset) if preset in option_names("preset") else {}
    return [batch for batch in values.get("fit_batches", []) if batch not in values.get("batches", [])]
