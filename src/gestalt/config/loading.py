"""Reading ``params.yaml``: unknown, missing, mistyped, out-of-range and unworkable keys fail before any work."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gestalt.config.checks import check_consistency
from gestalt.config.names import check_names, known_keys
from gestalt.config.overrides import describe, read_values
from gestalt.config.params import Params
from gestalt.config.schema import check_ranges
from gestalt.errors import ConfigError

PARAMS_FILE = Path("params.yaml")
# Missing keys that a message names.
N_LISTED = 5
# What to do about a file that cannot be read.
REWRITE = "mend it by hand, or delete the file and `gestalt configure preset=embedded` writes it anew"
# A file of an older version holds keys that are gone.
UPDATE = " `gestalt configure` brings a file of an older version up to date."


def load_params(path: Path = PARAMS_FILE, overrides: Sequence[str] = ()) -> Params:
    """Read and check the whole file.

    Args:
        path: The YAML file; relative to the working directory.
        overrides: ``section.key=value`` strings for hand runs; DVC never sees them.

    Raises:
        ConfigError: The file is missing or no YAML, or with the full path of the key that is unknown,
            missing, mistyped or out of range, or whose value cannot work.
    """
    content = read_file(path)
    check_names(content, known_keys(Params), origin=str(path), advice=UPDATE)
    values = OmegaConf.create(content)
    for override in read_values(overrides):
        OmegaConf.update(values, override.key, override.value)
    return check_params(values, origin=describe(str(path), overrides))


def load_section(name: str, path: Path = PARAMS_FILE, overrides: Sequence[str] = ()) -> Any:
    """One section of ``load_params``."""
    return getattr(load_params(path, overrides), name)


def read_file(path: Path) -> dict[str, Any]:
    """The nested values of a file, unchecked.

    Raises:
        ConfigError: The file is missing, is no YAML, or holds something else than keys.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; `gestalt configure preset=embedded` writes it")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(path.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(_broken_yaml(path, error)) from error
    except OSError:
        # What OmegaConf says to a lone number.
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys with values, such as `seed: 0`; {REWRITE}")
    return content


def _broken_yaml(path: Path, error: Exception) -> str:
    mark, start = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    place = f"{path}, line {mark.line + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = (
        f" (in what starts in line {start.line + 1})" if start and mark and start.line < mark.line else ""
    )
    return f"{place}: no YAML: {problem}{context}; {REWRITE}"


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
            more = f" and {len(missing) - N_LISTED} more" if len(missing) > N_LISTED else ""
            raise ConfigError(
                f"{origin}: missing {', '.join(missing[:N_LISTED])}{more}; `gestalt configure` adds what is missing"
            )
        params = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = f" (full key: {error.full_key})" if error.full_key else ""
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}{key}") from error
    assert isinstance(params, Params)
    try:
        check_ranges(params)
        check_consistency(params)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
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
