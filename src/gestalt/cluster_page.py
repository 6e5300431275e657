"""One page that shows what every pseudo-class holds: its most typical, largest and most uncertain segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gestalt.motion.page import compose_page, place_row
from gestalt.motion.panels import CAPTION_PT, TITLE_PT, Panel, caption, show_pixels
from gestalt.semantics.picture import (
    KINDS,
    THUMBNAIL_SIZE,
    TYPICAL,
    ClassGallery,
    ClusterGallery,
    Example,
    UInt8Array,
    class_colours,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Examples of each kind: with the text, ten panels make a row.
N_EXAMPLES = 3
GUTTER = 0.12
# Characters of a frame id that fit above a thumbnail; its end tells frames apart.
ID_LETTERS = 26
# The text of a row: left edge, first line and distance of lines, as shares of the panel.
TEXT_LEFT, TEXT_TOP, TEXT_STEP = 0.2, 0.9, 0.19


def compose_cluster_page(gallery: ClusterGallery, title: str) -> Figure:
    """The page.

    Args:
        gallery: What was collected.
        title: Of the page.
    """
    columns = 1 + len(KINDS) * gallery.n_examples
    aspect = THUMBNAIL_SIZE[0] / THUMBNAIL_SIZE[1]
    palette = class_colours(len(gallery.classes))
    rows = []
    for number, entry in enumerate(gallery.classes):
        panels = [_text_panel(number, entry, gallery.n_px, palette[number])]
        for kind in KINDS:
            examples = entry.examples[kind]
            panels += [_example_panel(kind, example) for example in examples]
            panels += [_nothing] * (gallery.n_examples - len(examples))
        rows.append(place_row(panels, columns, aspect, gutter=GUTTER))
    n_used = sum(entry.n_px > 0 for entry in gallery.classes)
    summary = (
        f"{gallery.n_frames} frames, {n_used} of {len(gallery.classes)} pseudo-classes used; the segment is in colour, "
        "its confidence the mean probability of its pseudo-class; one segment per frame and kind"
    )
    return compose_page(rows, THUMBNAIL_SIZE[1], title, summary)


def _text_panel(number: int, entry: ClassGallery, n_px: int, colour: UInt8Array) -> Panel:
    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot(
            [0.08],
            [TEXT_TOP],
            marker="s",
            color=colour / 255,
            markersize=13,
            markeredgecolor="0.3",
            clip_on=False,
        )
        axes.text(
            TEXT_LEFT, TEXT_TOP, f"pseudo-class {number}", fontsize=TITLE_PT, weight="bold", va="center"
        )
        if entry.n_px:
            lines = [
                f"share {entry.n_px / n_px:.1%}",
                f"mean row {entry.mean_row:.2f}",
                f"confidence {entry.confidence:.2f}",
                f"{entry.n_segments} segments",
            ]
        else:
            lines = ["in none of the frames"]
        for place, line in enumerate(lines, start=1):
            axes.text(
                TEXT_LEFT, TEXT_TOP - place * TEXT_STEP, line, fontsize=CAPTION_PT, color="0.25", va="center"
            )

    return draw


def _example_panel(kind: str, example: Example) -> Panel:
    def draw(axes: Axes) -> None:
        show_pixels(axes, example.thumbnail)
        frame_id = example.frame_id
        shown = frame_id if len(frame_id) <= ID_LETTERS else "…" + frame_id[-ID_LETTERS + 1 :]
        number = f"{example.area_px} px" if kind not in (TYPICAL, KINDS[-1]) else f"{example.confidence:.2f}"
        caption(axes, f"{kind}: {number}", shown)

    return draw


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
