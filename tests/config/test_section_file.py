"""A section from a file of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from gestalt.config.schema import section, setting
from gestalt.config.section_file import read_section, replace_values
from gestalt.errors import ConfigError, DataError


@dataclass(frozen=True)
class Inner:
    size: int = setting("a size", low=1)


@dataclass(frozen=True)
class Outer:
    rate: float = setting("a rate", low=0)
    inner: Inner = section(Inner, "a section")


VALUES = {"rate": 0.5, "inner": {"size": 3}}


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_sections_are_read_and_overridden(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"own.{suffix}"
    path.write_text(json.dumps(VALUES))  # JSON is YAML too
    assert read_section(path, Outer, "outer", []) == Outer(0.5, Inner(3))
    assert read_section(path, Outer, "outer", ["rate=2", "outer.inner.size=7"]) == Outer(2.0, Inner(7))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("other=1", "a key of outer. Got: 'other=1'"),
        ("rate", "key=value"),
        ("inner.size=0", r"outer\.inner\.size must be at least 1"),
        ("inner.size=many", r"outer\.inner\.size must be int"),
        ("inner.size.more=1", "key=value"),
    ],
)
def test_overrides_that_cannot_work_are_refused(tmp_path: Path, override: str, message: str) -> None:
    (tmp_path / "own.json").write_text(json.dumps(VALUES))
    with pytest.raises(ConfigError, match=message):
        read_section(tmp_path / "own.json", Outer, "outer", [override])


def test_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; --settings names a file with the section outer"):
        read_section(tmp_path / "none.json", Outer, "outer", [])
    (tmp_path / "own.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_section(tmp_path / "own.json", Outer, "outer", [])
    (tmp_path / "own.json").write_text('{"rate": 1}')
    with pytest.raises(ConfigError, match="Unknown or missing: inner"):
        read_section(tmp_path / "own.json", Outer, "outer", [])


def test_single_values_of_a_section_are_replaced_and_checked() -> None:
    before = Outer(0.5, Inner(3))
    assert replace_values(before, "outer", ["inner.size=7", "outer.rate=2"]) == Outer(2.0, Inner(7))
    assert replace_values(before, "outer", []) == before
    with pytest.raises(ConfigError, match=r"outer\.inner\.size must be at least 1. Got: 0"):
        replace_values(before, "outer", ["inner.size=0"])
    with pytest.raises(ConfigError, match=r"a key of outer\. Got: 'nonsense=1'"):
        replace_values(before, "outer", ["nonsense=1"])
