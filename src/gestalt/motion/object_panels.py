"""Panels of masks and tables of objects on the motion sheet: one object has one number and colour in all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.motion.panels import (
    BELOW_MASKS,
    CAPTION_PT,
    BoolArray,
    Panel,
    UInt8Array,
    caption,
    dim,
    lay_over,
    show_pixels,
    size_inches,
)
from gestalt.motion.verdicts import INCONSISTENT, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Successive hues a golden angle apart never come close to each other.
GOLDEN_TURN = 0.381966
POINTS_PER_INCH = 72.0
# Size of a mask's name: points per inch of the panel's width, within limits.
NAME_PT_PER_INCH, MIN_NAME_PT, MAX_NAME_PT = 2.7, 6.0, 9.0
# Width of an outline, share of the image's.
OUTLINE_SHARE = 0.0025
# Of more masks than this, those that a single run found are drawn without their names.
MAX_NAMED = 10
# A name that needs more room than this share of its size around the innermost pixel stands above its mask.
ROOM_SHARE = 0.75


@dataclass(frozen=True, eq=False)
class MarkedMask:
    """A mask with its name.

    Attributes:
        name: Written on the mask; may be empty.
        colour: Number that decides the colour, see ``object_colour``.
        mask: (h, w) bool, at any resolution.
    """

    name: str
    colour: int
    mask: BoolArray


def masks_panel(title: str, note: str, image: UInt8Array, masks: Sequence[MarkedMask]) -> Panel:
    """Masks in colours over the image, each with its name.

    Args:
        title: What it is.
        note: A line below the title.
        image: (H, W, 3) uint8 RGB.
        masks: In the order of painting.
    """

    def draw(axes: Axes) -> None:
        shown, (height, width) = dim(image, BELOW_MASKS), image.shape[:2]
        thickness = max(1, round(OUTLINE_SHARE * width))
        enlarged = []
        for marked in masks:
            mask = cv2.resize(marked.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            colour = object_colour(marked.colour)
            lay_over(shown, mask > 0, colour)
            outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(shown, outline, -1, colour, thickness)
            enlarged.append(mask > 0)
        show_pixels(axes, shown)
        caption(axes, title, note)
        for marked, mask in zip(masks, enlarged, strict=True):
            if marked.name and mask.any():
                _name(axes, marked.name, mask)

    return draw


def instance_masks(instance_map: npt.NDArray[np.uint16], colours: Mapping[int, int]) -> list[MarkedMask]:
    """The instances of a map, named by their ids; ``colours`` gives the colour of an id where it is not its own."""
    ids = [int(number) for number in np.unique(instance_map) if number > 0]
    return [MarkedMask(str(number), colours.get(number, number), instance_map == number) for number in ids]


def coloured_masks(
    verdicts: Sequence[Verdict], masks: npt.NDArray[np.bool_], outcomes: Collection[str]
) -> list[MarkedMask]:
    """The best mask of each object that ended in one of ``outcomes``, larger ones first; of many, few are named.

    Args:
        verdicts: The objects.
        masks: (K, h, w) bool, of the candidates.
        outcomes: Such as ``kept``.
    """
    ended = [entry for entry in verdicts if entry.outcome in outcomes]
    chosen = [
        MarkedMask(
            str(entry.number) if len(ended) <= MAX_NAMED or len(entry.runs) > 1 else "",
            entry.number,
            masks[entry.members[0]],
        )
        for entry in ended
    ]
    return sorted(chosen, key=lambda entry: -int(entry.mask.sum()))


def table_panel(
    title: str,
    note: str,
    columns: Sequence[tuple[str, float]],
    rows: Sequence[Sequence[str]],
    colours: Sequence[int],
) -> Panel:
    """Rows of text, each with the colour of its object.

    Args:
        title: What it is.
        note: A line below the title.
        columns: Headings and where each begins, as shares of the panel's width.
        rows: A text per column.
        colours: The number that decides the colour of each row's mark.
    """

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        caption(axes, title, note)
        axes.set(xlim=(0, 1), ylim=(len(rows) + 1, 0))
        for heading, left in columns:
            axes.text(left, 0.5, heading, fontsize=CAPTION_PT, color="0.4", va="center")
        for place, (row, number) in enumerate(zip(rows, colours, strict=True), start=1):
            mark = np.array(object_colour(number)) / 255
            axes.plot([0.01], [place + 0.5], marker="s", color=mark, markersize=6, clip_on=False)
            for text, (_, left) in zip(row, columns, strict=True):
                axes.text(left, place + 0.5, text, fontsize=CAPTION_PT, va="center")

    return draw


def verdict_rows(verdicts: Sequence[Verdict], runs: int) -> list[list[str]]:
    """Rows of the table of objects: number, runs, consistency, score, what became of it."""
    rows = []
    for verdict in verdicts:
        ids = ", ".join(map(str, verdict.proposals))
        became = f"kept: proposal {ids}" if verdict.proposals else f"{verdict.outcome}: {verdict.reason}"
        rows.append(
            [
                str(verdict.number),
                f"{len(verdict.runs)} of {runs}",
                f"{verdict.consistency:.3g}",
                # Masks that runs disagree on are given no score.
                f"{verdict.score:.2f}" if verdict.outcome != INCONSISTENT else "",
                became,
            ]
        )
    return rows


def object_colour(number: int) -> tuple[int, int, int]:
    """RGB of an object: neighbours in number are far apart in hue."""
    hsv = np.array([[[int(number * GOLDEN_TURN % 1 * 180), 200 if number % 2 else 130, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _name(axes: Axes, name: str, mask: BoolArray) -> None:
    """Write a mask's name on its innermost pixel, or above the mask where there is no room."""
    from matplotlib import patheffects

    width = mask.shape[1]
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    panel_width = size_inches(axes)[0]
    size = float(np.clip(NAME_PT_PER_INCH * panel_width, MIN_NAME_PT, MAX_NAME_PT))
    needed_px = ROOM_SHARE * size / (panel_width * POINTS_PER_INCH / width)
    place, align = float(y), "center"
    if float(distance.max()) < needed_px:
        rows = np.flatnonzero(mask.any(1))
        above = rows[0] > 2 * needed_px
        place, align = (float(rows[0]), "bottom") if above else (float(rows[-1]), "top")
    # Names stay inside the panel.
    column = float(np.clip(x, needed_px / 2, width - needed_px / 2))
    rim = [patheffects.withStroke(linewidth=2, foreground="black")]
    axes.text(
        column,
        place,
        name,
        color="white",
        fontsize=size,
        weight="bold",
        ha="center",
        va=align,
        path_effects=rim,
    )
