from dataclasses import dataclass
from pathlib import Path

import pytest

from gestalt.data.source import parse_options, read_source
from gestalt.errors import ConfigError, DataError
from tests.data.video import write_source


@dataclass(frozen=True)
class Options:
    split: str = "train"
    rate: float = 17.0
    length: int = 30
    strict: bool = False


def test_a_root_is_relative_to_its_file_and_stays_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("outside").mkdir()
    folder = Path("data/raw/b")
    for root, expected in (
        (".", "data/raw/b"),
        ("../../../outside", "outside"),
        (str(tmp_path / "outside"), "outside"),
    ):
        assert read_source(write_source(folder, "folder", root)).root == Path(expected)


def test_an_absolute_root_outside_stays_absolute(tmp_path, monkeypatch):
    (tmp_path / "repo").mkdir()
    (tmp_path / "video").mkdir()
    monkeypatch.chdir(tmp_path / "repo")
    assert read_source(write_source(Path("b"), "folder", str(tmp_path / "video"))).root == tmp_path / "video"


def test_environment_variables_are_put_in(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOS", str(tmp_path))
    (tmp_path / "kitti").mkdir()
    assert read_source(write_source(tmp_path / "b", "folder", "${VIDEOS}/kitti")).root == tmp_path / "kitti"
    monkeypatch.delenv("VIDEOS")
    with pytest.raises(DataError, match="names an environment variable that is not set"):
        read_source(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter: folder\n", "must hold `adapter`, `root`"),
        ("adapter: folder\nroot: .\nrot: 1\n", "Got: adapter, root, rot"),
        ("- 1\n", "must hold"),
        ("a: [", "is not YAML"),
        ("adapter: folder\nroot: nowhere\n", "root .*nowhere is no folder"),
        ("adapter: folder\nroot: .\noptions: 3\n", "options must be a mapping"),
    ],
)
def test_bad_source_files(tmp_path, text, message):
    (tmp_path / "source.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_source(tmp_path)


def test_a_missing_source_file_says_who_writes_it(tmp_path):
    with pytest.raises(DataError, match=r"source\.yaml does not exist; `gestalt data add`"):
        read_source(tmp_path)


def test_options_are_checked_by_name_and_type():
    assert parse_options(Options, {"rate": 5}, "x") == Options(rate=5)
    with pytest.raises(
        ConfigError, match="adapter x has no option 'sped'; it has: length, rate, split, strict"
    ):
        parse_options(Options, {"sped": 1}, "x")
    for options in ({"length": "3"}, {"length": 2.5}, {"length": True}, {"strict": 1}, {"split": 3}):
        (name,) = options
        with pytest.raises(ConfigError, match=f"option {name} of the adapter x must be"):
            parse_options(Options, options, "x")
