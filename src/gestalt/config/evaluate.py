"""Settings of the sections ``evaluate`` and ``label_quality``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class EvaluateSettings:
    """Which protocols turn predictions into numbers."""

    protocols: list[str] = setting(
        "one protocol per data set, by file name in src/gestalt/evaluation/protocols; each names its data set"
    )


@dataclass(frozen=True)
class LabelQualitySettings:
    """How pseudo-labels and proposals are measured against truth."""

    protocol: str = setting("protocol of the pseudo-labels, a file name as in evaluate.protocols")
    min_object_px: list[int] = setting(
        "sizes in pixels that proposals are measured at: smaller true objects need not be found", low=1
    )
