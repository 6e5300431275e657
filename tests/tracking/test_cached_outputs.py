from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gestalt.errors import DataError
from gestalt.tracking.cached_outputs import cache_folder, fetch_output, has_output, restore_output
from tests.tracking.dvc_cache import store_bytes, store_folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    for name in ("guided/index", "self_trained/index", "self_trained/shards/00000.tar"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_comes_back_as_it_was(tmp_path: Path, output: Path) -> None:
    md5 = store_folder(tmp_path / ".dvc/cache", output)
    assert has_output(tmp_path, md5)
    restore_output(tmp_path, md5, tmp_path / "again")
    assert files(tmp_path / "again") == files(output)


def test_only_a_subfolder_is_needed_and_brought(tmp_path: Path, output: Path) -> None:
    cache = tmp_path / ".dvc/cache"
    md5 = store_folder(cache, output)
    lost = store_bytes(cache, b"guided/index")
    (cache / "files/md5" / lost[:2] / lost[2:]).unlink()
    assert not has_output(tmp_path, md5)
    assert has_output(tmp_path, md5, "self_trained")
    assert not has_output(tmp_path, md5, "no_such_network")
    restore_output(tmp_path, md5, tmp_path / "again", "self_trained")
    expected = {"index": "self_trained/index", "shards/00000.tar": "self_trained/shards/00000.tar"}
    assert files(tmp_path / "again") == expected
    with pytest.raises(DataError, match=r"cache .*does not hold .*\.dir"):
        restore_output(tmp_path, md5, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_single_file_is_an_output_too(tmp_path: Path) -> None:
    md5 = store_bytes(tmp_path / ".dvc/cache", b"content")
    restore_output(tmp_path, md5, tmp_path / "deep/file")
    assert (tmp_path / "deep/file").read_text() == "content"


def test_a_broken_listing_is_named(tmp_path: Path) -> None:
    md5 = store_bytes(tmp_path / ".dvc/cache", b'[{"path": 1}]', ".dir")
    with pytest.raises(DataError, match=r"no list of files of DVC: KeyError\('relpath'\)"):
        has_output(tmp_path, md5)


def test_the_cache_lies_where_the_settings_say_seen_from_the_dvc_folder(tmp_path: Path) -> None:
    assert cache_folder(tmp_path) == tmp_path / ".dvc/cache"
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = ../../shared\n")
    assert cache_folder(tmp_path) == tmp_path.parent / "shared"
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    dir = /elsewhere\n")
    assert cache_folder(tmp_path) == Path("/elsewhere")


def test_without_a_remote_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("nothing to run")

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch_output(tmp_path, "abc.dir", "data/predictions/kitti") == "no DVC remote is configured"


def test_a_pointer_to_the_old_version_is_fetched_into_the_cache_of_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    config = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../remote\n"
    (tmp_path / ".dvc/config").write_text(config)
    seen: dict[str, str] = {}

    def run(command: list[str], cwd: Path, **_options: Any) -> Any:
        seen["command"] = " ".join(command)
        seen["config"] = (cwd / ".dvc/config").read_text()
        seen["pointer"] = (cwd / command[-1]).read_text()
        return SimpleNamespace(returncode=seen.get("fails", 0), stderr="first\nERROR: no access\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch_output(tmp_path, "abc.dir", "data/predictions/kitti") == ""
    assert seen["command"].startswith("dvc fetch ")
    assert "md5: abc.dir" in seen["pointer"]
    assert f"dir = {tmp_path / '.dvc/cache'}" in seen["config"]
    assert f"url = {tmp_path / 'remote'}" in seen["config"]
    assert "no_scm = true" in seen["config"]
    seen["fails"] = 255  # type: ignore[assignment]
    answer = fetch_output(tmp_path, "abc.dir", "data/predictions/kitti")
    assert answer == "`dvc fetch` from the remote store failed: ERROR: no access"
