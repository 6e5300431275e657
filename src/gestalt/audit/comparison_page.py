"""The comparison: one page with numbers, differences, what was asked for differently, and the same images side by side.

The page is one file that opens from disk, and equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from gestalt.audit.charts import scatter
from gestalt.audit.comparison_pictures import CHANGES, CLASSES, ERRORS, Cell, ComparedFrame
from gestalt.audit.page import Html, page, table
from gestalt.audit.report_tables import CONVENTION_NAMES, QUALITY_HEADER
from gestalt.data.atomic_files import write_bytes
from gestalt.evaluation.bootstrap import Interval, Spread
from gestalt.evaluation.comparison import METRICS, Comparison

SCRIPT_FILE, PAGE_STYLE_FILE = Path(__file__).with_suffix(".js"), Path(__file__).with_suffix(".css")
MINUS, TO = "\N{MINUS SIGN}", "\N{EN DASH}"
# A longer list of values that differ is folded.
N_SHOWN_VALUES = 30


@dataclass(frozen=True)
class ComparedRun:
    """A contestant as the head of the page shows it.

    Attributes:
        name: Short.
        origin: Name of the run, or path of the folder.
        facts: What it is -> value, such as seed and commit.
    """

    name: str
    origin: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class DifferingValues:
    """Values that are not the same for all contestants.

    Attributes:
        title: What they are.
        rows: Key -> value of each contestant, None where it has none.
    """

    title: str
    rows: Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class BenchmarkPart:
    """One benchmark on the page.

    Attributes:
        comparison: Its numbers.
        frames: Images to show, in their order.
        spreads: Names of contestants that differ in the seed only -> convention -> metric -> spread.
    """

    comparison: Comparison
    frames: Sequence[ComparedFrame] = ()
    spreads: Mapping[tuple[str, ...], Mapping[str, Mapping[str, Spread]]] = field(default_factory=dict)


def write_comparison(
    path: Path,
    runs: Sequence[ComparedRun],
    values: Sequence[DifferingValues],
    notes: Sequence[str],
    parts: Sequence[BenchmarkPart],
) -> Path:
    """Write the page.

    Args:
        path: The HTML file.
        runs: The contestants, the reference first.
        values: What they were asked for differently.
        notes: What a reader must know: who was left out, where pictures are missing.
        parts: The benchmarks.

    Returns:
        ``path``.
    """
    letters = {run.name: letter(place) for place, run in enumerate(runs)}
    body = [
        *_head(runs, letters, parts),
        *_notes(notes),
        *_overview(parts, letters),
        *_values(values, runs, letters),
        *_tools(parts),
        *(line for part in parts for line in _benchmark(part, letters)),
    ]
    title = f"Comparison: {', '.join(run.name for run in runs)}"
    html = page(
        title,
        body,
        script=SCRIPT_FILE.read_text(encoding="utf-8"),
        style=PAGE_STYLE_FILE.read_text(encoding="utf-8"),
    )
    html = html.replace("<body>", f'<body class="comparison" data-view="{CLASSES}">', 1)
    write_bytes(path, html.encode())
    return path


def letter(place: int) -> str:
    """A, B, ..., Z, A2, B2, ...: the short sign of a contestant."""
    rounds, within = divmod(place, 26)
    return chr(ord("A") + within) + (str(rounds + 1) if rounds else "")


def _head(
    runs: Sequence[ComparedRun], letters: Mapping[str, str], parts: Sequence[BenchmarkPart]
) -> list[str]:
    keys = list(dict.fromkeys(key for run in runs for key in run.facts))
    rows = [
        [_badge(letters, run.name), run.name, run.origin, *(run.facts.get(key) for key in keys)]
        for run in runs
    ]
    first = runs[0].name
    rendered = [part.comparison.benchmark for part in parts if part.comparison.protocol.rendered]
    lead = (
        "The same images, measured with the same code under the same protocol. Differences are to "
        f"<b>{escape(first)}</b> (A), in percentage points, each with the interval that 95 % of the resamples of the "
        "images fall into; both sides are drawn alike. <b>Bold</b>: the interval excludes zero, so the choice of "
        "images does not explain the difference. Chance in training is not in these intervals: compare several seeds."
    )
    if any(part.comparison.reference != first for part in parts):
        lead += " Where A has no predictions left, they are to the first contestant that has."
    if rendered:
        lead += (
            f" The images of {escape(', '.join(rendered))} are <b>rendered</b>: "
            "these numbers do not compare with published ones."
        )
    return [
        "<h1>Comparison</h1>",
        f'<p class="lead">{lead}</p>',
        table(["", "name", "is", *keys], rows),
    ]


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    return ['<div class="notes"><ul>', *(f"<li>{escape(note)}</li>" for note in notes), "</ul></div>"]


def _overview(parts: Sequence[BenchmarkPart], letters: Mapping[str, str]) -> list[str]:
    """PQ of everybody on everything, in the primary convention."""
    rows = []
    for name in letters:
        row: list[Any] = [_named(letters, name)]
        for part in parts:
            result = part.comparison.results.get(name)
            if result is None:
                row.append(None)
                continue
            primary = part.comparison.protocol.primary
            value = f"{result.numbers[primary]['PQ'].value:.1f}"
            change = result.differences.get(primary, {}).get("PQ")
            row.append(Html(value if change is None else f"{value} {_change(change, with_bounds=False)}"))
        rows.append(row)
    header = ["PQ", *(part.comparison.benchmark for part in parts)]
    return ["<h2>At a glance</h2>", f'<div class="figures matrix">{table(header, rows)}</div>']


def _values(
    values: Sequence[DifferingValues], runs: Sequence[ComparedRun], letters: Mapping[str, str]
) -> list[str]:
    lines = ["<h2>What differs</h2>"]
    header = ["", *(f"{letters[name]} {name}" for name in letters)]
    for place, block in enumerate(block for block in values if block.rows):
        rows = [[Html(f"<code>{escape(key)}</code>"), *of_key] for key, of_key in block.rows.items()]
        unfolded = " open" if place == 0 and len(rows) <= N_SHOWN_VALUES else ""
        summary = f"{escape(block.title)}: {len(rows)}"
        lines.append(f"<details{unfolded}><summary>{summary}</summary>{table(header, rows)}</details>")
    if len(lines) == 1:
        n_recorded = sum(bool(run.facts) for run in runs)
        reason = (
            "Nothing that is recorded: parameters and code are the same."
            if n_recorded > 1
            else "Not known: folders of predictions record neither parameters nor code."
        )
        lines.append(f'<p class="note">{reason}</p>')
    return lines


def _tools(parts: Sequence[BenchmarkPart]) -> list[str]:
    if not any(part.frames for part in parts):
        return []
    names = [part.comparison.benchmark for part in parts]
    filters = "".join(
        _button("only", value, text, is_pressed=not value)
        for value, text in [("", "all"), *zip(names, names)]
    )
    shown = "".join(
        _button("show", view, view, is_pressed=view == CLASSES) for view in (CLASSES, ERRORS, CHANGES)
    )
    orders = "".join(
        _button("order", name, text, is_pressed=name == "losses")
        for name, text in [("losses", "losses first"), ("gains", "gains first"), ("changes", "largest first")]
    )
    sliders = (
        '<label>layer <input id="opacity" type="range" min="0" max="100" value="60"></label>'
        '<label>size <input id="size" type="range" min="10" max="48" value="17"></label>'
    )
    return [
        '<h2 id="pictures">Side by side</h2>',
        '<p class="note">Pictures show classes after matching, so numbers of pseudo-classes do not matter. '
        "<b>errors</b>: red is wrong (an object is right where its segment covers more than half of the true one). "
        "<b>changes</b>: green is right here and wrong in the reference, red the other way round. "
        "Hold a picture to see the reference in its place. Keys: <kbd>j</kbd> <kbd>k</kbd> next and previous image, "
        "<kbd>1</kbd> <kbd>2</kbd> <kbd>3</kbd> view, <kbd>b</kbd> next benchmark, <kbd>space</kbd> photo only.</p>",
        f'<div class="bar tools"><span class="part">{filters}</span><span class="part">{shown}</span>'
        f'<span class="part">{orders}</span>{sliders}</div>',
    ]


def _button(kind: str, value: str, text: str, *, is_pressed: bool) -> str:
    pressed = str(is_pressed).lower()
    return f'<button data-{kind}="{escape(value)}" aria-pressed="{pressed}">{escape(text)}</button>'


def _benchmark(part: BenchmarkPart, letters: Mapping[str, str]) -> list[str]:
    comparison, protocol = part.comparison, part.comparison.protocol
    name = escape(comparison.benchmark)
    facts = f"{escape(protocol.meaning)}. Protocol {escape(comparison.label)}"
    if comparison.image_ids:
        facts += f", {len(comparison.image_ids)} images"
    lines = [
        f'<section data-benchmark="{name}" id="{name}">',
        f'<h2>{name}</h2><p class="note">{facts}.{_coverage(comparison, letters)}</p>',
    ]
    for convention in protocol.conventions:
        numbers = _numbers(part, convention, letters)
        if convention == protocol.primary:
            lines.append(numbers)
        else:
            summary = escape(CONVENTION_NAMES.get(convention, convention))
            lines.append(f"<details><summary>{summary}</summary>{numbers}</details>")
    lines += [*_scatters(comparison, letters), *_classes(comparison, letters)]
    if part.frames:
        shots = [_shot(frame, comparison, letters) for frame in part.frames]
        lines.append(f'<div class="shots">{"".join(shots)}</div>')
    return [*lines, "</section>"]


def _coverage(comparison: Comparison, letters: Mapping[str, str]) -> str:
    """Who lacks images: they count as missed."""
    missing = [
        f" {letters[name]} has no prediction for {len(lost)} of them; these count as missed"
        f" ({escape(', '.join(lost[:3]))}{', ...' if len(lost) > 3 else ''})."
        for name, result in comparison.results.items()
        if result.evaluation is not None and (lost := result.evaluation.coverage.missing)
    ]
    return "".join(missing)


def _numbers(part: BenchmarkPart, convention: str, letters: Mapping[str, str]) -> str:
    """A table of numbers, spreads over seeds and differences."""
    rows: list[list[Any]] = []
    kinds: list[str] = []
    results = part.comparison.results
    for name, result in results.items():
        if numbers := result.numbers.get(convention):
            rows.append([_named(letters, name), *(_value(numbers.get(metric)) for metric in METRICS)])
            kinds.append("")
    for names, spreads in part.spreads.items():
        if of_metric := spreads.get(convention):
            who = Html(" ".join(_badge(letters, name) for name in names) + " over seeds")
            rows.append([who, *(_spread(of_metric[metric]) for metric in METRICS)])
            kinds.append("spread")
    base = letters[part.comparison.reference]
    for name, result in results.items():
        if changes := result.differences.get(convention):
            who = Html(f"{_badge(letters, name)} {MINUS} {base}")
            rows.append([who, *(_change(changes.get(metric)) for metric in METRICS)])
            kinds.append("difference")
    caption = CONVENTION_NAMES.get(convention, convention)
    return f'<div class="figures">{table(["", *QUALITY_HEADER], rows, caption=caption, kinds=kinds)}</div>'


def _classes(comparison: Comparison, letters: Mapping[str, str]) -> list[str]:
    """PQ per class, the class that lost most first."""
    others = [name for name, result in comparison.results.items() if result.class_differences]
    if not others:
        return []
    present = sorted({place for name in others for place in comparison.results[name].class_differences})

    def lowest(place: int) -> float:
        changes = [comparison.results[name].class_differences.get(place) for name in others]
        return min(change.value for change in changes if change is not None)

    measured = [name for name, result in comparison.results.items() if result.class_quality]
    rows = []
    for place in sorted(present, key=lambda place: (lowest(place), place)):
        entry = comparison.space.classes[place]
        qualities = [comparison.results[name].class_quality.get(place) for name in measured]
        changes = [_change(comparison.results[name].class_differences.get(place)) for name in others]
        swatch = Html(f"{_swatch(entry.colour)}{escape(entry.name)}{' (thing)' if entry.is_thing else ''}")
        rows.append([swatch, *qualities, *changes])
    header = ["PQ of class", *(letters[name] for name in measured)]
    header += [f"{letters[name]} {MINUS} {letters[comparison.reference]}" for name in others]
    return [
        "<details><summary>Classes, the greatest loss first</summary>",
        f'<div class="figures">{table(header, rows)}</div></details>',
    ]


def _scatters(comparison: Comparison, letters: Mapping[str, str]) -> list[str]:
    """PQ of each image, a contestant against the reference."""
    base = comparison.results[comparison.reference].image_quality
    charts = [
        scatter(
            base,
            comparison.results[name].image_quality,
            comparison.image_ids,
            f"PQ of images, {letters[name]} over {letters[comparison.reference]}: "
            f"{int((change > 0).sum())} better, {int((change < 0).sum())} worse",
        )
        for name, change in comparison.image_differences().items()
    ]
    return [f'<div class="charts">{"".join(charts)}</div>'] if charts else []


def _shot(frame: ComparedFrame, comparison: Comparison, letters: Mapping[str, str]) -> str:
    changes = [cell.difference for cell in frame.cells if cell.difference is not None] or [0.0]
    legend = "".join(
        f"<span>{_swatch(comparison.space.classes[place].colour)}"
        f"{escape(comparison.space.classes[place].name)}</span>"
        for place in frame.classes
    )
    cells = "".join(_cell(cell, frame, comparison, letters) for cell in frame.cells)
    name = escape(frame.frame_id)
    return (
        f'<div class="shot" data-frame="{name}" data-lowest="{min(changes):.3f}" data-highest="{max(changes):.3f}" '
        f"style=\"--photo:url('{frame.photo}')\"><h4>{escape(comparison.benchmark)} / {name}</h4>"
        f'<div class="cells">{cells}</div><div class="legend">{legend}</div></div>\n'
    )


def _cell(cell: Cell, frame: ComparedFrame, comparison: Comparison, letters: Mapping[str, str]) -> str:
    height, width = frame.size
    images = "".join(f'<img class="{view}" alt="" src="{source}">' for view, source in cell.layers.items())
    if not cell.name:
        kind, swaps, caption = "truth", "", "<b>truth</b>"
    else:
        is_reference = cell.name == comparison.reference
        kind, swaps = ("reference", "") if is_reference else ("other", " swaps")
        caption = f"{_badge(letters, cell.name)} {escape(cell.name)} <span>PQ {cell.quality:.1f}</span>"
        if cell.difference is not None:
            caption += f" {_signed(cell.difference)}"
    return (
        f'<figure class="{kind}"><div class="stack{swaps}" style="aspect-ratio:{width}/{height}">{images}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _badge(letters: Mapping[str, str], name: str) -> Html:
    first = " first" if letters[name] == letter(0) else ""
    return Html(f'<span class="badge{first}">{letters[name]}</span>')


def _named(letters: Mapping[str, str], name: str) -> Html:
    return Html(f"{_badge(letters, name)} {escape(name)}")


def _swatch(colour: tuple[int, int, int]) -> str:
    return '<i class="swatch" style="background:rgb({},{},{})"></i>'.format(*colour)


def _value(value: Interval | None) -> Html | None:
    if value is None:
        return None
    bounds = f"{value.low:.1f}{TO}{value.high:.1f}" if value.is_known else ""
    return Html(f"{value.value:.1f}<small>{bounds}</small>")


def _spread(value: Spread) -> Html:
    return Html(
        f"{value.mean:.1f} \N{PLUS-MINUS SIGN} {value.deviation:.1f}<small>n = {value.n_runs}</small>"
    )


def _change(change: Interval | None, *, with_bounds: bool = True) -> Html | None:
    if change is None:
        return None
    sure = change.excludes_zero
    text = f'<span class="{"sure" if sure else "unsure"}">{_signed(change.value)}</span>'
    if with_bounds:
        bounds = f"{_number(change.low)} to {_number(change.high)}" if change.is_known else "no interval"
        text += f"<small>{bounds}</small>"
    return Html(text)


def _signed(value: float) -> str:
    rounded = round(value, 1)
    kind = "good" if rounded > 0 else "bad" if rounded < 0 else ""
    return f'<span class="{kind}">{_number(value)}</span>'


def _number(value: float) -> str:
    """With a sign that is as wide as a plus."""
    rounded = round(value, 1) or 0.0
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"
