"""One section from a file of its own, where nothing composes ``params.yaml``; needs no library of configurations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gestalt.config.schema import fill
from gestalt.errors import ConfigError, DataError, MissingDependencyError


def read_section(path: Path, kind: type[Any], name: str, overrides: Sequence[str]) -> Any:
    """The section from a YAML or JSON file.

    Args:
        path: YAML or JSON with every key of the section; YAML needs PyYAML.
        kind: Dataclass of the section.
        name: Of the section, for messages.
        overrides: ``key=value`` or ``section.key=value`` below ``name``.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of the wrong type or out of range.
        MissingDependencyError: A YAML file, and nothing that reads it.
        DataError: There is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; --settings names a file with the section {name}")
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.safe_load(text)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is YAML, and PyYAML is missing: pip install pyyaml, or give the same keys as JSON"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for override in overrides:
        _override(values, name, override)
    return fill(kind, values, name)


def replace_values(settings: Any, name: str, overrides: Sequence[str]) -> Any:
    """A section with a few other values.

    Args:
        settings: Dataclass of the section.
        name: Of the section, for messages.
        overrides: ``key=value`` or ``section.key=value`` below ``name``.

    Raises:
        ConfigError: A key is unknown, or a value is of the wrong type or out of range.
    """
    values = dataclasses.asdict(settings)
    for override in overrides:
        _override(values, name, override)
    return fill(type(settings), values, name)


def _override(values: dict[str, Any], name: str, override: str) -> None:
    key, sign, text = override.removeprefix(f"{name}.").partition("=")
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        section = section.get(parent, {})
    if not sign or not isinstance(section, dict) or last not in section:
        known = f"; known keys: {', '.join(sorted(section))}" if sign and isinstance(section, dict) else ""
        raise ConfigError(f"an override is key=value with a key of {name}. Got: {override!r}{known}")
    try:
        section[last] = json.loads(text)
    except ValueError:
        section[last] = text
