"""Reading ``params.yaml``: unknown, missing, mistyped and out-of-range keys fail before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gestalt.config.params import Params
from gestalt.config.schema import check_ranges
from gestalt.errors import ConfigError

PARAMS_FILE = Path("params.yaml")


def load_params(path: Path = PARAMS_FILE, overrides: Sequence[str] = ()) -> Params:
    """Read and check the whole file.

    Args:
        path: The YAML file; relative to the working directory.
        overrides: ``section.key=value`` strings for hand runs; DVC never sees them.

    Raises:
        ConfigError: With the full path of the key that is unknown, missing, mistyped or out of range.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; `gestalt configure preset=embedded` writes it")
    try:
        with initialize_config_dir(str(path.resolve().parent), version_base="1.3"):
            values = compose(path.stem, overrides=list(overrides))
    except HydraException as error:
        raise ConfigError(f"{path}: {error}") from error
    return check_params(values, origin=str(path))


def load_section(name: str, path: Path = PARAMS_FILE, overrides: Sequence[str] = ()) -> Any:
    """One section of ``load_params``."""
    return getattr(load_params(path, overrides), name)


def check_params(values: DictConfig, *, origin: str) -> Params:
    """Turn composed values into ``Params``.

    Args:
        values: A whole composition.
        origin: What to call the values in messages.

    Raises:
        ConfigError: See ``load_params``.
    """
    try:
        merged = OmegaConf.merge(writable_schema(Params), values)
        if missing := sorted(OmegaConf.missing_keys(merged)):
            raise ConfigError(f"{origin}: missing {', '.join(missing)}")
        params = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = f" (full key: {error.full_key})" if error.full_key else ""
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}{key}") from error
    assert isinstance(params, Params)
    check_ranges(params)
    return params


def writable_schema(kind: type) -> DictConfig:
    """The schema of a frozen dataclass that values can be merged into; the result is frozen again.

    OmegaConf marks every node of a frozen dataclass read-only, and refuses to merge into nested ones.
    """
    schema: DictConfig = OmegaConf.structured(kind)
    nodes = [schema]
    while nodes:
        node = nodes.pop()
        OmegaConf.set_readonly(node, None)
        children = (node._get_node(key) for key in node)
        nodes += [child for child in children if isinstance(child, DictConfig)]
    return schema
