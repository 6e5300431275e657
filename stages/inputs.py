"""Content of inputs as text, for the keys of unfinished work."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gestalt.errors import DataError


def content_hash(path: Path) -> str:
    """SHA-256 over the bytes of a file, or over names and bytes of all files below a folder.

    Raises:
        DataError: There is nothing at ``path``.
    """
    if path.is_file():
        return _digest(path)
    if not path.is_dir():
        raise DataError(f"{path} does not exist; `dvc repro` makes what this stage reads")
    digest = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {_digest(file)}\n".encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
