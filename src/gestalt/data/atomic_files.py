"""Files and folders that appear whole or not at all, and a clear message when the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
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


@contextmanager
def folder_written_aside(out: Path) -> Iterator[Path]:
    """Give an empty folder beside ``out``; rename it to ``out`` when the block succeeds, else delete it.

    Links are followed: where ``out`` is one, the folder that it names is written.

    Raises:
        DataError: ``out`` is a file, holds something or is the working directory, or the disk refuses, be it full or
            not to be written.
    """
    place = out.resolve()
    if place == Path.cwd():
        raise DataError(
            f"{out} is the working directory, which cannot be replaced; choose a folder inside it"
        )
    aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            what = "holds files already" if place.is_dir() else "is a file"
            raise DataError(
                f"{out} {what}; nothing is written over it: choose another place, or remove it first"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        yield aside
        # Fails where somebody else has put something there meanwhile.
        if place.exists():
            place.rmdir()
        aside.rename(place)
    except (OSError, DataError) as error:
        # Whoever wrote a file inside has called it by a name that is gone, and spoken of work that is kept.
        cause = error.__cause__ if isinstance(error, DataError) else error
        is_full = isinstance(cause, OSError) and cause.errno in FULL
        if isinstance(error, DataError) and not is_full:
            raise
        raise DataError(
            f"{out} cannot be written: {'no space left' if is_full else cause}. Nothing of it is there; mend that, "
            "or choose another place"
        ) from cause
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` aside, then rename it to ``path``; parent folders are made.

    Raises:
        DataError: The disk is full.
    """
    with written_aside(path) as aside:
        aside.write_bytes(content)
