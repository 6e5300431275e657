"""Names of keys: all there are, nested values by full path, and what to say about a key that does not exist."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gestalt.config.schema import sections_of
from gestalt.errors import ConfigError

# How alike the full paths of two keys must be for one to be offered in place of the other, and how many are.
LIKENESS, N_OFFERS = 0.8, 3


def known_keys(kind: type, path: str = "") -> list[str]:
    """Full paths of all keys of a dataclass that hold a value, in the order of the file."""
    sections, keys = sections_of(kind), []
    for field in dataclasses.fields(kind):
        key = _join(path, field.name)
        keys += known_keys(sections[field.name], key) if field.name in sections else [key]
    return keys


def flatten(values: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """``{"motion": {"runs": 4}}`` -> ``("motion.runs", 4)``, for every value that is no mapping."""
    for name, value in values.items():
        key = _join(path, name)
        if isinstance(value, Mapping):
            yield from flatten(value, key)
        else:
            yield key, value


def nest(key: str, value: Any) -> dict[str, Any]:
    """``("motion.runs", 4)`` -> ``{"motion": {"runs": 4}}``."""
    *parents, name = key.split(".")
    nested = {name: value}
    for parent in reversed(parents):
        nested = {parent: nested}
    return nested


def check_names(values: Mapping[Any, Any], known: Sequence[str], *, origin: str, advice: str = "") -> None:
    """Raise on the first key that does not exist, and on a section that holds a value instead of keys.

    Args:
        values: Nested plain values, as YAML gives them.
        known: Full paths of all keys.
        origin: What to call the values in messages.
        advice: What else helps against an unknown key.

    Raises:
        ConfigError: With the key's full path, and what to write instead.
    """
    sections = {key[:end] for key in known for end, letter in enumerate(key) if letter == "."}
    for key, value in flatten(values):
        if key in sections:
            raise ConfigError(f"{origin}: {not_a_section(key, value, known)}")
        if key not in known:
            raise ConfigError(f"{origin}: {unknown_key(key, known)}{advice}")


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What to say about a key that does not exist: the nearest by spelling, and those of the same name."""
    offers = difflib.get_close_matches(key, known, n=N_OFFERS, cutoff=LIKENESS)
    name = key.rpartition(".")[2]
    offers += [other for other in known if other.rpartition(".")[2] == name or key.startswith(f"{other}.")]
    if not offers:
        return f"unknown key {key}; docs/params.md lists all keys"
    return f"unknown key {key}; did you mean {' or '.join(list(dict.fromkeys(offers))[:N_OFFERS])}?"


def not_a_section(key: str, value: Any, known: Sequence[str], variants: Sequence[str] = ()) -> str:
    """What to say about a section that was given a value instead of keys.

    Args:
        key: Full path of the section.
        value: What it was given.
        known: Full paths of all keys.
        variants: Names of the files that a composition can take for the section.
    """
    example = min(
        (other for other in known if other.startswith(f"{key}.")), key=lambda other: other.count(".")
    )
    variant = f", or one of its variants: {', '.join(variants)}" if variants else ""
    return f"{key} is a section; name one of its keys, such as {example}=VALUE{variant}. Got: {value!r}"


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
