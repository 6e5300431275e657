"""Fusion of one frame: one pseudo-class for every object, and the counts that the thing-stuff split needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError, ShapeError
from gestalt.panoptic import VOID, PanopticMap, UInt8Array, UInt16Array

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Additive counts over frames; the statistics of a union of frames are the sum.

    Attributes:
        n_frames: Frames counted, also those without an instance.
        pixels: (P,) int64, pixels of each pseudo-class after alignment.
        pixels_in_instances: (P,) int64, those of them inside instances.
        instances: (P,) int64, instances of each pseudo-class.
    """

    n_frames: int
    pixels: Counts
    pixels_in_instances: Counts
    instances: Counts

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.pixels, self.pixels_in_instances, self.instances)}
        if len(shapes) != 1 or self.pixels.ndim != 1:
            raise ShapeError(f"statistics must be three vectors of one length (P,). Got: {sorted(shapes)}")

    @property
    def n_pseudo_classes(self) -> int:
        """P."""
        return len(self.pixels)

    def __add__(self, other: Statistics) -> Statistics:
        if self.n_pseudo_classes != other.n_pseudo_classes:
            raise DataError(
                "statistics of labels with different numbers of pseudo-classes cannot be added. "
                f"Got: {self.n_pseudo_classes} and {other.n_pseudo_classes}; label all batches with one probe"
            )
        return Statistics(
            self.n_frames + other.n_frames,
            self.pixels + other.pixels,
            self.pixels_in_instances + other.pixels_in_instances,
            self.instances + other.instances,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists, the form of ``statistics.json``."""
        return {
            "n_frames": self.n_frames,
            "pixels": self.pixels.tolist(),
            "pixels_in_instances": self.pixels_in_instances.tolist(),
            "instances": self.instances.tolist(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Statistics:
        """Inverse of ``to_json``.

        Raises:
            DataError: A count is missing.
        """
        try:
            return cls(
                int(content["n_frames"]),
                *(
                    np.array(content[name], np.int64)
                    for name in ("pixels", "pixels_in_instances", "instances")
                ),
            )
        except KeyError as error:
            raise DataError(
                f"statistics must hold {error.args[0]!r}; `dvc repro pseudo_labels` writes it"
            ) from error


@dataclass(frozen=True, eq=False)
class FusedFrame:
    """The panoptic pseudo-label of one frame.

    Attributes:
        panoptic: ``semantic_map`` holds pseudo-classes after alignment, 255 where none is known;
            ``instance_map`` holds 1..N.
        pseudo_classes: (N,) uint8, pseudo-class of instance n at position n - 1.
        proposals: (N,) int64, the id that the instance had among the proposals.
    """

    panoptic: PanopticMap
    pseudo_classes: UInt8Array
    proposals: Counts


def fuse(
    semantic_map: UInt8Array, proposals: UInt16Array, *, border_px: int = 0, min_area_px: int = 1
) -> FusedFrame:
    """Give every proposal the pseudo-class that most of its pixels have, and overwrite the map there.

    Args:
        semantic_map: (H, W) uint8, pseudo-classes, 255 where none is known. Unknown pixels do not vote.
        proposals: (H, W) uint16, 0 where no object is; ids need not be consecutive.
        border_px: Columns at the left and at the right edge in which proposals are cleared.
        min_area_px: Smallest proposal that may be left over, pixels.

    Returns:
        Instances numbered 1..N in ascending order of their proposal's id. A proposal without any pixel of a
        known pseudo-class is dropped. Between equally frequent pseudo-classes the one that comes first in
        reading order wins, so that renaming pseudo-classes renames the result.

    Raises:
        ShapeError: The maps differ in size or type.

    Source:
        CUPS (Hahn et al., CVPR 2025), alignment of instances and pseudo-classes. The released code keeps
        what the border leaves of a proposal, whatever its size; ours drops it below ``min_area_px``.
    """
    instance_map, kept = number_instances(clear_border(proposals, border_px), min_area_px)
    unaligned = PanopticMap(semantic_map, instance_map)
    pseudo_classes = vote(unaligned, len(kept))
    known = pseudo_classes != VOID
    if not known.all():
        instance_map, remaining = number_instances(
            np.where(np.append(True, known)[instance_map], instance_map, 0).astype(np.uint16), 1
        )
        kept, pseudo_classes = kept[remaining - 1], pseudo_classes[known]
    of_instance = np.append(np.uint8(VOID), pseudo_classes)
    aligned = np.where(instance_map > 0, of_instance[instance_map], semantic_map)
    return FusedFrame(PanopticMap(aligned, instance_map), pseudo_classes, kept)


def clear_border(instance_map: UInt16Array, border_px: int) -> UInt16Array:
    """A copy without instances in the outer columns: there the other view often shows no counterpart.

    Args:
        instance_map: (H, W) uint16.
        border_px: Width of the cleared strip at the left and at the right edge, pixels.
    """
    cleared = instance_map.copy()
    cleared[:, :border_px] = 0
    cleared[:, max(instance_map.shape[1] - border_px, 0) :] = 0
    return cleared


def number_instances(instance_map: UInt16Array, min_area_px: int) -> tuple[UInt16Array, Counts]:
    """Drop small instances and number the others without gaps.

    Args:
        instance_map: (H, W) uint16, 0 where none.
        min_area_px: Smallest instance to keep, pixels.

    Returns:
        (H, W) uint16 with ids 1..N, and (N,) int64, the former id of each, ascending.
    """
    areas = np.bincount(instance_map.ravel())
    areas[0] = 0
    kept = np.flatnonzero(areas >= max(min_area_px, 1))
    table = np.zeros(len(areas), np.uint16)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[instance_map], kept.astype(np.int64)


def vote(panoptic: PanopticMap, n_instances: int) -> UInt8Array:
    """(N,) uint8: the most frequent pseudo-class inside each instance 1..N, 255 where none is known."""
    semantic_map, instance_map = panoptic.semantic_map, panoptic.instance_map
    voting = (instance_map > 0) & (semantic_map != VOID)
    ballots = instance_map[voting].astype(np.int64) * 256 + semantic_map[voting]
    kinds, first, counts = np.unique(ballots, return_index=True, return_counts=True)
    instance, pseudo_class = kinds // 256, kinds % 256
    order = np.lexsort((first, -counts, instance))
    voted, position = np.unique(instance[order], return_index=True)
    winners = np.full(n_instances, VOID, np.uint8)
    winners[voted - 1] = pseudo_class[order][position]
    return winners


def count_frame(panoptic: PanopticMap, n_pseudo_classes: int) -> Statistics:
    """Statistics of one aligned frame, from its pixels.

    Raises:
        DataError: The map holds a pseudo-class beyond 0..P-1.
    """
    semantic_map, instance_map = panoptic.semantic_map, panoptic.instance_map
    known = semantic_map != VOID
    check_pseudo_classes(semantic_map[known], n_pseudo_classes)
    inside = known & (instance_map > 0)
    segments = np.unique(instance_map[inside].astype(np.int64) * 256 + semantic_map[inside])
    return Statistics(
        1,
        np.bincount(semantic_map[known], minlength=n_pseudo_classes),
        np.bincount(semantic_map[inside], minlength=n_pseudo_classes),
        np.bincount(segments % 256, minlength=n_pseudo_classes),
    )


def check_pseudo_classes(pseudo_classes: npt.NDArray[Any], n_pseudo_classes: int) -> None:
    """Raise when a pseudo-class is not in 0..P-1.

    Raises:
        DataError: With the largest value found.
    """
    largest = int(pseudo_classes.max(initial=0))
    if largest >= n_pseudo_classes:
        raise DataError(
            f"pseudo-classes must be 0..{n_pseudo_classes - 1} or {VOID} (void). Got: {largest}; "
            "the semantic maps come from another probe, `dvc repro semantics` refits it"
        )
