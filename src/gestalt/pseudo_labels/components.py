"""Objects without motion: compact connected components of the pseudo-class map, for an ablation."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gestalt.config.pseudo_labels import ComponentSettings
from gestalt.panoptic import VOID, UInt8Array, UInt16Array

FloatArray = npt.NDArray[np.floating[Any]]

LARGEST_ID = np.iinfo(np.uint16).max


def component_proposals(
    semantic_map: UInt8Array, depth_m: FloatArray, focal_length: float, settings: ComponentSettings
) -> UInt16Array:
    """What is connected, compact and of an object's size is an object.

    Args:
        semantic_map: (H, W) uint8, pseudo-classes, 255 where none is known.
        depth_m: (H, W) float, metres, NaN where unknown.
        focal_length: Pixels at the resolution of the maps.
        settings: Limits of area, surface and compactness.

    Returns:
        (H, W) uint16, components that pass numbered 1..N in reading order of their first pixel, 0 elsewhere.
        Components without any depth have no known surface and do not pass.

    Source:
        Ours; the plain reading of "what is connected is an object" (8-connected) that a method without
        motion cues can fall back to. Touching objects of one pseudo-class merge: that is the point of the
        ablation.
    """
    components = connected_components(semantic_map)
    areas = np.bincount(components.ravel())
    n_components = len(areas)
    passes = areas >= settings.min_area_px
    passes &= areas <= settings.max_area_share * semantic_map.size
    passes[0] = False
    passes &= _box_fill(components, areas) >= settings.min_box_fill
    surface = surface_m2(components, depth_m, focal_length, n_components)
    passes &= (surface >= settings.min_surface_m2) & (surface <= settings.max_surface_m2)
    kept = np.flatnonzero(passes)[:LARGEST_ID]
    table = np.zeros(n_components, np.uint16)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[components]


def connected_components(semantic_map: UInt8Array) -> npt.NDArray[np.int64]:
    """(H, W) int64: 8-connected regions of equal pseudo-class, 1..N in reading order, 0 where void."""
    components = np.zeros(semantic_map.shape, np.int64)
    n_components = 0
    for pseudo_class in np.unique(semantic_map[semantic_map != VOID]):
        found, labels = cv2.connectedComponents(
            (semantic_map == pseudo_class).astype(np.uint8), connectivity=8
        )
        components += np.where(labels > 0, labels + n_components, 0)
        n_components += found - 1
    # Numbers by class would change when pseudo-classes are renamed; those in reading order do not.
    former, first = np.unique(components, return_index=True)
    former, first = former[former > 0], first[former > 0]
    table = np.zeros(n_components + 1, np.int64)
    table[former[np.argsort(first)]] = np.arange(1, len(former) + 1)
    return table[components]


def surface_m2(
    components: npt.NDArray[np.int64], depth_m: FloatArray, focal_length: float, n_components: int
) -> npt.NDArray[np.float64]:
    """Visible surface of each component, seen as facing the camera.

    Args:
        components: (H, W) int64 in 0..N-1.
        depth_m: (H, W) float, metres, NaN where unknown.
        focal_length: Pixels.
        n_components: N.

    Returns:
        (N,) float64, square metres: area times the mean surface of its pixels with depth; NaN where none has.
    """
    known = np.isfinite(depth_m)
    per_pixel = (depth_m[known].astype(np.float64) / focal_length) ** 2
    counts = np.bincount(components[known], minlength=n_components)
    sums = np.bincount(components[known], per_pixel, n_components)
    mean = np.divide(sums, counts, out=np.full(n_components, np.nan), where=counts > 0)
    areas = np.bincount(components.ravel(), minlength=n_components)
    return np.asarray(mean * areas, np.float64)


def _box_fill(components: npt.NDArray[np.int64], areas: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    height, width = components.shape
    rows, columns = np.indices((height, width))
    flat = components.ravel()
    low = np.full((2, len(areas)), max(height, width))
    high = np.zeros((2, len(areas)), np.int64)
    for axis, positions in enumerate((rows, columns)):
        np.minimum.at(low[axis], flat, positions.ravel())
        np.maximum.at(high[axis], flat, positions.ravel())
    boxes = np.maximum(np.prod(high - low + 1, axis=0), 1)
    return np.asarray(areas / boxes, np.float64)
