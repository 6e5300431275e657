"""Overrides such as ``motion.runs=4`` and ``preset=kitti``: what they name and say, checked before their use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from gestalt.config.groups import group_names, option_names
from gestalt.config.names import check_names, known_keys, nest, not_a_section
from gestalt.config.params import Params
from gestalt.config.schema import sections_of
from gestalt.errors import ConfigError


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        text: As it was written.
        key: Full path of a key, or the name of a group.
        value: As YAML would give it.
    """

    text: str
    key: str
    value: Any

    @property
    def options(self) -> list[Any]:
        """The value as the options of a group; ``ablation=[a,b]`` names two."""
        return list(self.value) if isinstance(self.value, list) else [self.value]


def read_values(texts: Sequence[str]) -> list[Override]:
    """Read overrides that name keys of ``params.yaml``, for runs by hand.

    Raises:
        ConfigError: One cannot be read, a key is unknown, or a section was given a value.
    """
    overrides = [_read(text) for text in texts]
    for override in overrides:
        check_names(nest(override.key, override.value), known_keys(Params), origin=override.text)
    return overrides


def read_choices(texts: Sequence[str]) -> list[Override]:
    """Read overrides that name options of groups, such as presets, or keys of ``params.yaml``.

    Raises:
        ConfigError: As ``read_values``, and when a group has no such option.
    """
    overrides, groups = [_read(text) for text in texts], group_names()
    known = [*known_keys(Params), *(group for group in groups if group not in sections_of(Params))]
    for override in overrides:
        is_choice = override.key in groups and not isinstance(override.value, dict)
        if not is_choice:
            check_names(nest(override.key, override.value), known, origin=override.text)
        elif not all(option in option_names(override.key) for option in override.options):
            raise ConfigError(f"{override.text}: {_no_option(override, known)}")
    return overrides


def describe(origin: str, texts: Sequence[str]) -> str:
    """What values come from, for messages: ``params.yaml with motion.runs=4 seed=1``."""
    return f"{origin} with {' '.join(texts)}" if texts else origin


def _read(text: str) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(
            f"{text}: no KEY=VALUE; write motion.runs=4 or 'batches=[monday,tuesday]', in quotes for the shell"
        ) from error
    if parsed.is_delete():
        raise ConfigError(f"{text}: a key cannot be taken out; give it a value")
    if parsed.is_sweep_override():
        raise ConfigError(
            f"{text}: several values for one key; write a list as '{parsed.key_or_group}=[1,2]'"
        )
    key = f"{parsed.key_or_group}@{parsed.package}" if parsed.package else parsed.key_or_group
    return Override(text, key, parsed.value())


def _no_option(override: Override, known: Sequence[str]) -> str:
    options = option_names(override.key)
    if override.key in sections_of(Params):
        return not_a_section(override.key, override.value, known, options)
    return f"{override.key} must be one of {', '.join(options)}. Got: {override.value!r}"
