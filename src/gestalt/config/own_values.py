"""What people set in the present ``params.yaml``, and how much of it a new composition keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gestalt.config.groups import DEFAULT_PRESET, NO_ABLATION, option_names, option_values
from gestalt.config.loading import check_params, read_file
from gestalt.config.names import flatten, nest, not_a_section
from gestalt.config.overrides import Override, describe, read_choices
from gestalt.config.params import Params
from gestalt.config.presets import compose_values
from gestalt.errors import ConfigError


def compose_onto(path: Path, overrides: Sequence[str]) -> Params:
    """Compose presets and values, starting from the present file.

    An own value is one that differs from the composition of the preset that the file names under ``preset``;
    where it names none that exists, ``embedded`` takes its place.

    - No ``preset=`` is named: that preset is composed with the overrides. Own values stay, except where an
      override, a named variant of their section (``motion=paper``) or a named ablation sets the key. Values of
      an earlier ablation are own values too, so ablations add up; ``ablation=none`` takes every key that any
      ablation sets back to the preset.
    - A ``preset=`` is named: everything is composed afresh, but own batches stay at the end of ``batches``:
      those that neither the old nor the new preset lists.

    A key of the file that does not exist (any longer) is left out. The difference that ``configure`` returns
    shows all this.

    Args:
        path: The present file; without one the overrides alone are composed.
        overrides: Presets and values, such as ``["ablation=without_motion", "motion.runs=4"]``.

    Raises:
        ConfigError: The file cannot be read, a name is unknown, or a value cannot work.
    """
    choices = read_choices(overrides)
    present = read_file(path) if path.exists() else {}
    start = present.get("preset")
    if start not in option_names("preset"):
        start = DEFAULT_PRESET
    before = dict(flatten(_plain(compose_values([f"preset={start}"]))))
    if any(choice.key == "preset" for choice in choices):
        values = compose_values(overrides)
        own = {"batches": _with_own_batches(present, before, _plain(values), origin=str(path))}
    else:
        values = compose_values([f"preset={start}", *overrides])
        own = _own_values(present, before, origin=str(path))
    named = _named_keys(choices)
    for key, value in own.items():
        if not any(f"{key}.".startswith(f"{name}.") for name in named):
            OmegaConf.update(values, key, value)
    return check_params(values, origin=describe(str(path), overrides))


def listed_batches(values: Mapping[str, Any], *, origin: str) -> list[str]:
    """The list ``batches`` of a file or a composition.

    Raises:
        ConfigError: It is no list.
    """
    batches = values.get("batches")
    if not isinstance(batches, list):
        raise ConfigError(f"{origin}: batches must be a list of names. Got: {batches!r}")
    return batches


def _plain(values: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(values)
    return dict(plain)


def _own_values(present: Mapping[str, Any], before: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """Values of the file, by full path, that differ from its preset."""
    own = {}
    for key, value in flatten(present):
        if any(known.startswith(f"{key}.") for known in before):
            raise ConfigError(f"{origin}: {not_a_section(key, value, list(before))}")
        if key in before and value != before[key]:
            own[key] = value
    return own


def _with_own_batches(
    present: Mapping[str, Any], before: Mapping[str, Any], composed: Mapping[str, Any], *, origin: str
) -> list[str]:
    """The batches of a new preset, and those of the file that neither it nor the preset of before lists."""
    batches = listed_batches(composed, origin="presets")
    known = {*before["batches"], *batches}
    there = listed_batches({"batches": [], **present}, origin=origin)
    return batches + [batch for batch in there if batch not in known]


def _named_keys(choices: Sequence[Override]) -> set[str]:
    """Full paths of the keys and sections that overrides set; of every key that an ablation named there sets."""
    named: set[str] = set()
    for choice in choices:
        if choice.key == "ablation":
            options = option_names("ablation") if NO_ABLATION in choice.options else choice.options
            named |= {key for option in options for key, _ in flatten(option_values("ablation", option))}
        else:
            named |= {key for key, _ in flatten(nest(choice.key, choice.value))}
    return named
