"""Writing ``params.yaml``: a composition of presets, with the meaning of each key as its comment."""

from __future__ import annotations

import dataclasses
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from gestalt.config.loading import PARAMS_FILE, read_file
from gestalt.config.own_values import compose_onto, listed_batches
from gestalt.config.params import Params
from gestalt.config.presets import compose_params
from gestalt.errors import ConfigError

HEADER = (
    "The values of the current experiment: every stage reads its section, DVC tracks them, nothing else\n"
    "configures anything. Edit by hand, or compose presets: gestalt configure preset=embedded motion.runs=4\n"
    "docs/params.md lists every key with its range.\n"
)
INDENT = 2
KEY = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: |$)")
# A comment behind a value: a quoted # is followed by a quote before the line ends.
BEHIND = re.compile(r"(?<= )#[^'\"]*$")
# Where comments after the last key are kept.
END = "end of the file"


def configure(overrides: Sequence[str], path: Path = PARAMS_FILE, *, write: bool = True) -> str:
    """Compose presets and values into ``params.yaml``; own values and comments of people there are kept.

    ``compose_onto`` says which own values: all but what is named, or own batches alone when a preset is named.

    Args:
        overrides: Presets and values, such as ``["preset=cityscapes", "motion.runs=4"]``.
        path: The file to write.
        write: Only show the difference when false.

    Returns:
        The difference to the present file as a unified diff; empty when nothing changes.

    Raises:
        ConfigError: The file cannot be read, or a preset, key or value is not allowed; the file is left as
            it was.
    """
    params = compose_onto(path, overrides)
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
        ConfigError: The file cannot be read, or the batch is already there.
    """
    if batch in listed_batches(read_file(path), origin=str(path)):
        raise ConfigError(f"{path}: batches already holds {batch!r}; a batch is immutable, choose a new name")
    yaml = _yaml()
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["batches"].append(batch)
    aside = path.with_suffix(".tmp")
    aside.write_text(_dump(yaml, content), encoding="utf-8")
    aside.rename(path)


def render_params(params: Params, before: str = "") -> str:
    """The text of ``params.yaml`` for these values, keeping the comments that people wrote into ``before``.

    The file is written anew each time, so a key that came or went leaves no comment in a wrong place.
    """
    yaml = _yaml()
    content = CommentedMap()
    content.yaml_set_start_comment(HEADER)
    _fill(content, params, depth=0)
    text = _dump(yaml, content)
    known = {f"# {line}" for line in [*HEADER.splitlines(), *_meanings(params)]}
    above, behind = _comments(before)
    lines: list[str] = []
    for line, key in _keyed_lines(text):
        own = [comment for comment in above.get(key, []) if comment not in known] if key else []
        indent = line[: len(line) - len(line.lstrip())]
        lines += [f"{indent}{comment}" for comment in own]
        lines.append(f"{line}  {behind[key]}" if key in behind else line)
    lines += [comment for comment in above.get(END, []) if comment not in known]
    return "\n".join(lines) + "\n"


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


def _fill(content: CommentedMap, settings: Any, depth: int) -> None:
    for position, field in enumerate(dataclasses.fields(settings)):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            content[field.name] = CommentedMap()
            _fill(content[field.name], value, depth + 1)
        else:
            content[field.name] = _plain(value)
        # An empty line sets sections and the first key apart.
        gap = "\n" if depth == 0 and (position == 0 or dataclasses.is_dataclass(value)) else ""
        content.yaml_set_comment_before_after_key(
            field.name, before=gap + field.metadata["meaning"], indent=depth * INDENT
        )


def _meanings(settings: Any) -> Iterator[str]:
    for field in dataclasses.fields(settings):
        yield field.metadata["meaning"]
        if dataclasses.is_dataclass(value := getattr(settings, field.name)):
            yield from _meanings(value)


def _keyed_lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line with the full path of the key that it holds; without a key the path is empty."""
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = KEY.match(line)
        if found is None:
            yield line, ""
            continue
        indent = len(found["indent"])
        parents = [parent for parent in parents if parent[0] < indent] + [(indent, found["name"])]
        yield line, ".".join(name for _, name in parents)


def _comments(text: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Comments of a file by the key that they stand above, and by the key that they stand behind."""
    above: dict[str, list[str]] = {}
    behind: dict[str, str] = {}
    waiting: list[str] = []
    for line, key in _keyed_lines(text):
        if line.lstrip().startswith("#"):
            waiting.append(line.strip())
        elif key:
            above[key], waiting = waiting, []
            if (comment := BEHIND.search(line)) is not None:
                behind[key] = comment[0]
    above[END] = waiting
    return above, behind


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
