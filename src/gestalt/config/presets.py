"""Presets: Hydra config groups under ``gestalt/conf``, composed into ``params.yaml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gestalt.config.groups import PRESETS
from gestalt.config.loading import check_params, writable_schema
from gestalt.config.overrides import describe, read_choices
from gestalt.config.params import Params
from gestalt.config.schema import check_ranges
from gestalt.errors import ConfigError


def compose_params(overrides: Sequence[str] = ()) -> Params:
    """Compose presets and values: ``["preset=cityscapes", "motion.runs=4"]``.

    Raises:
        ConfigError: A group, an option or a key is unknown, or a value cannot work.
    """
    return check_params(compose_values(overrides), origin=describe("presets", overrides))


def compose_values(overrides: Sequence[str] = ()) -> DictConfig:
    """What ``compose_params`` checks: all values, some perhaps still references to others.

    Raises:
        ConfigError: A group, an option or a key is unknown.
    """
    read_choices(overrides)
    try:
        with initialize_config_dir(str(PRESETS), version_base="1.3"):
            return compose("params", overrides=list(overrides))
    except HydraException as error:
        wanted = " ".join(overrides) or "the default preset"
        raise ConfigError(f"cannot compose {wanted}: {str(error).splitlines()[0]}") from error


def default_settings(section: str, variant: str = "embedded", **values: Any) -> Any:
    """One section of the presets as its frozen dataclass, for code and tests that need no ``params.yaml``.

    Args:
        section: Name of the section, such as ``motion``.
        variant: File under ``conf/<section>``.
        values: Fields to replace.
    """
    kinds = {field.name: field.default_factory for field in dataclasses.fields(Params)}
    kind: Any = kinds[section]
    merged = OmegaConf.merge(writable_schema(kind), OmegaConf.load(PRESETS / section / f"{variant}.yaml"))
    if missing := sorted(OmegaConf.missing_keys(merged)):
        raise ConfigError(f"conf/{section}/{variant}.yaml: missing {', '.join(missing)}")
    settings = dataclasses.replace(OmegaConf.to_object(merged), **values)  # type: ignore[type-var]
    check_ranges(settings, section)
    return settings
