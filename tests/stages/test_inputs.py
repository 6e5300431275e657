"""The hash of a folder changes with names and bytes, and with nothing else."""

import hashlib
from pathlib import Path

import pytest

from gestalt.errors import DataError
from stages.inputs import content_hash


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_equal_content_in_another_place_has_one_hash(tmp_path: Path) -> None:
    assert content_hash(write(tmp_path / "a", x="1", y="2")) == content_hash(
        write(tmp_path / "b", y="2", x="1")
    )


def test_bytes_and_names_count(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / "a", x="1", y="2"),
        write(tmp_path / "b", x="1", y="3"),
        write(tmp_path / "c", x="1", z="2"),
        write(tmp_path / "d", x="2", y="1"),
        write(tmp_path / "e", x="1"),
    ]
    assert len({content_hash(folder) for folder in folders}) == len(folders)


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    write(tmp_path, x="1", y="2", z="1")
    assert content_hash(tmp_path / "x") == hashlib.sha256(b"1").hexdigest() == content_hash(tmp_path / "z")
    assert content_hash(tmp_path / "x") != content_hash(tmp_path / "y")


def test_a_missing_input_is_an_error_not_an_empty_hash(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone does not exist"):
        content_hash(tmp_path / "gone")
