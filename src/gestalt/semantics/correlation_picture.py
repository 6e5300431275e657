"""Histograms of a training of codes: what feature correlations look like, and what code correlations became.

What to look for (the authors of STEGO in its issue 23): most random pairs lie left of their shift and end at code
correlation 0; of pairs of a crop with itself a part lies right of it and ends near 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gestalt.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"self": "a crop with itself", "neighbour": "with a neighbour", "random": "with a random crop"}
PANEL_INCHES = (4.0, 3.2)
# Rarer cosines are a pixel or two.
LOWEST_SHARE = 1e-4


def draw_correlations(record: Mapping[str, Any], step: int | None = None) -> Figure:
    """Targets and code correlations of held-out crops, a panel for each kind of pair.

    Args:
        record: Of ``TrainedCodes``.
        step: One of the compared steps; None takes the selected one.

    Raises:
        DataError: No comparison was made at that step.
    """
    from matplotlib.figure import Figure

    wanted = record["selected_step"] if step is None else step
    checks = {check["step"]: check for check in record["checks"]}
    if wanted not in checks:
        known = ", ".join(str(number) for number in checks)
        raise DataError(f"codes were compared at the steps {known}. Got: {wanted}")
    histograms = checks[wanted]["histograms"]
    figure = Figure(
        figsize=(PANEL_INCHES[0] * len(histograms), PANEL_INCHES[1]), layout="constrained", dpi=120
    )
    panels = figure.subplots(1, len(histograms), squeeze=False)[0]
    for panel, (kind, counts) in zip(panels, histograms.items(), strict=True):
        shift = record["shifts"][kind]
        for what, colour, label in (
            ("targets", "#8c8c8c", "features"),
            ("codes", "#0b6e99", "codes"),
        ):
            shares = [count / max(sum(counts[what]), 1) for count in counts[what]]
            edges = [2 * place / len(shares) - 1 for place in range(len(shares) + 1)]
            panel.stairs(shares, edges, fill=True, color=colour, alpha=0.45, label=label)
        panel.axvline(shift, color="#b3261e", linewidth=1.2, label="shift")
        panel.set_title(f"{TITLES[kind]}, shift {shift:.2f}", fontsize=10)
        panel.set(xlabel="cosine", xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1), yscale="log")
        panel.set_ylim(bottom=LOWEST_SHARE)
    panels[0].set_ylabel("share of pairs")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(f"correlations of held-out crops after {wanted} steps", fontsize=11)
    return figure
