"""Outlines to pixels, exactly as the tools of BDD100K paint them, by the same renderer with the same settings.

Which pixels an outline covers is a convention: here its vertices move to the nearest corner of pixels, and every pixel
that is then covered at all belongs to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError

# Outlines are told apart by their colours, of 24 bits.
MAX_OUTLINES = (1 << 24) - 1


def paint_outlines(
    groups: Sequence[Sequence[tuple[npt.NDArray[np.float64], str]]], size: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """Paint groups of closed outlines over each other.

    Args:
        groups: In the order of painting; the outlines of a group are one thing. An outline is (N, 2) float, x and y in
            pixels where the first pixel spans 0..1, and a letter per vertex: ``L`` for a corner, ``C`` where a cubic
            Bezier curve starts, with this vertex and the next as its control points and the one after as its end.
        size: (H, W) of the result.

    Returns:
        (H, W) int32, position of the group on top, from 1; 0 where none is.

    Raises:
        DataError: An outline has other letters than these, too few vertices, or one that is infinite or no number.

    Source:
        The conversion of polygons to masks in the tools of BDD100K and Scalabel: Agg through matplotlib, no
        anti-aliasing, no line, vertices snapped.
    """
    from matplotlib.backend_bases import GraphicsContextBase
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Affine2D

    if len(groups) > MAX_OUTLINES:
        raise DataError(f"a frame can have {MAX_OUTLINES} outlines. Got: {len(groups)}")
    height, width = size
    renderer = RendererAgg(width, height, dpi=72)
    context = GraphicsContextBase()
    context.set_antialiased(False)
    context.set_linewidth(0)
    context.set_snap(True)
    # The renderer counts rows from below.
    upright = Affine2D().scale(1, -1).translate(0, height)
    for number, group in enumerate(groups, start=1):
        colour = tuple((number >> shift & 255) / 255 for shift in (0, 8, 16))
        for vertices, types in group:
            codes = np.append(_codes(vertices, types), int(Outline.LINETO))
            closed = np.concatenate([vertices, vertices[:1]])
            renderer.draw_path(context, Outline(closed, codes), upright, (*colour, 1.0))
    painted = np.asarray(renderer.buffer_rgba()).astype(np.int32)
    ids: npt.NDArray[np.int32] = painted[..., 0] | painted[..., 1] << 8 | painted[..., 2] << 16
    # What nothing was painted on is transparent, whatever its colour.
    ids[painted[..., 3] == 0] = 0
    return ids


def _codes(vertices: npt.NDArray[np.float64], types: str) -> list[int]:
    """The renderer's codes of the vertices; the two after the first of a curve are the curve's, whatever they say."""
    from matplotlib.path import Path as Outline

    known = {"L": int(Outline.LINETO), "C": int(Outline.CURVE4)}
    if (
        vertices.ndim != 2
        or vertices.shape[1:] != (2,)
        or len(types) != len(vertices)
        or set(types) - set(known)
        or not np.isfinite(vertices).all()
    ):
        raise DataError(
            f"an outline must be (N, 2) numbers with N letters L or C. Got: {vertices.shape} with the "
            f"{len(types)} letters {types[:20]!r}"
        )
    codes, place = [int(Outline.MOVETO)], 1
    while place < len(types):
        n_vertices = 3 if types[place] == "C" else 1
        codes += [known[types[place]]] * n_vertices
        place += n_vertices
    # A curve may end where the outline starts: its end is the vertex that closes it. One vertex less is no curve.
    if types[:1] == "C" or len(codes) > len(types) + 1 or not types:
        raise DataError(f"an outline starts at a corner and a curve has two control points. Got: {types!r}")
    return codes[: len(types)]
