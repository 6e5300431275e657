"""The command line: what it writes, what it says, and how it ends."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

import gestalt.config
from gestalt import cli
from gestalt.config import writing
from gestalt.data.images import write_png
from gestalt.errors import ConfigError

PARAMS = """\
# a comment of mine
batches: [monday]  # deliveries
motion:
  runs: 8  # more is slower
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository whose parameters name one batch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    params = types.SimpleNamespace(batches=["monday"])
    monkeypatch.setattr(gestalt.config, "load_params", lambda *_: params)
    return tmp_path


def run(*arguments: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def write_stereo(folder: Path, n_frames: int = 2) -> None:
    """Two grey cameras in the layout of KITTI odometry, right shifted by 4 px."""
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 255, (64, 160)).astype(np.uint8)
    for number in range(n_frames):
        write_png(folder / f"sequences/00/image_0/{number:06}.png", scene[:, :128])
        write_png(folder / f"sequences/00/image_1/{number:06}.png", scene[:, 4:132])
    calibration = "P0: 100 0 64 0 0 100 32 0 0 0 1 0\nP1: 100 0 64 -50 0 100 32 0 0 0 1 0\n"
    (folder / "sequences/00/calib.txt").write_text(calibration)


def test_help_names_every_command_and_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom gestalt.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'cv2', 'pandas', 'mlflow', 'prefect', 'hydra', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    for command in ("predict", "configure", "export", "doctor", "data", "show"):
        assert command in answer.stdout


def test_a_mistake_of_the_user_is_one_line_and_exit_code_1(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "nowhere", "out") == 1
    message = capsys.readouterr().err
    assert message.startswith("gestalt: nowhere is no shard folder")
    assert "Traceback" not in message


def test_predicting_a_missing_file_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("predict", "photo.png") == 1
    assert "photo.png does not exist" in capsys.readouterr().err


def test_adding_a_batch_writes_its_source_and_keeps_comments(project: Path) -> None:
    (project / "video").mkdir()
    assert run("data", "add", "wednesday", "--adapter", "folder", "--root", "video", "--option", "a=2") == 0
    source = YAML(typ="safe").load(project / "data/raw/wednesday/source.yaml")
    assert source == {"adapter": "folder", "root": "../../../video", "options": {"a": 2}}
    text = (project / "params.yaml").read_text()
    assert YAML(typ="safe").load(text)["batches"] == ["monday", "wednesday"]
    for comment in ("# a comment of mine", "# deliveries", "# more is slower"):
        assert comment in text


def test_a_root_with_a_variable_is_stored_for_every_machine(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOS", str(project))
    assert run("data", "add", "x", "--adapter", "folder", "--root", "${VIDEOS}") == 0
    assert YAML(typ="safe").load(project / "data/raw/x/source.yaml")["root"] == "${VIDEOS}"


def test_a_root_outside_the_repository_is_stored_absolute(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    assert run("data", "add", "x", "--adapter", "folder", "--root", str(outside)) == 0
    assert YAML(typ="safe").load(project / "data/raw/x/source.yaml")["root"] == str(outside)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("monday", "--adapter", "folder", "--root", "."), "'monday' exists already"),
        (("new", "--adapter", "vhs", "--root", "."), "adapter is 'vhs'; known adapters"),
        (("new", "--adapter", "folder", "--root", "gone"), "gone does not exist"),
        (("a/b", "--adapter", "folder", "--root", "."), "must start with a letter or digit"),
        (
            ("new", "--adapter", "folder", "--root", ".", "--option", "x"),
            "--option must be KEY=VALUE. Got: 'x'",
        ),
    ],
)
def test_a_batch_that_cannot_be_added_leaves_everything_as_it_was(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("data", "add", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (project / "data").exists()
    assert (project / "params.yaml").read_text() == PARAMS


def test_checking_good_video_counts_its_pairs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_stereo(tmp_path / "video", n_frames=3)
    before = sorted(tmp_path.rglob("*"))
    assert run("data", "check", "video", "--adapter", "kitti_odometry") == 0
    said = capsys.readouterr().out
    assert "2 of 2 pairs are usable" in said
    assert "0.500 m" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_checking_video_with_a_missing_image_names_it_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_stereo(tmp_path / "video", n_frames=3)
    (tmp_path / "video/sequences/00/image_1/000002.png").unlink()
    assert run("data", "check", "video", "--adapter", "kitti_odometry") == 1
    said = capsys.readouterr().out
    assert "1 of 2 pairs are usable" in said
    assert "000002.png" in said


def test_checking_a_folder_without_a_source_asks_for_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("data", "check", ".") == 1
    assert "--adapter" in capsys.readouterr().err


def test_configure_prints_the_difference_and_can_leave_the_file_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def compose(overrides: list[str], *, write: bool) -> str:
        asked.append((overrides, write))
        return "" if len(asked) > 1 else "-runs: 8\n+runs: 4\n"

    monkeypatch.setattr(writing, "configure", compose)
    assert run("configure", "preset=embedded", "motion.runs=4", "--dry-run") == 0
    assert capsys.readouterr().out == "-runs: 8\n+runs: 4\n"
    assert run("configure") == 0
    assert capsys.readouterr().out == "params.yaml stays as it is\n"
    assert asked == [(["preset=embedded", "motion.runs=4"], False), ([], True)]


def test_option_values_are_read_as_yaml() -> None:
    assert cli.parse_options(["camera=2", "grey=true", "name=a=b"]) == {
        "camera": 2,
        "grey": True,
        "name": "a=b",
    }
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        cli.parse_options(["=3"])
