import errno

import pytest

from gestalt.data.atomic_files import write_bytes, written_aside
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
