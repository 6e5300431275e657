"""Pseudo-classes: dense features clustered over many images; every pixel gets a cluster, guided by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gestalt.semantics.labeller import SemanticLabeller

__all__ = ["SemanticLabeller"]


def __getattr__(name: str) -> Any:
    # A machine that only trains codes lacks what labelling images needs.
    if name == "SemanticLabeller":
        from gestalt.semantics.labeller import SemanticLabeller

        return SemanticLabeller
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
