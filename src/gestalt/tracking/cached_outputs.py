"""Earlier versions of outputs, by the hash that a run recorded: out of DVC's cache, into a folder of their own.

The workspace keeps the version it has. DVC stores a folder as a list of relative paths and hashes, and every file under
its hash, so a version is put together from hard links; what the cache lacks is fetched from the default remote.
"""

from __future__ import annotations

import configparser
import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path, PurePosixPath

from gestalt.errors import DataError

DIRECTORY_ENDING = ".dir"
FETCHED_FILE = "wanted.dvc"


def has_output(root: Path, md5: str, below: str = "") -> bool:
    """Whether the cache holds every file of an output.

    Args:
        root: Repository root.
        md5: The output's hash, as in ``outputs.json`` of a run.
        below: Only this subfolder counts.
    """
    cache = cache_folder(root)
    if not _stored(cache, md5).is_file():
        return False
    files = _files(cache, md5, below)
    return bool(files) and all(_stored(cache, of_file).is_file() for _, of_file in files)


def restore_output(root: Path, md5: str, out: Path, below: str = "") -> None:
    """Put the files of an output into ``out``, as hard links where the disk allows it: never write to them.

    Args:
        root: Repository root.
        md5: The output's hash.
        out: Folder to fill, or file to write.
        below: Only this subfolder; its files then lie directly in ``out``.

    Raises:
        DataError: The cache lacks a file of it.
    """
    if not has_output(root, md5, below):
        raise DataError(f"the DVC cache {cache_folder(root)} does not hold {md5} (any more)")
    cache = cache_folder(root)
    for relative, of_file in _files(cache, md5, below):
        target = out / relative if relative else out
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(_stored(cache, of_file).resolve())
        except OSError:
            shutil.copyfile(_stored(cache, of_file), target)


def fetch_output(root: Path, md5: str, path: str) -> str:
    """Get an output from the default remote into the cache.

    Args:
        root: Repository root.
        md5: The output's hash.
        path: Where the workspace has it, for messages of DVC.

    Returns:
        Why not; empty when DVC is satisfied.
    """
    settings = _settings(root)
    if not settings.has_option("core", "remote"):
        return "no DVC remote is configured"
    # A repository of its own with nothing but a pointer to this version: `dvc fetch` in the workspace would fetch the
    # versions of today's lock file.
    settings.read_dict({"core": {"no_scm": "true"}, "cache": {"dir": str(cache_folder(root))}})
    with tempfile.TemporaryDirectory(prefix="gestalt-fetch-") as place:
        folder = Path(place)
        (folder / ".dvc").mkdir()
        text = io.StringIO()
        settings.write(text)
        (folder / ".dvc" / "config").write_text(text.getvalue(), encoding="utf-8")
        pointer = f"outs:\n- md5: {md5}\n  hash: md5\n  path: {PurePosixPath(path).name}\n"
        (folder / FETCHED_FILE).write_text(pointer, encoding="utf-8")
        try:
            done = subprocess.run(
                ["dvc", "fetch", FETCHED_FILE], cwd=folder, capture_output=True, text=True, check=False
            )
        except OSError as error:
            return f"`dvc fetch` cannot be run: {error}"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"`dvc fetch` from the remote {settings['core']['remote']} failed: {lines[-1]}"
    return ""


def cache_folder(root: Path) -> Path:
    """DVC's cache as ``.dvc/config`` says, by default ``.dvc/cache``."""
    return root / _settings(root).get("cache", "dir", fallback=".dvc/cache")


def _settings(root: Path) -> configparser.ConfigParser:
    """``.dvc/config`` and ``.dvc/config.local`` with paths seen from anywhere; DVC means them from ``.dvc``."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    for section in settings.sections():
        for key in ("dir", "url"):
            text = settings.get(section, key, fallback="").strip('"')
            if text and "://" not in text:
                settings.set(section, key, str((root / ".dvc" / text).resolve()))
    return settings


def _files(cache: Path, md5: str, below: str) -> list[tuple[str, str]]:
    """(relative path, hash) of each file of an output; a file by itself has no path."""
    if not md5.endswith(DIRECTORY_ENDING):
        return [("", md5)]
    listing = _stored(cache, md5)
    try:
        entries = [
            (str(entry["relpath"]), str(entry["md5"]))
            for entry in json.loads(listing.read_text(encoding="utf-8"))
        ]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{listing} is no list of files of DVC: {error!r}") from error
    prefix = f"{below}/" if below else ""
    return [(path.removeprefix(prefix), of_file) for path, of_file in entries if path.startswith(prefix)]


def _stored(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]
