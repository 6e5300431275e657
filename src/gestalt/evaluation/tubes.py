"""Segments over time: tables of a video's frames become tables of its tubes and of its windows of frames.

A tube is a segment (class, instance) over several frames of one sequence. Its areas and intersections are sums over
the frames' tables, so pixels are read once per frame, whatever is asked of the video later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gestalt.errors import ConfigError, DataError, name_some
from gestalt.evaluation.intersections import IntersectionTable, group_rows, sum_by

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SequencePairs:
    """Pairs of a predicted and a true tube that share pixels in one sequence, and when they do.

    Attributes:
        tubes: Table with a single "image", the sequence: a row per pair, pixels summed over all frames.
        n_frames: T, frames with ground truth.
        frame: (R,) int64, place of each observation among those frames, 0..T-1.
        pair: (R,) int64, row of ``tubes`` that was observed.
        n_pixels: (R,) int64, pixels that the pair shares in that frame.
    """

    tubes: IntersectionTable
    n_frames: int
    frame: IntArray
    pair: IntArray
    n_pixels: IntArray


def split_sequences(
    table: IntersectionTable, sequence_of: Mapping[str, tuple[str, int]]
) -> Iterator[SequencePairs]:
    """Gather the frames of each sequence, in the order of their numbers; sequences come sorted by name.

    Args:
        table: Frames in any order; instances keep one id over the frames of a sequence, on both sides.
        sequence_of: Sequence and number of each image of the table; names of other images are allowed. Numbers may
            have gaps: frames without ground truth are no part of the video.

    Raises:
        DataError: An image belongs to no sequence, or two images of a sequence have one number.
    """
    names, sequence, place = _order_frames(table, sequence_of)
    n_frames = np.bincount(sequence, minlength=len(names))
    sequence_of_row = sequence[table.image]
    order = np.argsort(sequence_of_row, kind="stable")
    ends = np.cumsum(np.bincount(sequence_of_row, minlength=len(names)))
    for index, (name, end) in enumerate(zip(names, ends.tolist(), strict=True)):
        rows = order[ends[index - 1] if index else 0 : end]
        first, pair = group_rows(
            table.true_class[rows],
            table.true_instance[rows],
            table.is_crowd[rows],
            table.predicted_class[rows],
            table.predicted_instance[rows],
        )
        one_each = rows[first]
        yield SequencePairs(
            tubes=IntersectionTable(
                image_ids=(name,),
                image=np.zeros(len(first), np.int64),
                predicted_class=table.predicted_class[one_each],
                predicted_instance=table.predicted_instance[one_each],
                true_class=table.true_class[one_each],
                true_instance=table.true_instance[one_each],
                is_crowd=table.is_crowd[one_each],
                n_pixels=sum_by(pair, table.n_pixels[rows], len(first)),
            ),
            n_frames=int(n_frames[index]),
            frame=place[table.image[rows]],
            pair=pair,
            n_pixels=table.n_pixels[rows],
        )


def window_table(pairs: SequencePairs, n_frames: int) -> IntersectionTable:
    """A table whose "images" are all windows of ``n_frames`` successive frames, its segments their tubes.

    Returns:
        T - ``n_frames`` + 1 windows, overlapping; none where the sequence is shorter.

    Raises:
        ConfigError: ``n_frames`` is below 1.
    """
    if n_frames < 1:
        raise ConfigError(f"a window must have at least 1 frame. Got: {n_frames}")
    n_windows = max(0, pairs.n_frames - n_frames + 1)
    n_pairs = len(pairs.tubes)
    # Every observation is part of each window that begins at its frame or up to n_frames - 1 earlier.
    window = (pairs.frame[:, None] - np.arange(n_frames)).ravel()
    observation = np.repeat(np.arange(len(pairs.frame)), n_frames)
    is_inside = (window >= 0) & (window < n_windows)
    window, observation = window[is_inside], observation[is_inside]
    codes, of_code = np.unique(window * n_pairs + pairs.pair[observation], return_inverse=True)
    window, pair = np.divmod(codes, max(n_pairs, 1))
    tubes = pairs.tubes
    return IntersectionTable(
        image_ids=tuple(f"{tubes.image_ids[0]}:{index}+{n_frames}" for index in range(n_windows)),
        image=window,
        predicted_class=tubes.predicted_class[pair],
        predicted_instance=tubes.predicted_instance[pair],
        true_class=tubes.true_class[pair],
        true_instance=tubes.true_instance[pair],
        is_crowd=tubes.is_crowd[pair],
        n_pixels=sum_by(of_code, pairs.n_pixels[observation], len(codes)),
    )


def _order_frames(
    table: IntersectionTable, sequence_of: Mapping[str, tuple[str, int]]
) -> tuple[list[str], IntArray, IntArray]:
    """Names of the sequences, sorted; (N,) the sequence of each image; (N,) its place among the frames there."""
    loose = [name for name in table.image_ids if not sequence_of.get(name, ("", 0))[0]]
    if loose:
        raise DataError(
            f"{len(loose)} of {len(table.image_ids)} images belong to no sequence, so nothing can be said about them "
            f"over time. Got: {name_some(loose)}; evaluate them as single images, or give their "
            "ground truth in a form that names sequences"
        )
    given = [sequence_of[name] for name in table.image_ids]
    names = sorted({name for name, _ in given})
    position = {name: index for index, name in enumerate(names)}
    sequence = np.array([position[name] for name, _ in given], np.int64)
    number = np.array([number for _, number in given], np.int64)
    order = np.lexsort((number, sequence))
    is_twice = (np.diff(sequence[order]) == 0) & (np.diff(number[order]) == 0)
    if is_twice.any():
        shown = [
            f"{table.image_ids[first]} and {table.image_ids[second]} ({given[first][0]}, number {given[first][1]})"
            for first, second in zip(order[:-1][is_twice], order[1:][is_twice])
        ]
        raise DataError(
            f"the frames of a sequence must have different numbers. Got {len(shown)} pairs with the same: "
            f"{name_some(shown)}"
        )
    starts = np.searchsorted(sequence[order], np.arange(len(names)))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - starts[sequence[order]]
    return names, sequence, place
