"""COCO's run-length encoding of masks: lengths of runs, column by column, as text of 6 bits a character.

Runs alternate between outside and inside, beginning with outside. From the fourth on, a length is written as its
difference to the length two runs before, five bits a character, lowest first; the sixth bit says that more follow.

Source: the format of the COCO API (Lin et al., ECCV 2014), which MOTS text files and Scalabel use.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gestalt.errors import DataError

IntArray = npt.NDArray[np.int64]

# Characters count from this one.
ZERO = ord("0")
VALUE, SIGN, MORE = 0b011111, 0b010000, 0b100000
BITS = 5
# Lengths of images have at most 32 bits, so a number never has more characters.
MAX_CHARACTERS = 7


def decode_runs(text: str, n_pixels: int) -> IntArray:
    """Lengths of the runs of a mask.

    Args:
        text: What the file holds.
        n_pixels: Height times width of the mask.

    Returns:
        (R,) int64, pixels: outside, inside, outside, ...

    Raises:
        DataError: ``text`` is no run-length encoding of so many pixels.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - ZERO
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * MORE:
        raise DataError(f"a run-length encoding holds characters from '0' to 'o' only. Got: {text[:40]!r}")
    ends = np.flatnonzero((codes & MORE) == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise DataError(f"the run-length encoding is cut short: {text[-10:]!r} is not its end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    n_characters = ends + 1 - starts
    if n_characters.max() > MAX_CHARACTERS:
        raise DataError(f"a number of the run-length encoding has more than {BITS * MAX_CHARACTERS} bits")
    place = np.arange(len(codes)) - np.repeat(starts, n_characters)
    lengths = np.add.reduceat((codes & VALUE) << (BITS * place), starts)
    lengths -= np.where(codes[ends] & SIGN, 1 << (BITS * n_characters), 0)
    for first in (1, 2):
        lengths[first::2] = np.cumsum(lengths[first::2])
    if (lengths < 0).any() or lengths.sum() != n_pixels:
        raise DataError(f"the run-length encoding must have {n_pixels} pixels. Got: {_count(lengths)}")
    return lengths


def encode_runs(lengths: IntArray) -> str:
    """Inverse of ``decode_runs``."""
    differences = lengths.copy()
    differences[3:] -= lengths[1:-2]
    characters = bytearray()
    for number in differences.tolist():
        is_last = False
        while not is_last:
            code, number = number & VALUE, number >> BITS
            is_last = number == (-1 if code & SIGN else 0)
            characters.append(ZERO + (code if is_last else code | MORE))
    return characters.decode("ascii")


def _count(lengths: IntArray) -> str:
    return "a run of negative length" if (lengths < 0).any() else str(lengths.sum())
