import errno
from pathlib import Path

import pytest

from gestalt.data.atomic_files import folder_written_aside, write_bytes, written_aside
from gestalt.errors import DataError


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_half_way_leaves_the_old_file(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(TypeError), written_aside(tmp_path / "a") as aside:
        aside.open("wb").writelines([b"ha", "no bytes"])
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_to_go_on(tmp_path, number):
    with (
        pytest.raises(
            DataError, match=r"no space left while writing .*/a\. Finished work is kept.*run the same"
        ),
        written_aside(tmp_path / "a"),
    ):
        raise OSError(number, "full")
    assert not list(tmp_path.iterdir())


def test_another_trouble_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), written_aside(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")


def test_a_folder_appears_where_a_link_points(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "place")
    for _ in range(2):
        with folder_written_aside(tmp_path / "link") as aside:
            (aside / "a").write_text("a")
        assert (tmp_path / "place" / "a").read_text() == "a"
        # The second time the place is there, and empty.
        (tmp_path / "place" / "a").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "place"]


def test_a_folder_that_somebody_else_fills_meanwhile_is_theirs(tmp_path):
    with (
        pytest.raises(DataError, match=r"out cannot be written: .*not empty.*choose another place"),
        folder_written_aside(tmp_path / "out"),
    ):
        write_bytes(tmp_path / "out" / "theirs", b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


@pytest.mark.parametrize("out", ["file/out", "n" * 250])
def test_a_place_where_no_folder_can_be_is_explained(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"), folder_written_aside(tmp_path / out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is the working directory"), folder_written_aside(Path()):
        pass


def test_a_full_disk_does_not_speak_of_work_that_is_deleted(tmp_path):
    with (
        pytest.raises(DataError, match=r"/out cannot be written: no space left\. Nothing of it is there"),
        folder_written_aside(tmp_path / "out") as aside,
        folder_written_aside(aside) as inner,
        written_aside(inner / "a"),
    ):
        raise OSError(errno.ENOSPC, "full")
    assert not list(tmp_path.iterdir())
