"""Single values of ``params.yaml``, changed in place so that comments and everything else stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PARAMS = Path("params.yaml")


def set_parameter(key: str, value: Any, path: Path = PARAMS) -> None:
    """Set ``section.key``.

    Raises:
        KeyError: The key is not in the file; a new one would only be refused by the next stage.
    """
    *sections, name = key.split(".")
    content = _read(path)
    inner = content
    for section in sections:
        inner = inner[section]
    if name not in inner:
        raise KeyError(f"{path} has no key {key}")
    inner[name] = value
    _write(path, content)


def remove_batch(batch: str, path: Path = PARAMS) -> None:
    """Take a batch out of the list ``batches``; one that is not there changes nothing."""
    content = _read(path)
    if batch in content["batches"]:
        content["batches"].remove(batch)
        _write(path, content)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _read(path: Path) -> Any:
    return _yaml().load(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    aside = path.with_suffix(".tmp")
    with aside.open("w", encoding="utf-8") as file:
        _yaml().dump(content, file)
    aside.rename(path)
