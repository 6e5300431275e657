"""What neither the type nor the range of a key can say: names of files, keys that must agree."""

from __future__ import annotations

import re
from pathlib import Path

from gestalt.config.groups import option_names, option_values
from gestalt.config.network import check_network
from gestalt.config.params import Params
from gestalt.errors import ConfigError

PROTOCOLS = Path(__file__).parents[1] / "evaluation" / "protocols"
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_consistency(params: Params) -> None:
    """Raise on the first value that has the right type and range and still cannot work.

    Raises:
        ConfigError: With the key's full path, what is allowed and the value found.
    """
    _check_protocols(params)
    check_network(params.network)
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
