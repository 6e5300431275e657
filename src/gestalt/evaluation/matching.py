"""Matching of pseudo-classes to classes by their shared pixels over a whole evaluation set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from gestalt.errors import ConfigError, DataError
from gestalt.evaluation.intersections import IntersectionTable
from gestalt.panoptic import VOID, LabelSpace

IntArray = npt.NDArray[np.int64]

LeftOver = Literal["largest", "void"]
LEFT_OVER_RULES = ("largest", "void")


@dataclass(frozen=True)
class Assignment:
    """The class of every pseudo-class.

    Attributes:
        class_of: Class id per pseudo-class, 255 for none.
        found_by: Per pseudo-class ``known`` (the network learnt classes), ``hungarian``, ``largest`` (a
            left-over: the class with its largest count),
            ``frequent`` (a left-over without a pixel on any class of its kind: the most frequent one) or
            ``none`` (void).
        n_pixels: Pixels that the pseudo-class shares with its class.
    """

    class_of: tuple[int, ...]
    found_by: tuple[str, ...]
    n_pixels: tuple[int, ...]

    def to_records(
        self, space: LabelSpace, things: Collection[int], clusters: Sequence[int]
    ) -> list[dict[str, Any]]:
        """A record per pseudo-class with the name of its class.

        Args:
            space: The classes.
            things: Pseudo-classes that are things.
            clusters: The cluster that each pseudo-class is, where a network has its own order of them.
        """
        return [
            {
                "pseudo_class": index,
                "cluster": cluster,
                "is_thing": index in things,
                "class_id": class_id,
                "class": "void" if class_id == VOID else space.classes[class_id].name,
                "found_by": found_by,
                "n_pixels": n_pixels,
            }
            for index, (cluster, class_id, found_by, n_pixels) in enumerate(
                zip(clusters, self.class_of, self.found_by, self.n_pixels)
            )
        ]


def confusion_matrix(table: IntersectionTable, n_pseudo_classes: int, n_classes: int) -> IntArray:
    """(P, C) int64: pixels of each pseudo-class on each class; void on either side is left out."""
    inside = (table.predicted_class < n_pseudo_classes) & (table.true_class < n_classes)
    cells = table.predicted_class[inside] * n_classes + table.true_class[inside]
    counts = np.bincount(cells, weights=table.n_pixels[inside], minlength=n_pseudo_classes * n_classes)
    return counts.astype(np.int64).reshape(n_pseudo_classes, n_classes)


def match_pseudo_classes(
    confusion: IntArray,
    blocks: Sequence[tuple[Sequence[int], Sequence[int]]],
    left_over: LeftOver = "largest",
) -> Assignment:
    """Match pseudo-classes to classes one to one by the Hungarian method, block by block.

    Args:
        confusion: (P, C) shared pixels.
        blocks: Pairs (pseudo-classes, classes) that are matched among themselves: things with things and
            stuff with stuff, or everything with everything.
        left_over: What unmatched pseudo-classes get: ``largest`` is the class of the block with their largest
            count (many-to-one), ``void`` is none (strict one-to-one).

    Returns:
        One fixed assignment. It does not depend on the order of the pseudo-classes, except between two that share
        exactly as many pixels with every class; classes that no pseudo-class gets are never predicted.

    Raises:
        ConfigError: ``left_over`` is unknown.

    Source:
        Hungarian matching over the whole set with many-to-one left-overs (Hahn et al., CVPR 2025). We differ
        in one point: a matched pair that shares no pixel is no match but a left-over, because which
        pseudo-class the Hungarian method hands to a class that never overlaps with any is arbitrary.
    """
    if left_over not in LEFT_OVER_RULES:
        raise ConfigError(f"left_over must be one of {', '.join(LEFT_OVER_RULES)}. Got: {left_over!r}")
    n_pseudo_classes = len(confusion)
    class_of, found_by = [VOID] * n_pseudo_classes, ["none"] * n_pseudo_classes
    # Rows sorted by content: ties are then broken alike for every order of the pseudo-classes.
    content = np.lexsort(confusion.T[::-1]) if n_pseudo_classes else np.zeros(0, np.int64)
    for pseudo_classes, classes in blocks:
        members = set(pseudo_classes)
        rows = np.array([row for row in content if int(row) in members], np.int64)
        columns = np.array(sorted(classes), np.int64)
        if not len(rows) or not len(columns):
            continue
        counts = confusion[np.ix_(rows, columns)]
        for matched_row, column in zip(*linear_sum_assignment(counts, maximize=True)):
            if counts[matched_row, column] > 0:
                class_of[rows[matched_row]], found_by[rows[matched_row]] = int(columns[column]), "hungarian"
        if left_over == "void":
            continue
        most_frequent = int(columns[np.argmax(counts.sum(axis=0))])
        for row, pseudo_class in enumerate(rows.tolist()):
            if found_by[pseudo_class] == "none" and counts[row].any():
                class_of[pseudo_class], found_by[pseudo_class] = int(columns[counts[row].argmax()]), "largest"
            elif found_by[pseudo_class] == "none":
                class_of[pseudo_class], found_by[pseudo_class] = most_frequent, "frequent"
    shared = [
        int(confusion[row, class_id]) if class_id != VOID else 0 for row, class_id in enumerate(class_of)
    ]
    return Assignment(tuple(class_of), tuple(found_by), tuple(shared))


def known_classes(confusion: IntArray, classes: Sequence[int]) -> Assignment:
    """The assignment of a network that learnt classes: nothing is matched.

    Args:
        confusion: (P, C) shared pixels.
        classes: Class id per row of ``confusion``.

    Raises:
        DataError: They are not as many as the rows, or an id is outside 0..C-1.
    """
    if len(classes) != confusion.shape[0] or not all(0 <= entry < confusion.shape[1] for entry in classes):
        raise DataError(
            f"each of {confusion.shape[0]} outputs needs a class 0..{confusion.shape[1] - 1}. Got: {list(classes)}; "
            "the network learnt other classes than those of the protocol"
        )
    shared = [int(confusion[row, class_id]) for row, class_id in enumerate(classes)]
    return Assignment(tuple(classes), ("known",) * len(classes), tuple(shared))
