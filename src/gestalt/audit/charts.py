"""Charts as inline SVG: histograms and curves that need no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 22, 24
BASE = HEIGHT - BOTTOM
LINE_COLOURS = ("var(--accent)", "var(--bad)", "var(--good)", "var(--mild)", "var(--soft)")
# More points than pixels draw nothing new.
MOST_POINTS = 400
# So many labels fit below the bars.
MOST_LABELS = 12


def histogram(
    values: npt.ArrayLike, title: str, *, bins: int = 24, limits: Sequence[float | None] = ()
) -> str:
    """A histogram with the allowed range marked.

    Args:
        values: Numbers; those that are not finite are left out and counted in the title.
        title: Plain text.
        bins: Number of bars.
        limits: Values to mark with a line; one far above the data is left out, it would squeeze the bars.
    """
    numbers = np.asarray(values, np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    unknown = f", {len(numbers) - len(finite)} unknown" if len(finite) < len(numbers) else ""
    title = f"{title} (n = {len(finite)}{unknown})"
    if not len(finite):
        return _frame(title, "", (0.0, 1.0), (0.0, 1.0))
    low, high = float(finite.min()), float(finite.max())
    marks = [float(limit) for limit in limits if limit is not None]
    marks = [mark for mark in marks if mark <= high + 0.5 * max(high - low, 1e-9)]
    low, high = min([low, *marks]), max([high, *marks])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(finite, bins, (low, high))
    shapes = []
    for count, start, end in zip(counts, edges[:-1], edges[1:]):
        if count:
            left, right = _x(start, low, high), _x(end, low, high)
            shapes.append(_bar(left, right, _y(count, 0, counts.max()), "var(--accent)"))
    shapes += [_line(_x(mark, low, high), TOP, _x(mark, low, high), BASE, "var(--bad)") for mark in marks]
    return _frame(title, "".join(shapes), (low, high), (0.0, float(counts.max())))


def bars(values: Sequence[float], labels: Sequence[str], title: str, colours: Sequence[str] = ()) -> str:
    """A bar per label, such as the share of each pseudo-class.

    Args:
        values: Heights, not negative.
        labels: One each; shown as a tooltip, and below when there is room.
        title: Plain text.
        colours: CSS colours, one each.
    """
    tallest = max([*values, 1e-9])
    step = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    shapes = []
    for position, (value, label) in enumerate(zip(values, labels)):
        left = LEFT + position * step
        colour = colours[position] if colours else "var(--accent)"
        shapes.append(_bar(left, left + step, _y(value, 0, tallest), colour, f"{label}: {value:.3g}"))
        if len(values) <= MOST_LABELS:
            shapes.append(_text(left + step / 2, HEIGHT - 8, label, "middle"))
    return _frame(title, "".join(shapes), None, (0.0, float(tallest)))


def curves(steps: npt.ArrayLike, lines: Mapping[str, npt.ArrayLike], title: str) -> str:
    """Lines over training steps.

    Args:
        steps: (N,) global steps.
        lines: Name -> (N,) values; gaps where they are not finite.
        title: Plain text.
    """
    x_values = np.asarray(steps, np.float64)
    series = {name: np.asarray(values, np.float64) for name, values in lines.items()}
    finite = np.concatenate([values[np.isfinite(values)] for values in series.values()] or [np.zeros(0)])
    if not len(finite):
        return _frame(title, "", (0.0, 1.0), (0.0, 1.0))
    # The first steps of a training are far above the rest and would flatten it.
    low, high = min(0.0, float(finite.min())), float(np.percentile(finite, 99.5)) or 1.0
    first, last = float(x_values.min()), float(max(x_values.max(), x_values.min() + 1))
    stride = -(-len(x_values) // MOST_POINTS)
    shapes = []
    for number, (name, values) in enumerate(series.items()):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        points = " ".join(
            f"{_x(step, first, last):.1f},{_y(min(value, high), low, high):.1f}"
            for step, value in zip(x_values[::stride], values[::stride])
            if np.isfinite(value)
        )
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        if len(series) > 1:
            shapes.append(_text(WIDTH - RIGHT, TOP + 12 + 13 * number, name, "end", colour))
    return _frame(title, "".join(shapes), (first, last), (low, high))


def scatter(x: npt.ArrayLike, y: npt.ArrayLike, names: Sequence[str], title: str) -> str:
    """A point per item that was measured twice, with the line of equal values; points below it lost.

    Args:
        x: (N,) first value of each item.
        y: (N,) second value.
        names: N names, shown as tooltips and kept as ``data-name``.
        title: Plain text.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    both = np.concatenate([first, second])
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    shapes = [
        _line(_x(low, low, high), _y(low, low, high), _x(high, low, high), _y(high, low, high), "var(--soft)")
    ]
    for place, value, name in zip(first.tolist(), second.tolist(), names):
        colour = "var(--soft)" if place == value else f"var({'--good' if value > place else '--bad'})"
        centre = f'cx="{_x(place, low, high):.1f}" cy="{_y(value, low, high):.1f}"'
        tip = f"{name}: {place:.1f} to {value:.1f}"
        shapes.append(
            f'<circle {centre} r="3.2" fill="{colour}" fill-opacity="0.75" data-name="{escape(name)}">'
            f"<title>{escape(tip)}</title></circle>"
        )
    return _frame(title, "".join(shapes), (low, high), (low, high))


def _frame(title: str, shapes: str, x_range: tuple[float, float] | None, y_range: tuple[float, float]) -> str:
    ends = ""
    if x_range is not None:
        ends = _text(LEFT, HEIGHT - 8, f"{x_range[0]:.4g}") + _text(
            WIDTH - RIGHT, HEIGHT - 8, f"{x_range[1]:.4g}", "end"
        )
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return (
        f'<svg {size} role="img" aria-label="{escape(title)}">'
        + _text(LEFT, 13, title, colour="var(--ink)")
        + shapes
        + f'<line x1="{LEFT}" y1="{BASE}" x2="{WIDTH - RIGHT}" y2="{BASE}" stroke="var(--line)"/>'
        + _text(LEFT - 5, TOP + 8, f"{y_range[1]:.3g}", "end")
        + _text(LEFT - 5, BASE, f"{y_range[0]:.3g}", "end")
        + ends
        + "</svg>"
    )


def _bar(left: float, right: float, top: float, colour: str, tip: str = "") -> str:
    place = f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left - 1, 1):.1f}" height="{BASE - top:.1f}"'
    return f'<rect {place} fill="{colour}"><title>{escape(tip)}</title></rect>'


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    place = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-dasharray="3 3"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "var(--soft)") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" style="fill:{colour}">{escape(text)}</text>'


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return BASE - (value - low) / max(high - low, 1e-12) * (BASE - TOP)
