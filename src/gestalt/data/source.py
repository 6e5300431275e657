"""``source.yaml``: which adapter reads a delivery of video or a benchmark, from where, with which options."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gestalt.data.atomic_files import write_bytes
from gestalt.errors import ConfigError, DataError

SOURCE_FILE = "source.yaml"
SOURCE_KEYS = {"adapter", "root", "options"}

Options = TypeVar("Options")


@dataclass(frozen=True)
class Source:
    """Where data of one kind comes from.

    Attributes:
        adapter: Name of the adapter.
        root: The folder that the adapter reads; relative to the working directory where it can be.
        options: What the adapter is told besides.
    """

    adapter: str
    root: Path
    options: Mapping[str, Any]


def read_source(folder: Path) -> Source:
    """Read ``folder / "source.yaml"``.

    ``root`` may be relative to that file or absolute; ``${NAME}`` stands for an environment variable.

    Raises:
        DataError: The file or the root is missing, or the file is not what it should be.
    """
    path = folder / SOURCE_FILE
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; `gestalt data add` writes it, or the stage that renders the data"
        )
    try:
        content = YAML(typ="safe").load(path)
    except YAMLError as error:
        raise DataError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or not {"adapter", "root"} <= set(content) <= SOURCE_KEYS:
        raise DataError(
            f"{path} must hold `adapter`, `root` and, if wanted, `options`. "
            f"Got: {', '.join(map(str, content)) if isinstance(content, dict) else repr(content)}"
        )
    options = content.get("options") or {}
    if not isinstance(options, dict):
        raise DataError(f"{path}: options must be a mapping. Got: {options!r}")
    root = locate(folder, str(content["root"]), origin=path)
    if not root.is_dir():
        raise DataError(f"{path}: root {root} is no folder; correct it, or fetch the data")
    return Source(str(content["adapter"]), root, options)


def write_source_file(folder: Path, adapter: str, root: str, options: Mapping[str, Any]) -> None:
    """Write ``folder / "source.yaml"``, aside and then renamed; ``root`` as it shall stand there."""
    stream = io.StringIO()
    YAML().dump({"adapter": adapter, "root": root, "options": dict(options)}, stream)
    write_bytes(folder / SOURCE_FILE, stream.getvalue().encode())


def locate(folder: Path, text: str, *, origin: Path) -> Path:
    """The path that ``text`` names, seen from ``folder``.

    Returns:
        A normalised path: relative to the working directory unless it lies outside and was given absolute.

    Raises:
        DataError: An environment variable in ``text`` is not set.
    """
    expanded = os.path.expandvars(text)
    if "${" in expanded:
        raise DataError(f"{origin}: {text!r} names an environment variable that is not set")
    path = Path(os.path.normpath(folder / expanded))
    # Absolute paths inside the repository would make tables differ between machines.
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def parse_options(kind: type[Options], options: Mapping[str, Any], adapter: str) -> Options:
    """Options of ``source.yaml`` as an adapter's frozen dataclass, whose defaults are the data set's facts.

    Raises:
        ConfigError: An option is unknown or of another type than its default.
    """
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name, value in options.items():
        if name not in fields:
            raise ConfigError(
                f"source.yaml: the adapter {adapter} has no option {name!r}; "
                f"it has: {', '.join(sorted(fields)) or 'none'}"
            )
        expected = type(fields[name].default)
        accepted = (int, float) if expected is float else expected
        if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
            raise ConfigError(
                f"source.yaml: option {name} of the adapter {adapter} must be {expected.__name__}. "
                f"Got: {value!r}"
            )
    return kind(**options)
