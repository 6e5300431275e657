"""The page that panels stand on: rows of them with captions and scales, drawn into an array of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gestalt.motion.panels import TITLE_PT, Panel, UInt8Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The page, inches. Text has a size in points, so it grows with the resolution as everything does.
PAGE_WIDTH, MARGIN, GUTTER = 16.0, 0.15, 0.62
CAPTION_HEIGHT, HEADER_HEIGHT = 0.42, 0.6
# Title and summary: how far their middles lie below the top of the page, inches, and the size of the title.
TITLE_TOP, SUMMARY_TOP, HEADER_PT = 0.26, 0.49, 13
# An image's columns are drawn about one to one, but a page stays between these dots per inch.
MIN_DPI, MAX_DPI = 110.0, 200.0


@dataclass(frozen=True)
class Placed:
    """A panel on the page: inches from the left, its width, and its height without caption."""

    panel: Panel
    left: float
    width: float
    height: float


def place_row(panels: Sequence[Panel], columns: int, aspect: float, gutter: float = GUTTER) -> list[Placed]:
    """Panels side by side, each of which leaves a gutter for its scale.

    Args:
        panels: At most ``columns``.
        columns: Panels that the page has room for.
        aspect: Height over width of the images.
        gutter: Free space right of each panel, inches.
    """
    step = (PAGE_WIDTH - 2 * MARGIN) / columns
    width = step - gutter
    return [Placed(panel, MARGIN + index * step, width, width * aspect) for index, panel in enumerate(panels)]


def place_beside(panel: Panel, height: float) -> Placed:
    """A panel that fills the right half of the page."""
    return Placed(panel, PAGE_WIDTH / 2, PAGE_WIDTH / 2 - MARGIN, height)


def compose_page(rows: Sequence[Sequence[Placed]], image_width: int, title: str, summary: str) -> Figure:
    """Set rows of panels below a title.

    Args:
        rows: From the top.
        image_width: Of the images in the first row, pixels; decides the resolution.
        title: Of the page.
        summary: A line below the title.
    """
    # Heavy, and wanted by people only.
    from matplotlib.figure import Figure

    heights = [max(placed.height for placed in row) + CAPTION_HEIGHT for row in rows]
    total = HEADER_HEIGHT + sum(heights) + MARGIN
    widest = max(placed.width for placed in rows[0])
    figure = Figure((PAGE_WIDTH, total), dpi=float(np.clip(image_width / widest, MIN_DPI, MAX_DPI)))
    left = MARGIN / PAGE_WIDTH
    figure.text(left, 1 - TITLE_TOP / total, title, fontsize=HEADER_PT, weight="bold", va="center")
    figure.text(left, 1 - SUMMARY_TOP / total, summary, fontsize=TITLE_PT, color="0.25", va="center")
    top = HEADER_HEIGHT
    for row, height in zip(rows, heights, strict=True):
        for placed in row:
            bottom = total - top - CAPTION_HEIGHT - placed.height
            sides = np.array([placed.left, bottom, placed.width, placed.height])
            placed.panel(figure.add_axes(tuple(sides / [PAGE_WIDTH, total, PAGE_WIDTH, total])))
        top += height
    return figure


def draw_page(figure: Figure) -> UInt8Array:
    """The pixels of a page, (rows, columns, 3) uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.uint8)[..., :3].copy()
