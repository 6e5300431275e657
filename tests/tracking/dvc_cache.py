"""A DVC cache made by hand: what the format is, not what our reader thinks it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def store_bytes(cache: Path, content: bytes, ending: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
    path = cache / "files" / "md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def store_folder(cache: Path, folder: Path) -> str:
    """Copy a folder into the cache; returns its hash with ``.dir``."""
    listing = [
        {"md5": store_bytes(cache, path.read_bytes()), "relpath": path.relative_to(folder).as_posix()}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return store_bytes(cache, json.dumps(listing).encode(), ".dir")
