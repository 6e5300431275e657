"""Where a result comes from: commit, uncommitted changes, data lock, environment lock, parameters."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gestalt.config import Params
from gestalt.runtime import fingerprint

UNKNOWN = "unknown"
CLEAN = "clean"
HASH_LENGTH = 12

# Where the work runs changes no result, so it must not make two runs of one experiment look different.
NOT_IN_KEY = "runtime"


def pipeline_key(params: Params) -> str:
    """The word that the processes of one pipeline execution share without talking to each other.

    The environment variable ``PIPELINE_KEY`` wins; otherwise the commit (or the name of the DVC experiment)
    and the hash of the parameters. It never enters a DVC hash.
    """
    if key := os.environ.get("PIPELINE_KEY"):
        return key
    origin = os.environ.get("DVC_EXP_NAME") or git_commit()[:HASH_LENGTH]
    values = {key: value for key, value in flatten(params).items() if not key.startswith(NOT_IN_KEY)}
    return f"{origin}-{_hash(repr(sorted(values.items())).encode())}"


def lineage_tags(params: Params, device: str) -> dict[str, str]:
    """Everything needed to find the code, the data and the environment of a run again.

    Args:
        params: The checked ``params.yaml``.
        device: Name of the device the run computes on.

    Returns:
        Tags: ``git.commit``, ``git.dirty`` (``clean`` or the hash of the difference to the commit),
        ``dvc.lock``, ``requirements.lock`` (hashes, or ``missing``), ``params``, ``device``, ``preset``,
        ``seed``, and ``env.<package>`` versions.
    """
    return {
        "git.commit": git_commit(),
        "git.dirty": git_difference(),
        "dvc.lock": file_hash(Path("dvc.lock")),
        "requirements.lock": file_hash(Path("requirements.lock")),
        "params": _hash(repr(sorted(flatten(params).items())).encode()),
        "device": device,
        "preset": params.preset,
        "seed": str(params.seed),
        **{f"env.{name}": version for name, version in fingerprint().items()},
    }


def git_commit() -> str:
    """The commit that is checked out, or ``unknown`` outside git and before the first commit."""
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    return commit.decode().strip() if commit else UNKNOWN


def git_difference() -> str:
    """``clean``, the hash of ``git diff HEAD``, or ``unknown``."""
    difference = _git("diff", "HEAD", "--no-ext-diff")
    if difference is None:
        return UNKNOWN
    return _hash(difference) if difference else CLEAN


def file_hash(path: Path) -> str:
    """The first digits of a file's SHA-256, or ``missing``."""
    return _hash(path.read_bytes()) if path.exists() else "missing"


def folder_hash(folder: Path) -> str:
    """The first digits of a hash over names and bytes below a folder that DVC does not know."""
    parts = [
        (path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return _hash(repr(parts).encode())


def output_hashes(lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """The hash of each output that DVC has recorded: path -> md5, sorted by path.

    Returns:
        An empty mapping when there is no lock file, as in a run without DVC.
    """
    if not lock.exists():
        return {}
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(lock.read_text(encoding="utf-8")) or {}
    found = {
        str(output["path"]): str(output.get("md5", ""))
        for stage in content.get("stages", {}).values()
        for output in stage.get("outs", [])
    }
    return dict(sorted(found.items()))


def evaluation_hash(
    outputs: Mapping[str, str], benchmarks: Path = Path("data/benchmarks"), root: Path = Path()
) -> str:
    """One hash of the evaluation sets: two networks compare only when theirs is equal.

    Args:
        outputs: What ``output_hashes`` returns. Sets that DVC did not make (a user's own copy of a
            benchmark) count with the bytes of their ``source.yaml``.
        benchmarks: Folder of the evaluation sets, seen from ``root``.
        root: Repository root.
    """
    parts = {path: md5 for path, md5 in outputs.items() if path.startswith(f"{benchmarks.as_posix()}/")}
    for source in sorted((root / benchmarks).glob("*/source.yaml")):
        path = (benchmarks / source.parent.name).as_posix()
        if path not in parts:
            parts[path] = file_hash(source)
    return _hash(repr(sorted(parts.items())).encode())


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dataclasses and mappings as one level, ``{"motion.runs": 8, ...}``; lists stay whole."""
    if dataclasses.is_dataclass(values):
        values = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HASH_LENGTH]
