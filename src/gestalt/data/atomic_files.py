"""Files that appear whole or not at all, and a clear message when the disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gestalt.errors import DataError

# Both mean that there is no room: on the device, or in the user's share of it.
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" inside the block into a message that says how to go on.

    Raises:
        DataError: The disk that ``path`` lies on is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"no space left while writing {path}. Finished work is kept: free some space, "
                "then run the same command again and it goes on from there"
            ) from error
        raise


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path beside ``path``; rename it to ``path`` when the block succeeds, else delete it.

    Raises:
        DataError: The disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_full_disk(path):
            yield aside
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` aside, then rename it to ``path``; parent folders are made.

    Raises:
        DataError: The disk is full.
    """
    with written_aside(path) as aside:
        aside.write_bytes(content)
