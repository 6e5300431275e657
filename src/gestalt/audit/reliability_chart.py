"""The reliability of confidences as one SVG: share of hits over score, bin by bin, beside the line of right scores."""

from __future__ import annotations

import math
from html import escape

from gestalt.evaluation.calibration import Calibration, ReliabilityBin

WIDTH, SIDE = 340, 280
LEFT, TOP, BOTTOM = 48, 58, 36
BASE = TOP + SIDE
HEIGHT = BASE + BOTTOM
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

# Colours of the report page; those after the comma where the picture stands alone.
INK, SOFT, GRID = "var(--ink, #1c2430)", "var(--soft, #68758a)", "var(--line, #d5dae2)"
SHARE, TOO_SURE, TOO_SHY = "var(--accent, #2f6fde)", "var(--bad, #c9372c)", "var(--good, #1f845a)"


def reliability_chart(calibration: Calibration, title: str) -> str:
    """A picture of a reliability table.

    A dot per bin stands at the mean score and the share of hits; right scores lie on the diagonal. A line leads from
    each dot to the diagonal: red where scores promise too much, green where they promise too little. All bins hold
    about as many masks, so each counts the same in the expected calibration error.

    Args:
        calibration: Without masks, the picture says so.
        title: Plain text.

    Returns:
        SVG text, complete enough to be a file of its own.
    """
    numbers, more = "no mask has a score", ""
    if calibration.n_masks:
        numbers = f"n = {calibration.n_masks}, calibration error {calibration.expected_error:.3f}"
        more = f"Brier {calibration.brier:.3f}"
        more += "" if math.isnan(calibration.auroc) else f", AUROC {calibration.auroc:.3f}"
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}" '
        'style="font: 11px system-ui, sans-serif">'
        + _text(LEFT, 14, title, colour=INK)
        + _text(LEFT, 30, numbers)
        + _text(LEFT, 46, more)
        + "".join(_grid(tick) for tick in TICKS)
        + _line(0, 0, 1, 1, SOFT, 'stroke-dasharray="4 3"')
        + "".join(_bin(entry) for entry in calibration.bins)
        + _curve(calibration)
        + _text(LEFT + SIDE / 2, HEIGHT - 6, "score", "middle")
        + f'<g transform="rotate(-90 12 {TOP + SIDE / 2})">'
        + _text(12, TOP + SIDE / 2, "share of hits", "middle")
        + "</g></svg>"
    )


def _grid(tick: float) -> str:
    return (
        _line(tick, 0, tick, 1, GRID)
        + _line(0, tick, 1, tick, GRID)
        + _text(_x(tick), BASE + 14, f"{tick:g}", "middle")
        + _text(LEFT - 5, _y(tick) + 4, f"{tick:g}", "end")
    )


def _bin(entry: ReliabilityBin) -> str:
    colour = TOO_SURE if entry.mean_score > entry.hit_share else TOO_SHY
    words = (
        f"{entry.n_masks} masks of score {entry.low:.3f} to {entry.high:.3f}: mean {entry.mean_score:.3f}, "
        f"{entry.hit_share:.3f} hit"
    )
    return (
        _line(
            entry.mean_score, entry.mean_score, entry.mean_score, entry.hit_share, colour, 'stroke-width="2"'
        )
        + f'<circle cx="{_x(entry.mean_score):.1f}" cy="{_y(entry.hit_share):.1f}" r="4" fill="{SHARE}">'
        + f"<title>{escape(words)}</title></circle>"
    )


def _curve(calibration: Calibration) -> str:
    points = " ".join(f"{_x(entry.mean_score):.1f},{_y(entry.hit_share):.1f}" for entry in calibration.bins)
    return f'<polyline points="{points}" fill="none" stroke="{SHARE}" stroke-width="1.4"/>'


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, more: str = "") -> str:
    place = f'x1="{_x(x0):.1f}" y1="{_y(y0):.1f}" x2="{_x(x1):.1f}" y2="{_y(y1):.1f}"'
    return f'<line {place} stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = SOFT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}">{escape(text)}</text>'


def _x(share: float) -> float:
    return LEFT + share * SIDE


def _y(share: float) -> float:
    return BASE - share * SIDE
