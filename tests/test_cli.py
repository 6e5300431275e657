"""The command line: what it writes, what it says, and how it ends."""

import hashlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

import gestalt.config
from gestalt import cli, delivery, runtime
from gestalt.commands import predict
from gestalt.config import writing
from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.errors import ConfigError
from gestalt.features import catalogue
from gestalt.features.catalogue import PublishedBackbone
from gestalt.inference import paths
from gestalt.network.architecture import build_network
from gestalt.network.checkpoint import NetworkCard, save_network
from gestalt.panoptic import Vocabulary

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
    params = types.SimpleNamespace(batches=["monday"], frames=default_settings("frames"))
    monkeypatch.setattr(gestalt.config, "load_params", lambda *_: params)
    return tmp_path


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for images of 48 x 64 pixels."""
    settings, vocabulary = default_settings("network", "small"), Vocabulary(things=(1,), stuff=(0,))
    folder = tmp_path_factory.mktemp("network")
    save_network(folder, build_network(settings, vocabulary), NetworkCard(settings, vocabulary, (48, 64)))
    return folder


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a street and a broken image, seen from a place without ``params.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "available_cores", lambda: 1)
    folder = tmp_path / "pictures"
    street = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    write_png(folder / "street.png", street)
    (folder / "torn.png").write_bytes((folder / "street.png").read_bytes()[:100])
    return folder


def run(*arguments: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


def write_stereo(folder: Path, n_frames: int = 2, size: tuple[int, int] = (64, 128)) -> None:
    """Two grey cameras in the layout of KITTI odometry, right shifted by 4 px."""
    generator = np.random.default_rng(0)
    height, width = size
    scene = generator.integers(0, 255, (height, width + 32)).astype(np.uint8)
    for number in range(n_frames):
        write_png(folder / f"sequences/00/image_0/{number:06}.png", scene[:, :width])
        write_png(folder / f"sequences/00/image_1/{number:06}.png", scene[:, 4 : width + 4])
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


@pytest.mark.parametrize(
    ("arguments", "height_px"), [((), 48), (("--height", "0"), 0), (("--height", "96"), 96)]
)
def test_images_are_predicted_at_the_height_of_the_training_unless_told_otherwise(
    pictures: Path,
    network: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    height_px: int,
) -> None:
    asked = []

    def predict_path(source: Path, _: Path, out: Path, **values: object) -> paths.PathSummary:
        asked.append(values["settings"])
        return paths.PathSummary(1, (), out)

    monkeypatch.setattr(paths, "predict_path", predict_path)
    assert run("predict", str(pictures), "--network", str(network), *arguments) == 0
    assert [settings.height_px for settings in asked] == [height_px]


def test_a_height_in_params_counts_before_that_of_the_training(
    pictures: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    variants = {"predict": "paper", "tracks": "embedded"}
    monkeypatch.setattr(predict, "own_section", lambda section: default_settings(section, variants[section]))
    monkeypatch.setattr(
        paths,
        "predict_path",
        lambda *_, settings, **__: asked.append(settings) or paths.PathSummary(1, (), Path("out")),
    )
    assert run("predict", str(pictures), "--network", str(network)) == 0
    assert asked[0].height_px == 512


def test_a_folder_with_a_broken_image_is_predicted_and_ends_with_1(
    pictures: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", str(pictures), "--network", str(network), "--out", "out") == 1
    said = capsys.readouterr()
    assert said.out == "1 image -> out\n"
    assert "not read: torn.png: " in said.err
    assert "1 of 2 images could not be read" in said.err
    assert Path("out/street_panoptic.png").exists()


def test_options_of_predict_reach_the_prediction(
    pictures: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def predict_path(source: Path, _: Path, out: Path, **values: Any) -> paths.PathSummary:
        asked.append(values)
        return paths.PathSummary(4, (), out, n_tracks=3)

    monkeypatch.setattr(paths, "predict_path", predict_path)
    common = ("predict", str(pictures), "--network", str(network))
    assert run(*common) == 0
    chosen = (
        "--views",
        "0.5,1",
        "--flip",
        "--batch",
        "7",
        "--video",
        "--format",
        "coco",
        "--format",
        "cityscapes",
    )
    assert run(*common, *chosen) == 0
    assert run(*common, "--no-video", "--no-flip") == 0
    usual = default_settings("predict")
    settings = [values["settings"] for values in asked]
    assert [entry.view_scales for entry in settings] == [usual.view_scales, [0.5, 1.0], usual.view_scales]
    assert [entry.view_flip for entry in settings] == [usual.view_flip, True, False]
    assert [entry.batch_size for entry in settings] == [usual.batch_size, 7, usual.batch_size]
    assert [values["is_video"] for values in asked] == [None, True, False]
    assert [values["forms"] for values in asked] == [
        ("overlay", "coco"),
        ("coco", "cityscapes"),
        ("overlay", "coco"),
    ]
    assert asked[0]["tracks"] == default_settings("tracks")
    assert capsys.readouterr().out.startswith("4 images, 3 objects followed -> outputs/predictions\n")


def test_a_failed_image_is_not_said_to_be_in_a_file_that_was_not_asked_for(
    pictures: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", "out", "--format", "cityscapes")
    assert run("predict", str(pictures), "--network", str(network), *out) == 1
    assert "1 of 2 images could not be read\n" in capsys.readouterr().err
    assert Path("out/street_gtFine_instanceIds.png").exists()


def test_a_network_whose_card_has_another_vocabulary_is_refused(
    pictures: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(network, folder)
    card = json.loads((folder / "card.json").read_text())
    card["vocabulary"] = {"things": [1, 3], "stuff": [0, 2]}
    (folder / "card.json").write_text(json.dumps(card))
    assert run("predict", str(pictures), "--network", str(folder)) == 1
    said = capsys.readouterr().err
    assert "does not fit its card" in said
    assert "Traceback" not in said
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--views", "big"), "--views must be numbers from 0.01 to 8, such as 0.75,1.0,1.25. Got: 'big'"),
        (("--views", "0,1"), "Got: '0,1'"),
        (("--views", "nan"), "Got: 'nan'"),
        (("--views", ""), "Got: ''"),
        (("--format", "yolo"), "--format must be one of overlay, coco, cityscapes. Got: yolo"),
        (("--device", "banana"), "--device must be auto, cpu, cuda or cuda:N. Got: 'banana'"),
        (("--device", "cuda:99"), "--device is 'cuda:99', but "),
        (("--out", "pictures/street.png"), "but pictures/street.png is a file"),
        (("--out", "pictures/street.png/deep"), "but pictures/street.png is a file"),
        ((), "self_training` trains it, `dvc pull` fetches it, and --network"),
        (("--network", "gone"), "--network gone does not exist"),
        (("--network", "pictures"), "--network must be the folder of one, such as models/self_trained"),
        (("--network", "pictures/street.png"), "--network must be a folder, such as pictures. Got the file"),
    ],
)
def test_what_predict_cannot_use_is_said_before_any_work(
    pictures: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("predict", "pictures", *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("gestalt: ")
    assert message in said
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    "command", [("export", "shards", "taken"), ("show", "motion", "0", "--out", "taken")]
)
def test_no_command_takes_a_file_for_its_folder(
    project: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    (project / "taken").write_text("mine")
    assert run(*command) == 1
    assert "taken is a file" in capsys.readouterr().err


def test_adding_a_batch_writes_its_source_and_keeps_comments(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stereo(project / "video")
    arguments = ("--adapter", "kitti_odometry", "--root", "video", "--option", "frame_rate_hz=5")
    assert run("data", "add", "wednesday", *arguments) == 0
    source = YAML(typ="safe").load(project / "data/raw/wednesday/source.yaml")
    assert source == {
        "adapter": "kitti_odometry",
        "root": "../../../video",
        "options": {"frame_rate_hz": 5},
    }
    text = (project / "params.yaml").read_text()
    assert YAML(typ="safe").load(text)["batches"] == ["monday", "wednesday"]
    for comment in ("# a comment of mine", "# deliveries", "# more is slower"):
        assert comment in text
    assert "frames keep" not in capsys.readouterr().out


def test_a_root_with_a_variable_is_stored_for_every_machine(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stereo(project)
    monkeypatch.setenv("VIDEOS", str(project))
    assert run("data", "add", "x", "--adapter", "kitti_odometry", "--root", "${VIDEOS}") == 0
    assert YAML(typ="safe").load(project / "data/raw/x/source.yaml")["root"] == "${VIDEOS}"


def test_a_root_outside_the_repository_is_stored_absolute(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    write_stereo(outside)
    assert run("data", "add", "x", "--adapter", "kitti_odometry", "--root", str(outside)) == 0
    assert YAML(typ="safe").load(project / "data/raw/x/source.yaml")["root"] == str(outside)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("monday", "--adapter", "folder", "--root", "."), "'monday' exists already"),
        (("new", "--adapter", "vhs", "--root", "."), "adapter is 'vhs'; known adapters"),
        (("new", "--adapter", "folder", "--root", "gone"), "gone does not exist"),
        (("new", "--adapter", "folder", "--root", "params.yaml"), "params.yaml is a file; expected a folder"),
        (("new", "--adapter", "folder", "--root", "${NOWHERE}/x"), "an environment variable that is not set"),
        (
            ("bad name", "--adapter", "folder", "--root", "."),
            "a batch name must start with a letter or digit",
        ),
        (
            ("new", "--adapter", "folder", "--root", ".", "--option", "x"),
            "--option must be KEY=VALUE. Got: 'x'",
        ),
        (
            ("new", "--adapter", "folder", "--root", ".", "--option", "x=1"),
            "gestalt: --option: the adapter folder has no option 'x'; it has: left, monocular, right",
        ),
        (
            ("new", "--adapter", "folder", "--root", "empty"),
            "no stereo video in the layout of folder under empty",
        ),
        (("new", "--adapter", "kitti_odometry", "--root", "lonely"), "1 x one-frame sequence"),
        (("new", "--adapter", "kitti_odometry", "--root", "blind"), "1 x missing image"),
    ],
)
def test_a_batch_that_cannot_be_added_leaves_everything_as_it_was(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (project / "empty").mkdir()
    write_stereo(project / "lonely", n_frames=1)
    write_stereo(project / "blind")
    for path in (project / "blind").glob("sequences/00/image_1/*"):
        path.unlink()
    assert run("data", "add", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (project / "data").exists()
    assert (project / "params.yaml").read_text() == PARAMS


def test_a_batch_with_a_broken_first_pair_is_added(project: Path) -> None:
    write_stereo(project / "video", n_frames=3)
    (project / "video/sequences/00/image_1/000000.png").unlink()
    assert run("data", "add", "x", "--adapter", "kitti_odometry", "--root", "video") == 0


def test_adding_and_checking_say_how_much_of_larger_frames_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stereo(project / "video", size=(200, 960))
    kept = "frames keep 192 x 384 of 200 x 960 pixels, 38 %; set frames.scale/height/width"
    assert run("data", "add", "x", "--adapter", "kitti_odometry", "--root", "video") == 0
    assert kept in capsys.readouterr().out
    (project / "params.yaml").unlink()
    assert run("data", "check", "data/raw/x") == 0
    assert kept in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stored", "values", "kept"),
    [
        ((375, 1242), {}, "192 x 384 of 375 x 1242 pixels, 16 %"),
        ((375, 1242), {"height": 0, "width": 0}, ""),
        ((192, 384), {}, ""),
        ((100, 300), {}, ""),
        (
            (1000, 2000),
            {"scale": 0.5, "height": 500, "width": 500},
            "1000 x 1000 of 1000 x 2000 pixels, 50 %",
        ),
    ],
)
def test_a_crop_is_told_in_stored_pixels(
    stored: tuple[int, int], values: dict[str, float], kept: str
) -> None:
    told = delivery.describe_crop(stored, default_settings("frames", **values))
    assert told == (f"frames keep {kept}; set frames.scale/height/width" if kept else "")


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no stereo video in the layout of folder under empty"),
        (("--option", "x=1"), "--option: the adapter folder has no option 'x'"),
    ],
)
def test_checking_with_an_adapter_speaks_of_what_the_user_gave(
    project: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    (project / "empty").mkdir()
    (project / "params.yaml").unlink()
    assert run("data", "check", "empty", "--adapter", "folder", *options) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "source.yaml" not in said


def test_checking_a_file_asks_for_a_folder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", "params.yaml", "--adapter", "folder") == 1
    assert "PATH must be a folder, such as .. Got the file params.yaml" in capsys.readouterr().err


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
    assert delivery.parse_options(["camera=2", "grey=true", "name=a=b"]) == {
        "camera": 2,
        "grey": True,
        "name": "a=b",
    }
    # Names of sequences and days are no numbers and no dates, and a star is no mistake of YAML.
    names = ["a=0012", "b=2011_09_26", "c=2011-09-26", "d=*", "e=[1", "f=", "g='7'", "h=0.5"]
    assert list(delivery.parse_options(names).values()) == [
        "0012", "2011_09_26", "2011-09-26", "*", "[1", "", "7", 0.5,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        delivery.parse_options(["=3"])


def small_backbone(path: Path) -> Path:
    """A file of weights as DINO publishes them, much smaller."""
    import torch

    from gestalt.features.vit import VisionTransformer, VitLayout

    torch.manual_seed(0)
    torch.save(VisionTransformer(VitLayout(4, 64, 1, 1, grid=5)).state_dict(), path)
    return path


def test_published_backbones_are_listed_with_their_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "list") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("dino_vits8", "ViT-S/8", "Apache", "DINOv3"))


def test_checking_weights_names_architecture_and_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = small_backbone(tmp_path / "w.pth")
    assert run("weights", "check", str(path)) == 0
    printed = capsys.readouterr().out
    assert "architecture: ViT 64 wide, 1 deep, patch 4" in printed
    assert f"sha256: {hashlib.sha256(path.read_bytes()).hexdigest()}" in printed
    assert run("weights", "check", str(path), "--patch-size", "8") == 1
    assert "patches must be 8 px. Got: 4 px" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:1000])
    assert run("weights", "check", str(path)) == 1
    assert "cannot be read as weights" in capsys.readouterr().err
    assert run("weights", "check", str(tmp_path / "none.pth")) == 1


def test_weights_come_from_a_folder_and_nothing_is_downloaded_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("nobody asked for a download"))
    entry = PublishedBackbone(
        "small", "ViT 64 wide, 1 deep, patch 4", "w.pth", "http://localhost/w.pth", "MIT", 50_000_000, None
    )
    monkeypatch.setattr(catalogue, "read_catalogue", lambda: {"small": entry})
    (tmp_path / "held").mkdir()
    small_backbone(tmp_path / "held" / "w.pth")
    # There is nobody to answer a question here.
    assert run("weights", "fetch", "small") == 1
    printed = capsys.readouterr()
    assert "licence MIT" in printed.out
    assert "to download http://localhost/w.pth (200 MB) under this licence, add --yes" in printed.err
    assert not (tmp_path / "models").exists()
    assert run("weights", "fetch", "small", "--from", "held") == 0
    printed = capsys.readouterr()
    assert "not known before" in printed.out
    assert "features.file.path=models/backbones/small" in printed.out
    assert run("weights", "check", "models/backbones/small") == 0
    assert run("weights", "fetch", "large") == 1
    assert "known: small" in capsys.readouterr().err


def test_a_file_without_rights_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(args: object) -> None:
        raise PermissionError(13, "Permission denied", "data/locked")

    monkeypatch.setattr(cli, "app", refuse)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor"])
    assert stop.value.code == 1
    assert "data/locked: Permission denied" in capsys.readouterr().err


def test_a_terminated_command_takes_away_what_it_wrote_aside(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from gestalt import cli\n"
        "from gestalt.data.atomic_files import written_aside\n"
        "def work(args):\n"
        "    with written_aside(Path('out.bin')) as aside:\n"
        "        aside.write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.app = work\n"
        "cli.main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []
