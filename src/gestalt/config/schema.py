"""How a section of ``params.yaml`` is described: frozen dataclasses whose fields say meaning and range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gestalt.errors import ConfigError

# How OmegaConf spells a value that is still to come. Written out, because machines that only train have none.
MISSING: Any = "???"


def setting(
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A field of a section: no default (the value stands in ``params.yaml``), a meaning, a range.

    Args:
        meaning: One line with the unit and, where there is one, the source. It becomes the comment in
            ``params.yaml`` and the row of ``docs/params.md``.
        low: Smallest allowed value, inclusive; of each element for a list.
        high: Largest allowed value, inclusive.
        choices: The allowed strings.
    """
    return dataclasses.field(
        default=MISSING, metadata={"meaning": meaning, "low": low, "high": high, "choices": tuple(choices)}
    )


def section(kind: type, meaning: str) -> Any:
    """A field that is a section of its own."""
    return dataclasses.field(default_factory=kind, metadata={"meaning": meaning})


def fill(kind: type[Any], values: Mapping[str, Any], path: str = "") -> Any:
    """A section from plain nested values, such as a card's, where nothing composes them.

    Args:
        kind: The dataclass of the section.
        values: A value for every field.
        path: Full key of the section, for messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value has another type or is out of range.
    """
    settings = _fill(kind, values, path)
    check_ranges(settings, path)
    return settings


def _fill(kind: type[Any], values: Mapping[str, Any], path: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} is a section with the keys {', '.join(fields)}. Got: {values!r}")
    if different := sorted(set(fields) ^ set(values)):
        raise ConfigError(
            f"{path or kind.__name__} needs the keys {', '.join(fields)}. "
            f"Unknown or missing: {', '.join(different)}"
        )
    sections, filled = sections_of(kind), {}
    for name, field in fields.items():
        key, value = f"{path}.{name}" if path else name, values[name]
        if name in sections:
            filled[name] = _fill(sections[name], value, key)
            continue
        # Annotations are strings here; a whole number may stand for a float, nothing else is converted.
        expected = str(field.type).split("[")[0]
        if expected == "float" and type(value) is int:
            value = float(value)
        if type(value).__name__ != expected:
            raise ConfigError(f"{key} must be {field.type}. Got: {value!r}")
        filled[name] = value
    return kind(**filled)


def sections_of(kind: type) -> dict[str, type]:
    """The sections directly under a dataclass, by name."""
    factories: dict[str, Any] = {field.name: field.default_factory for field in dataclasses.fields(kind)}
    return {name: factory for name, factory in factories.items() if isinstance(factory, type)}


def check_ranges(settings: Any, path: str = "") -> None:
    """Raise on the first value outside the range or the choices that its field states.

    Raises:
        ConfigError: With the key's full path, the allowed range and the value found.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        key = f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(value):
            check_ranges(value, key)
            continue
        for element in value if isinstance(value, list | tuple) else [value]:
            _check_value(key, element, field.metadata)


def _check_value(key: str, value: Any, metadata: Any) -> None:
    choices = metadata.get("choices") or ()
    if choices and value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(choices)}. Got: {value!r}")
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and value < low:
        raise ConfigError(f"{key} must be at least {low}. Got: {value!r}")
    if high is not None and value > high:
        raise ConfigError(f"{key} must be at most {high}. Got: {value!r}")
