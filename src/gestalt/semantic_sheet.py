"""A sheet that shows how a frame's pixels get their pseudo-classes, from features to the final map, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gestalt.config.frames import FrameSettings
from gestalt.data.frames import frame_geometry, load_left, move_intrinsics
from gestalt.data.kitti_maps import unpack_disparity
from gestalt.data.records import StereoFrame
from gestalt.data.shards import FRAMES_FILE, ShardFolder
from gestalt.errors import ConfigError
from gestalt.features.dense import FeatureGrid, image_to_tensor
from gestalt.features.picture import (
    ColourBasis,
    attention_shares,
    colour_cells,
    enlarge_cells,
    fit_colour_basis,
    likeness,
    spread_cells,
    valid_cells,
)
from gestalt.motion.page import Placed, compose_page, place_beside, place_row
from gestalt.motion.panels import (
    CAPTION_PT,
    Panel,
    caption,
    dim,
    heat_panel,
    image_panel,
    lay_over,
    message_panel,
    show_pixels,
)
from gestalt.semantics import SemanticLabeller
from gestalt.semantics.picture import class_colours, colour_classes, most_probable, split_into_segments
from gestalt.semantics.probe import SemanticViews

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Pixels = TypeVar("Pixels", bound=np.generic)

COLUMNS = 4
CHANGED_RGB, BELOW_CHANGES = (255, 140, 0), 0.8
# The table of pseudo-classes: a line, inches; lines side by side; where text stands in a line, shares of its width.
LINE_HEIGHT, TABLE_COLUMNS = 0.17, 2
NUMBER_AT, SHARE_AT, CONFIDENCE_AT, ROW_AT = 0.06, 0.2, 0.48, 0.76
# A pseudo-class is named on its largest segment if that covers this share of the image.
MIN_NAMED_SHARE = 0.01
NAME_PT = 8.0


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """A frame with everything that features and pseudo-classes say of it.

    Attributes:
        frame_id: Which frame.
        image: (H, W, 3) uint8 RGB.
        disparity: (H, W) float32, pixels, 0 where there is no match; None where it was not computed.
        grid: Its features, batch of one.
        views: What its prediction is made of.
        stride: Of the features, pixels.
    """

    frame_id: str
    image: UInt8Array
    disparity: FloatArray | None
    grid: FeatureGrid
    views: SemanticViews
    stride: int


@dataclass(frozen=True)
class FrameViewer:
    """Loads frames and looks at them as the stage ``pseudo_labels`` does.

    Attributes:
        labeller: Features and pseudo-classes.
        frames: Section ``frames``.
        data: The folder of the artefacts; disparities come from ``motion/BATCH`` below it.
    """

    labeller: SemanticLabeller
    frames: FrameSettings
    data: Path = Path("data")

    @torch.no_grad()
    def see(self, frame: StereoFrame) -> SeenFrame:
        """Everything about a frame.

        Raises:
            DataError: The image or a model is missing or broken, or the disparity has another size.
        """
        probe, image, disparity = self.labeller.probe, load_left(frame, self.frames), self.disparity(frame)
        views = probe.views(
            image, disparity, self._focal_length(frame), frame.stereo_baseline, self.labeller.settings
        )
        tensor = image_to_tensor(image, probe.centres.device)
        return SeenFrame(
            frame.frame_id, image, disparity, probe.features.extract(tensor), views, probe.features.stride
        )

    @torch.no_grad()
    def features_of(self, frame: StereoFrame) -> FeatureGrid:
        """Its features alone, batch of one."""
        probe = self.labeller.probe
        return probe.features.extract(image_to_tensor(load_left(frame, self.frames), probe.centres.device))

    def label(self, frame: StereoFrame) -> tuple[UInt8Array, UInt8Array, FloatArray]:
        """Image (H, W, 3) uint8, pseudo-classes (H, W) uint8, and how probable each is (H, W) float32."""
        image = load_left(frame, self.frames)
        semantic_map, confidence = self.labeller(
            image, self.disparity(frame), self._focal_length(frame), frame.stereo_baseline
        )
        return image, semantic_map, confidence

    def disparity(self, frame: StereoFrame) -> FloatArray | None:
        """(H, W) float32, pixels, as the stage ``motion`` found it; None where it has not run on this frame."""
        shards, known = self._motion_of(frame.batch)
        if shards is None or frame.frame_id not in known:
            return None
        return unpack_disparity(shards.read_map(frame.frame_id, "disparity"))

    def _motion_of(self, batch: str) -> tuple[ShardFolder | None, frozenset[str]]:
        """The results of a batch, opened once, and which frames they hold."""
        if batch not in self._opened:
            folder = self.data / "motion" / batch
            shards = ShardFolder(folder) if (folder / FRAMES_FILE).is_file() else None
            self._opened[batch] = shards, frozenset(shards.frame_ids if shards else ())
        return self._opened[batch]

    @cached_property
    def _opened(self) -> dict[str, tuple[ShardFolder | None, frozenset[str]]]:
        return {}

    def _focal_length(self, frame: StereoFrame) -> float:
        geometry = frame_geometry(frame.height, frame.width, self.frames)
        return float(move_intrinsics(frame.intrinsics, geometry)[0, 0])


@dataclass(frozen=True, eq=False)
class FeatureColours:
    """Bases of colours, of this frame or of several, whose sheets can then be compared.

    Attributes:
        tokens: For what describes the cells.
        keys: For the keys of the last block; None for features without.
    """

    tokens: ColourBasis
    keys: ColourBasis | None


def fit_feature_colours(grids: Sequence[FeatureGrid]) -> FeatureColours:
    """Colours in which all these features can be shown.

    Args:
        grids: Batches of one.

    Raises:
        DataError: No image has a valid cell.
    """
    keys = [valid_cells(grid.keys[0], grid.valid[0]) for grid in grids if grid.keys is not None]
    return FeatureColours(
        fit_colour_basis([valid_cells(grid.tokens[0], grid.valid[0]) for grid in grids]),
        fit_colour_basis(keys) if keys else None,
    )


def compose_semantic_sheet(
    seen: SeenFrame, colours: FeatureColours, pixel: tuple[int, int] | None = None
) -> Figure:
    """The page of a frame: image, features, likeness, the views a prediction is made of, and the result.

    Args:
        seen: The frame.
        colours: Of its features.
        pixel: Row and column whose likeness is shown first; others are chosen.

    Raises:
        ConfigError: The pixel lies outside the image.
    """
    height, width = seen.image.shape[:2]
    aspect = height / width
    rows = [
        place_row(_input_panels(seen, colours), COLUMNS, aspect),
        place_row(_likeness_panels(seen, pixel), COLUMNS, aspect),
        place_row(_view_panels(seen), COLUMNS, aspect),
        place_row(_certainty_panels(seen), COLUMNS, aspect),
        _result_row(seen, aspect),
    ]
    return compose_page(rows, width, f"{seen.frame_id}: {_describe(seen)}", _summarise(seen))


def _input_panels(seen: SeenFrame, colours: FeatureColours) -> list[Panel]:
    panels = [image_panel("left image, t", seen.image)]
    title = "disparity"
    if seen.disparity is None:
        panels.append(message_panel(title, "not known: the stage motion has not run on this frame"))
    elif not (seen.disparity > 0).any():
        panels.append(message_panel(title, "not known: there is one camera, or nothing was matched"))
    else:
        known = np.where(seen.disparity > 0, seen.disparity, np.nan).astype(np.float32)
        panels.append(heat_panel(title, "warm: near; black: unknown", known, "px"))
    grid, valid = seen.grid, seen.grid.valid[0]
    note = "three principal components as red, green, blue"
    panels.append(_cells_panel("features", note, seen, colour_cells(grid.tokens[0], valid, colours.tokens)))
    if grid.keys is not None and colours.keys is not None:
        keys = colour_cells(grid.keys[0], valid, colours.keys)
        panels.append(_cells_panel("keys of the last block", note, seen, keys))
    elif grid.cls_attention is None:
        panels.append(message_panel("keys and attention", "these features have neither"))
    return panels


def _likeness_panels(seen: SeenFrame, pixel: tuple[int, int] | None) -> list[Panel]:
    """Cosine of all cells and that of a pixel; attention of the whole image first, where there is one."""
    grid, valid, stride = seen.grid, seen.grid.valid[0], seen.stride
    panels: list[Panel] = []
    if grid.cls_attention is not None:
        shares = attention_shares(grid.cls_attention[0], valid)
        note = "mean over the heads of the last block; 1: an even spread"
        panels.append(heat_panel("attention of the whole image", note, _enlarge(seen, shares), "times"))
    pixels = []
    if pixel is not None:
        check_pixel(pixel, seen)
        pixels.append(pixel)
    height, width = seen.image.shape[:2]
    cells = spread_cells(grid.tokens[0], valid, COLUMNS - len(panels) - len(pixels))
    pixels += [(_middle(row, stride, height), _middle(column, stride, width)) for row, column in cells]
    for row, column in pixels:
        values = likeness(grid.tokens[0], valid, (row // stride, column // stride))
        title = f"likeness to pixel {row},{column}"
        heat = heat_panel(
            title, "cosine of features with those at the cross", _enlarge(seen, values), "", 1.0
        )
        panels.append(_crossed(heat, row, column))
    return panels


def check_pixel(pixel: tuple[int, int], seen: SeenFrame) -> None:
    """Raise if a pixel lies outside the image.

    Raises:
        ConfigError: It does.
    """
    height, width = seen.image.shape[:2]
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ConfigError(
            f"pixel {pixel[0]},{pixel[1]} lies outside the image of {height} rows and {width} columns"
        )


def _view_panels(seen: SeenFrame) -> list[Panel]:
    """Pseudo-classes of each view, in the same colours."""
    views = seen.views
    off = {
        "the image at half size": (views.low, "there is none: semantics.fusion is off"),
        "full size": (views.high, ""),
        "fused by depth": (
            views.fused if views.low is not None else None,
            "there is one view: semantics.fusion is off",
        ),
        "refined by the CRF": (views.refined, "not refined: the CRF is off"),
    }
    palette, panels = class_colours(len(views.high)), []
    for title, (log_prob, missing) in off.items():
        if log_prob is None:
            panels.append(message_panel(title, missing))
            continue
        semantic_map, _ = most_probable(log_prob)
        n_used = len(np.unique(semantic_map))
        panels.append(
            image_panel(
                f"{title}: {n_used} pseudo-classes", colour_classes(seen.image, semantic_map, palette)
            )
        )
    return panels


def _certainty_panels(seen: SeenFrame) -> list[Panel]:
    """Weight of the low view, how sure the result is, and what fusion and refinement changed."""
    views = seen.views
    panels = [message_panel("weight of half size", "there is no such view: semantics.fusion is off")]
    if views.near_weight is not None:
        weight = views.near_weight.float().cpu().numpy()
        panels = [
            heat_panel("weight of half size (alpha)", "warm: near, where half size counts", weight, "", 1.0)
        ]
    _, confidence = most_probable(views.final)
    note = f"probability of the pseudo-class; mean {confidence.mean():.2f}"
    panels.append(heat_panel("confidence", note, confidence, "", 1.0))
    changes = (("changed by the view at half size", views.high, views.fused if views.low is not None else None),
               ("changed by the CRF", views.fused, views.refined))  # fmt: skip
    for title, before, after in changes:
        panels.append(
            message_panel(title, "nothing: it is off")
            if after is None
            else _change_panel(title, seen, before, after)
        )
    return panels


def _result_row(seen: SeenFrame, aspect: float) -> list[Placed]:
    """The final map, large and with numbers, and the table of its pseudo-classes."""
    semantic_map, confidence = most_probable(seen.views.final)
    palette = class_colours(len(seen.views.high))
    row = place_row([_named_map_panel(seen, semantic_map, palette)], COLUMNS // 2, aspect)
    numbers = [int(number) for number in np.argsort(-np.bincount(semantic_map.ravel()), kind="stable")]
    entries = []
    for number in numbers:
        mask = semantic_map == number
        if not mask.any():
            continue
        mean_row = float((np.nonzero(mask)[0].mean() + 0.5) / len(mask))
        entries.append((number, float(mask.mean()), float(confidence[mask].mean()), mean_row))
    lines = -(-len(entries) // TABLE_COLUMNS)
    return [*row, place_beside(_table_panel(entries, palette), (lines + 1) * LINE_HEIGHT)]


def _named_map_panel(seen: SeenFrame, semantic_map: UInt8Array, palette: UInt8Array) -> Panel:
    def draw(axes: Axes) -> None:
        import cv2
        from matplotlib import patheffects

        show_pixels(axes, colour_classes(seen.image, semantic_map, palette))
        caption(axes, "pseudo-classes", "numbers stand on segments of at least 1 % of the image")
        rim = [patheffects.withStroke(linewidth=2, foreground="black")]
        for number in np.unique(semantic_map):
            regions, found = split_into_segments(semantic_map, int(number))
            areas = np.bincount(regions.ravel(), minlength=found + 1)
            for region in np.flatnonzero(areas >= MIN_NAMED_SHARE * regions.size):
                if region == 0:
                    continue
                inside = np.pad((regions == region).astype(np.uint8), 1)
                distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
                row, column = np.unravel_index(int(distance.argmax()), regions.shape)
                axes.text(
                    float(column), float(row), str(number), color="white", fontsize=NAME_PT, weight="bold",
                    ha="center", va="center", path_effects=rim, clip_on=True,
                )  # fmt: skip

    return draw


def _table_panel(entries: Sequence[tuple[int, float, float, float]], palette: UInt8Array) -> Panel:
    """Number, share, confidence and mean row of each pseudo-class, the largest first, in two columns."""

    def draw(axes: Axes) -> None:
        lines = -(-len(entries) // TABLE_COLUMNS)
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(lines + 1, 0))
        caption(axes, f"the pseudo-classes of this frame: {len(entries)}", "the largest first")
        step = 1 / TABLE_COLUMNS
        for block in range(TABLE_COLUMNS):
            for heading, at in (("share", SHARE_AT), ("confidence", CONFIDENCE_AT), ("mean row", ROW_AT)):
                axes.text(step * (block + at), 0.5, heading, fontsize=CAPTION_PT, color="0.4", va="center")
        for place, (number, share, confidence, mean_row) in enumerate(entries):
            left, line = step * (place // lines), place % lines + 1.5
            axes.plot(
                [left + 0.015], [line], marker="s", color=palette[number] / 255, markersize=7, clip_on=False
            )
            for text, at in (
                (str(number), NUMBER_AT), (f"{share:.1%}", SHARE_AT), (f"{confidence:.2f}", CONFIDENCE_AT),
                (f"{mean_row:.2f}", ROW_AT),
            ):  # fmt: skip
                axes.text(left + step * at, line, text, fontsize=CAPTION_PT, va="center")

    return draw


def _change_panel(title: str, seen: SeenFrame, before: Tensor, after: Tensor) -> Panel:
    changed = (before.argmax(0) != after.argmax(0)).cpu().numpy()
    shown = dim(seen.image, BELOW_CHANGES)
    lay_over(shown, changed, CHANGED_RGB)

    def draw(axes: Axes) -> None:
        show_pixels(axes, shown)
        caption(axes, f"{title}: {changed.mean():.1%}", "orange: another pseudo-class than before")

    return draw


def _cells_panel(title: str, note: str, seen: SeenFrame, cells: UInt8Array) -> Panel:
    pixels = _enlarge(seen, cells)

    def draw(axes: Axes) -> None:
        show_pixels(axes, pixels)
        caption(axes, title, note)

    return draw


def _crossed(panel: Panel, row: int, column: int) -> Panel:
    """A panel with a cross on a pixel."""

    def draw(axes: Axes) -> None:
        panel(axes)
        for colour, width in (("black", 3.5), ("white", 1.5)):
            axes.plot([column], [row], marker="+", color=colour, markersize=12, markeredgewidth=width)

    return draw


def _enlarge(seen: SeenFrame, cells: npt.NDArray[Pixels]) -> npt.NDArray[Pixels]:
    return enlarge_cells(cells, seen.stride, *seen.image.shape[:2])


def _middle(cell: int, stride: int, length: int) -> int:
    """The middle pixel of a cell, inside the image."""
    return min(cell * stride + stride // 2, length - 1)


def _describe(seen: SeenFrame) -> str:
    semantic_map, confidence = most_probable(seen.views.final)
    n_used, n_known = len(np.unique(semantic_map)), len(seen.views.high)
    return f"{n_used} of {n_known} pseudo-classes, mean confidence {confidence.mean():.2f}"


def _summarise(seen: SeenFrame) -> str:
    height, width = seen.image.shape[:2]
    _, D, h, w = seen.grid.tokens.shape
    parts = [f"{height} x {width} px", f"{h} x {w} cells of {seen.stride} px with {D} features each"]
    if seen.disparity is not None:
        parts.append(f"disparity known on {(seen.disparity > 0).mean():.0%}")
    return ", ".join(parts)
