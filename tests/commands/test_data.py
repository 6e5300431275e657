"""`gestalt data check` of ground truth and `gestalt data convert`: what they say, write and exit with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gestalt import cli
from gestalt.data.ground_truth import dataset_of, find_ground_truth
from gestalt.data.images import write_png
from tests.data.video import SAMPLES, needs_samples, write_folder_video

FRAME = "ulm_000001_000019"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def city(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A frame of ground truth in Cityscapes form, with its image."""
    monkeypatch.chdir(tmp_path)
    write_truth([[7, 26001, 26001], [24, 0, 26002]])
    write_png(Path(f"city/leftImg8bit/val/ulm/{FRAME}_leftImg8bit.png"), np.zeros((2, 3, 3), np.uint8))
    return Path("city")


def write_truth(rows: list[list[int]], dtype: type = np.uint16) -> None:
    write_png(Path(f"city/gtFine/val/ulm/{FRAME}_gtFine_instanceIds.png"), np.array(rows, dtype))


def test_checking_good_truth_counts_what_is_there(city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    assert run("check", "city", "--adapter", "cityscapes") == 0
    said = capsys.readouterr().out
    assert "1 of 1 annotated frames can be read; sizes: 2 x 3 (1)" in said
    assert "1 of 1 images are there" in said
    assert "void in cityscapes19: 16.67 % of all pixels" in said
    rows = {
        words[1]: words[2:] for line in said.splitlines() if len(words := line.replace("│", " ").split()) > 2
    }
    assert rows["car"] == ["1", "3", "50.00", "%", "2"]
    assert rows["person"] == ["1", "1", "16.67", "%", "1"]
    assert "Raw ids of cityscapes: nothing here makes numbers lie." in said
    assert sorted(Path().rglob("*")) == before


def test_checking_truth_that_lies_names_the_frames_and_ends_with_1(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth([[7, 26, 26], [24, 0, 26]], np.uint8)
    assert run("check", "city", "--adapter", "cityscapes") == 1
    said = capsys.readouterr().out
    assert "ERROR: 1 x instance ids saved with 8 bits" in said
    assert f"  {FRAME} (city/gtFine/val/ulm/{FRAME}_gtFine_instanceIds.png)" in said
    assert "numbers from this ground truth would lie" in said


def test_a_layout_with_truth_alone_is_not_blamed_for_missing_video(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", "city", "--adapter", "cityscapes", "--what", "video") == 1
    assert "no stereo video in the layout of cityscapes under city" in capsys.readouterr().err
    assert run("check", "city", "--adapter", "cityscapes", "--what", "truth") == 0
    assert run("check", "city", "--adapter", "cityscapes", "--what", "both") == 1
    assert "--what must be auto, video or truth" in capsys.readouterr().err


def test_video_is_still_checked_as_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder_video(tmp_path)
    assert run("check", str(tmp_path), "--adapter", "folder") == 0
    assert "2 of 2 pairs are usable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("check", "city", "--adapter", "voc"),
            "adapter is 'voc'; known adapters: bdd, bdd_scalabel, cityscapes",
        ),
        (("check", "city", "--adapter", "bdd"), "no ground truth in the layout of bdd under city"),
        (
            ("check", "city", "--adapter", "bdd", "--option", "x=1"),
            "--option: the adapter bdd has no option 'x'",
        ),
        (("check", "city", "--option", "x=1"), "city holds no source.yaml; say how the data is laid out"),
        (("check", "none"), "none does not exist"),
        (("convert", "city", "out", "--to", "bdd"), "city holds no source.yaml"),
        (
            ("convert", "city", "out", "--to", "voc", "--adapter", "cityscapes"),
            "the form of ground truth is 'voc'",
        ),
        (
            ("convert", "city", "city", "--to", "coco_panoptic", "--adapter", "cityscapes"),
            "city holds files already",
        ),
        (("convert", "city", "out", "--to", "bdd", "--adapter", "cityscapes"), "holds the classes of bdd"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    city: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(Path().rglob("*"))
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_options_belong_to_what_was_typed(city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("city/source.yaml").write_text("adapter: cityscapes\nroot: .\n")
    assert run("check", "city") == 0
    assert run("check", "city", "--option", "split=val") == 1
    assert "--option needs --adapter" in capsys.readouterr().err


def test_converting_makes_a_benchmark_folder(city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("city", "coco", "--to", "coco_panoptic", "--adapter", "cityscapes", "--images", "link")
    assert run("convert", *arguments) == 0
    said = capsys.readouterr().out
    assert "1 frames written to coco in the form coco_panoptic: read back and equal" in said
    assert "1 images beside them." in said
    (frame,) = find_ground_truth(Path("coco"))
    assert frame.image.samefile(f"city/leftImg8bit/val/ulm/{FRAME}_leftImg8bit.png")
    np.testing.assert_array_equal(frame.read().instance_map, [[0, 26001, 26001], [0, 0, 26002]])
    assert run("check", "coco") == 0
    assert run("convert", "coco", "back", "--to", "cityscapes", "--no-verify") == 0
    assert "not read back" in capsys.readouterr().out
    assert dataset_of(Path("back")) == "cityscapes"


def test_objects_that_have_no_room_are_named_and_renumbered_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = np.array([[[35, 0, 0, 31], [7, 0, 0, 7]]], np.uint8)
    write_png(Path("bdd/labels/pan_seg/bitmasks/val/a.png"), mask)
    arguments = ("bdd", "out", "--to", "cityscapes", "--adapter", "bdd", "--images", "copy")
    assert run("convert", *arguments) == 1
    assert "frame a (bdd/labels/pan_seg/bitmasks/val/a.png)" in capsys.readouterr().err
    assert not Path("out").exists()
    assert run("convert", *arguments, "--renumber") == 0
    assert "1 frames have no image: a" in capsys.readouterr().out
    assert find_ground_truth(Path("out"))[0].read().instance_map.tolist() == [[35000, 0]]


@needs_samples
def test_the_real_bitmasks_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(SAMPLES / "bdd100k"), "--adapter", "bdd") == 0
    said = capsys.readouterr().out
    assert "2 of 2 annotated frames can be read; sizes: 720 x 1280 (2)" in said
    assert "note: 2 x image is not there" in said


def test_what_cannot_be_read_has_no_share_of_void(city: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_truth([[144, 145]], np.uint8)
    assert run("check", "city", "--adapter", "cityscapes") == 1
    said = capsys.readouterr().out
    assert "0 of 1 annotated frames can be read; sizes: none" in said
    assert "void in" not in said


def test_a_layout_with_neither_truth_nor_video_says_so(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", "city", "--adapter", "cityscapes", "--option", "split=test") == 1
    assert "neither ground truth nor stereo video in the layout of cityscapes under city" in (
        capsys.readouterr().err
    )
