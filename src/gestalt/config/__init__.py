"""The one configuration: ``params.yaml`` checked against frozen dataclasses, presets composed into it.

Stages call ``load_params`` or ``load_section``; nothing below a stage sees more than its own section.
This package is the only place that imports Hydra and OmegaConf, and only when ``params.yaml`` is read: sections
as such are plain dataclasses, so a machine that only trains needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gestalt.config.loading import load_params, load_section
    from gestalt.config.params import Params

__all__ = ["Params", "load_params", "load_section"]


def __getattr__(name: str) -> Any:
    if name in ("load_params", "load_section"):
        from gestalt.config import loading

        return getattr(loading, name)
    if name == "Params":
        from gestalt.config import params

        return params.Params
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
