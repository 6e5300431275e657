"""Panels of the motion sheet: one measurement or result each, with its scale, on axes of matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
# A panel draws itself on the axes that it is given.
Panel = Callable[["Axes"], None]

# Deviations at and above this many standard deviations are drawn in the last colour.
DEVIATION_LIMIT = 8.0
# A scale ends where this share of the measurements does: a few outliers must not wash out the rest.
SCALE_SHARE = 0.95
UNKNOWN_RGB = (0, 0, 0)
# Weight of a colour that is laid over an image, and how bright the grey image below is.
COLOUR_SHARE, BELOW_MASKS, BELOW_RELIABLE = 0.55, 0.75, 0.9
UNRELIABLE_RGB = (214, 69, 65)
TITLE_PT, CAPTION_PT, SCALE_PT = 9.0, 7.5, 7.0
# Scales stand right of the panel: left edge and width as shares of the panel's width.
SCALE_LEFT, SCALE_WIDTH = 1.015, 0.03
WHEEL_SIZE = 0.15
WHEEL_PX = 96
# Characters of a message per inch of a panel, and the share of the panel that text may fill.
LETTERS_PER_INCH, TEXT_SHARE = 13.5, 0.9


def image_panel(title: str, image: UInt8Array | None, missing: str = "") -> Panel:
    """A photograph, (H, W, 3) uint8 RGB, or in words why there is none."""
    if image is None:
        return message_panel(title, missing)

    def draw(axes: Axes) -> None:
        show_pixels(axes, image)
        caption(axes, title)

    return draw


def message_panel(title: str, message: str) -> Panel:
    """A sentence in the place of a picture that cannot be drawn."""

    def draw(axes: Axes) -> None:
        axes.set(xticks=[], yticks=[], facecolor="0.93")
        _frame(axes)
        letters = int(size_inches(axes)[0] * LETTERS_PER_INCH * TEXT_SHARE)
        lines = textwrap.fill(message, max(letters, 1))
        axes.text(0.5, 0.5, lines, ha="center", va="center", fontsize=TITLE_PT, transform=axes.transAxes)
        caption(axes, title)

    return draw


def optical_flow_panel(title: str, optical_flow: FloatArray) -> Panel:
    """Optical flow with the wheel that explains its colours.

    Args:
        title: What it is.
        optical_flow: (2, H, W) float32, pixels (x right, y down); NaN where unknown.
    """
    longest = _scale_end(np.hypot(*optical_flow))

    def draw(axes: Axes) -> None:
        show_pixels(axes, colour_optical_flow(optical_flow, longest))
        caption(axes, title, "colour: direction; strength: length; black: unknown")
        width_in, height_in = size_inches(axes)
        height = WHEEL_SIZE * width_in / height_in
        wheel = axes.inset_axes((SCALE_LEFT, 1 - height, WHEEL_SIZE, height))
        x, y = np.meshgrid(*[np.linspace(-1.0, 1.0, WHEEL_PX, dtype=np.float32)] * 2)
        colours = colour_optical_flow(np.stack([x, y]), 1.0)
        colours[np.hypot(x, y) > 1] = 255
        wheel.imshow(colours)
        wheel.set_axis_off()
        rim = f"rim:\n≥ {longest:.3g} px"
        axes.text(SCALE_LEFT, 0.95 - height, rim, fontsize=SCALE_PT, va="top", transform=axes.transAxes)

    return draw


def heat_panel(title: str, note: str, values: FloatArray, unit: str, top: float | None = None) -> Panel:
    """A map of numbers from cold to warm, with its scale; black where unknown.

    Args:
        title: What it is.
        note: A line below the title.
        values: (H, W) float32; NaN where unknown.
        unit: Of the values.
        top: The value of the warmest colour; by default nearly the largest one.
    """
    known = np.isfinite(values)
    end = top or _scale_end(values)

    def draw(axes: Axes) -> None:
        from matplotlib import colormaps

        colours = (colormaps["turbo"](np.clip(np.nan_to_num(values) / end, 0, 1))[..., :3] * 255).astype(
            np.uint8
        )
        colours[~known] = UNKNOWN_RGB
        show_pixels(axes, colours)
        caption(axes, title, note)
        scale = axes.inset_axes((SCALE_LEFT, 0.0, SCALE_WIDTH, 1.0))
        scale.imshow(np.linspace(1, 0, 256)[:, None], cmap="turbo", aspect="auto", extent=(0, 1, 0, end))
        scale.set_xticks([])
        scale.yaxis.tick_right()
        ticks = np.linspace(0, end, 5)
        labels = [f"{tick:.3g}" for tick in ticks[:-1]] + [f"≥ {end:.3g}"]
        scale.set_yticks(ticks, labels, fontsize=SCALE_PT)
        scale.tick_params(length=2, pad=1.5)
        scale.set_title(unit, fontsize=SCALE_PT, loc="left", pad=4)

    return draw


def reliability_panel(image: UInt8Array, reliable: BoolArray, least_px: int) -> Panel:
    """Where measurements passed every test (mask O): the image there, red elsewhere."""

    def draw(axes: Axes) -> None:
        shown = dim(image, BELOW_RELIABLE)
        lay_over(shown, ~reliable, UNRELIABLE_RGB)
        show_pixels(axes, shown)
        n_px = int(reliable.sum())
        note = f"red: failed a test. {n_px} px pass, at least {least_px} needed"
        caption(axes, f"reliable pixels (mask O): {reliable.mean():.0%}", note)

    return draw


def colour_optical_flow(optical_flow: FloatArray, longest: float) -> UInt8Array:
    """Optical flow as colour: hue is the direction, saturation the length.

    Args:
        optical_flow: (2, H, W) float32, pixels (x right, y down); NaN where unknown.
        longest: Length drawn fully saturated, pixels.

    Returns:
        (H, W, 3) uint8 RGB: white where nothing moves, black where unknown.
    """
    known = np.isfinite(optical_flow).all(0)
    x, y = np.where(known, optical_flow, 0)
    hue = np.rint(np.arctan2(y, x) / (2 * np.pi) % 1 * 180).astype(np.uint8) % 180
    saturation = np.rint(np.clip(np.hypot(x, y) / max(longest, 1e-6), 0, 1) * 255).astype(np.uint8)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], -1)
    colours = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    colours[~known] = UNKNOWN_RGB
    return colours


def caption(axes: Axes, title: str, note: str = "") -> None:
    """A bold title above a panel, and a small line between the two."""
    axes.set_title(title, fontsize=TITLE_PT, weight="bold", loc="left", pad=14 if note else 3)
    if note:
        axes.annotate(
            note, (0, 1), xytext=(0, 3), xycoords="axes fraction", textcoords="offset points",
            fontsize=CAPTION_PT, color="0.35", va="bottom",
        )  # fmt: skip


def show_pixels(axes: Axes, pixels: UInt8Array) -> None:
    """Fill a panel with (H, W, 3) uint8 RGB."""
    # Enlarged pixels stay squares, shrunk ones are averaged.
    axes.imshow(pixels, interpolation="antialiased", aspect="auto")
    axes.set(xticks=[], yticks=[])
    _frame(axes)


def lay_over(image: UInt8Array, mask: BoolArray, colour: tuple[int, int, int]) -> None:
    """Tint the pixels of a mask, in place."""
    image[mask] = ((1 - COLOUR_SHARE) * image[mask] + COLOUR_SHARE * np.array(colour)).astype(np.uint8)


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="0.6")


def dim(image: UInt8Array, brightness: float) -> UInt8Array:
    """The image in grey, (H, W, 3) uint8, for colours to stand out on."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.repeat((grey * brightness).astype(np.uint8)[..., None], 3, axis=2)


def _scale_end(values: FloatArray) -> float:
    """Where a scale ends: nearly the largest known value."""
    known = values[np.isfinite(values)]
    return max(float(np.quantile(known, SCALE_SHARE)), 1e-3) if known.size else 1.0


def size_inches(axes: Axes) -> tuple[float, float]:
    """Width and height of a panel on paper."""
    box, figure = axes.get_position(), axes.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    return float(box.width * width), float(box.height * height)
