"""Writing ``params.yaml``: a composition of presets, with the meaning of each key as its comment."""

from __future__ import annotations

import dataclasses
import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from gestalt.config.loading import PARAMS_FILE
from gestalt.config.params import Params
from gestalt.config.presets import compose_params
from gestalt.errors import ConfigError

HEADER = (
    "The values of the current experiment: every stage reads its section, DVC tracks them, nothing else\n"
    "configures anything. Edit by hand, or compose presets: gestalt configure preset=embedded motion.runs=4\n"
    "docs/params.md lists every key with its range.\n"
)
INDENT = 2


def configure(overrides: Sequence[str], path: Path = PARAMS_FILE, *, write: bool = True) -> str:
    """Compose presets into ``params.yaml``; comments that people wrote there are kept.

    Args:
        overrides: Presets and values, such as ``["preset=cityscapes", "motion.runs=4"]``.
        path: The file to write.
        write: Only show the difference when false.

    Returns:
        The difference to the present file as a unified diff; empty when nothing changes.

    Raises:
        ConfigError: A preset, key or value is not allowed; the file is left as it was.
    """
    params = compose_params(overrides)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = render_params(params, before)
    if write and after != before:
        aside = path.with_suffix(".tmp")
        aside.write_text(after, encoding="utf-8")
        aside.rename(path)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} (composed)"
    )
    return "".join(lines)


def add_batch(batch: str, path: Path = PARAMS_FILE) -> None:
    """Append a batch to the list ``batches`` of the file and leave everything else as it stands.

    Raises:
        ConfigError: The batch is already there.
    """
    yaml = _yaml()
    content = yaml.load(path.read_text(encoding="utf-8"))
    if batch in content["batches"]:
        raise ConfigError(f"{path}: batches already holds {batch!r}; a batch is immutable, choose a new name")
    content["batches"].append(batch)
    aside = path.with_suffix(".tmp")
    aside.write_text(_dump(yaml, content), encoding="utf-8")
    aside.rename(path)


def render_params(params: Params, before: str = "") -> str:
    """The text of ``params.yaml`` for these values, keeping the comments of ``before``."""
    yaml = _yaml()
    content = yaml.load(before) if before.strip() else None
    if content is None:
        content = CommentedMap()
        content.yaml_set_start_comment(HEADER)
    _update(content, params, depth=0)
    return _dump(yaml, content)


def parameter_table() -> str:
    """The Markdown page ``docs/params.md``: key, value of the embedded preset, range, meaning."""
    lines = [
        "# Parameters",
        "",
        "Every key of `params.yaml`, made from the dataclasses in `src/gestalt/config` by `make docs`.",
        "",
        "| key | embedded | range | meaning |",
        "|---|---|---|---|",
    ]
    lines += _rows(compose_params(), "")
    return "\n".join(lines) + "\n"


def _rows(settings: Any, prefix: str) -> list[str]:
    rows = []
    for field in dataclasses.fields(settings):
        value, key = getattr(settings, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            rows += [f"| **{key}** | | | {field.metadata['meaning']} |", *_rows(value, f"{key}.")]
            continue
        low, high = field.metadata["low"], field.metadata["high"]
        allowed = ", ".join(field.metadata["choices"])
        if low is not None or high is not None:
            allowed = f"{'' if low is None else low} .. {'' if high is None else high}".strip()
        rows.append(f"| `{key}` | `{value}` | {allowed} | {field.metadata['meaning']} |")
    return rows


def _update(content: CommentedMap, settings: Any, depth: int) -> None:
    fields = dataclasses.fields(settings)
    for stale in set(content) - {field.name for field in fields}:
        del content[stale]
    for position, field in enumerate(fields):
        value = getattr(settings, field.name)
        is_new = field.name not in content
        if dataclasses.is_dataclass(value):
            inner = content[field.name] if not is_new else CommentedMap()
            _update(inner, value, depth + 1)
            if is_new:
                content.insert(position, field.name, inner)
        elif is_new:
            content.insert(position, field.name, _plain(value))
        elif content[field.name] != value:
            content[field.name] = _plain(value)
        if is_new:
            # An empty line sets sections and the first key apart.
            gap = "\n" if depth == 0 and (position == 0 or dataclasses.is_dataclass(value)) else ""
            content.yaml_set_comment_before_after_key(
                field.name, before=gap + field.metadata["meaning"], indent=depth * INDENT
            )


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    sequence = CommentedSeq(value)
    sequence.fa.set_flow_style()
    return sequence


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096  # never fold a line
    yaml.indent(mapping=INDENT, sequence=INDENT + 2, offset=INDENT)
    return yaml


def _dump(yaml: YAML, content: CommentedMap) -> str:
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
