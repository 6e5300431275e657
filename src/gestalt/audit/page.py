"""Building blocks of our offline pages: HTML with inline style, no network, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.data.images import encode_png

UInt8Array = npt.NDArray[np.uint8]

# High enough that thin outlines stay sharp.
JPEG_QUALITY = 88

STYLE_FILE = Path(__file__).with_name("page.css")


def page(title: str, body: Iterable[str], *, script: str = "", style: str = "") -> str:
    """A whole HTML file.

    Args:
        title: Plain text.
        body: HTML fragments.
        script: Inline JavaScript at the end.
        style: CSS that this page has beside the common one.
    """
    style = STYLE_FILE.read_text(encoding="utf-8") + style
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
    )
    end = f"\n<script>\n{script}\n</script>" if script else ""
    return head + "\n".join(body) + end + "\n</body>\n</html>\n"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    caption: str = "",
    strong: Sequence[int] = (),
    kinds: Sequence[str] = (),
) -> str:
    """A table; numbers stand right, text left.

    Args:
        header: Plain text.
        rows: Cells: ``Html`` goes in as it is, numbers get ``number``, None is a dash, the rest is escaped.
        caption: Plain text above.
        strong: Rows to stress.
        kinds: CSS class of each row, instead; empty for none.
    """
    rows = [list(row) for row in rows]
    is_number = [
        any(isinstance(row[column], int | float) for row in rows if column < len(row))
        for column in range(len(header))
    ]
    align = ['<{0} class="number">' if numeric else "<{0}>" for numeric in is_number]
    lines = ['<div class="scroll"><table>']
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    lines.append(
        "<tr>"
        + "".join(f"{align[i].format('th')}{escape(cell)}</th>" for i, cell in enumerate(header))
        + "</tr>"
    )
    for number_of_row, row in enumerate(rows):
        kind = kinds[number_of_row] if kinds else "strong" if number_of_row in strong else ""
        start = f'<tr class="{kind}">' if kind else "<tr>"
        lines.append(
            start
            + "".join(f"{align[i].format('td')}{_cell(value)}</td>" for i, value in enumerate(row))
            + "</tr>"
        )
    return "\n".join([*lines, "</table></div>"])


class Html(str):
    """Text that is HTML already."""


def number(value: float | None, digits: int = 1) -> str:
    """A number for people; a dash where there is none."""
    if value is None or value != value:  # NaN
        return "\N{EN DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def tag(verdict: str) -> Html:
    """A verdict as a coloured word."""
    return Html(f'<span class="tag {escape(verdict)}">{escape(verdict)}</span>')


def cards(values: Sequence[tuple[str, str]]) -> str:
    """Headline figures: (figure, what it is)."""
    boxes = (
        f'<div class="card"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'
        for figure, what in values
    )
    return f'<div class="cards">{"".join(boxes)}</div>'


def figure(source: str, caption: str) -> str:
    """A picture with a line below; ``source`` is a relative path or a ``data:`` address."""
    text = escape(caption)
    image = f'<img loading="lazy" src="{escape(source)}" alt="{text}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def pictures(figures: Iterable[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="pictures">{"".join(figures)}</div>'


def embed(picture: UInt8Array, *, is_labels: bool = False) -> str:
    """A picture as a ``data:`` address, so that a page is one file.

    Args:
        picture: (H, W, 3) uint8 RGB.
        is_labels: Flat colours, kept exact (PNG); photographs become JPEG.
    """
    if is_labels:
        return "data:image/png;base64," + base64.b64encode(encode_png(picture)).decode()
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()


def _cell(value: Any) -> str:
    if isinstance(value, Html):
        return value
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return escape(str(value))
