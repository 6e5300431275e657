from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gestalt.config.network import PredictSettings
from gestalt.data.images import read_image, read_png, write_png
from gestalt.errors import ConfigError, DataError
from gestalt.inference import paths
from gestalt.inference.formats import PREDICTIONS
from gestalt.inference.paths import (
    _batches,
    _each_when_done,
    _Picture,
    find_pictures,
    predict_path,
    sequence_of,
)
from gestalt.inference.video import Video, VideoFile
from gestalt.panoptic import rgb_to_ids


def picture(seed: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def check_results(out: Path, names: list[str]) -> dict[str, Any]:
    content = json.loads((out / PREDICTIONS).read_text())
    assert [entry["image_id"] for entry in content["annotations"]] == names
    for entry in content["annotations"]:
        ids = rgb_to_ids(read_png(out / entry["file_name"]))
        areas = {int(value): int((ids == value).sum()) for value in np.unique(ids[ids > 0])}
        assert {segment["id"]: segment["area"] for segment in entry["segments_info"]} == areas
        assert all(0 < segment["score"] <= 1 for segment in entry["segments_info"])
    assert [entry["isthing"] for entry in content["categories"]] == [0, 0, 0, 1, 1]
    return content


def test_one_picture(tmp_path: Path, network_folder: Path, settings: PredictSettings) -> None:
    write_png(tmp_path / "street.png", picture(0))
    summary = predict_path(tmp_path / "street.png", network_folder, tmp_path / "out", settings=settings)
    assert (summary.n_images, summary.failed) == (1, ())
    content = check_results(tmp_path / "out", ["street"])
    assert content["images"] == [{"id": "street", "file_name": "street.png", "height": 40, "width": 56}]
    assert read_image(tmp_path / "out" / "street_overlay.png").shape == (40, 56, 3)


def test_a_folder_goes_on_after_a_broken_picture_and_records_it(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    source = tmp_path / "in"
    for number, size in enumerate([(40, 56), (40, 56), (32, 64)]):
        write_png(source / f"{number}.png", picture(number, size))
    (source / "1b.png").write_bytes((source / "1.png").read_bytes()[:200])
    (source / "notes.txt").write_text("no picture")
    summary = predict_path(source, network_folder, tmp_path / "out", settings=settings)
    content = check_results(tmp_path / "out", ["0", "1", "2"])
    assert summary.n_images == 3
    assert summary.failed[0][0] == "1b.png"
    assert content["failed"][0]["file_name"] == "1b.png"
    assert "cut short" in content["failed"][0]["reason"]
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_a_video_becomes_maps_per_frame_and_an_overlay_video(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (56, 40))
    for number in range(5):
        writer.write(picture(number))
    writer.release()
    summary = predict_path(path, network_folder, tmp_path / "out", settings=settings)
    assert summary.n_images == 5
    content = check_results(tmp_path / "out", [f"drive_{number:06d}" for number in range(5)])
    assert content["images"][3] == {
        "id": "drive_000003",
        "file_name": "drive_000003.png",
        "height": 40,
        "width": 56,
    }
    overlay = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert int(overlay.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert overlay.get(cv2.CAP_PROP_FPS) == pytest.approx(10)


def write_moving_square(folder: Path, n_frames: int = 6) -> None:
    """Frames whose only structure moves by two pixels a frame."""
    for number in range(n_frames):
        frame = np.full((40, 56, 3), 90, np.uint8)
        frame[10:30, 4 + 2 * number : 24 + 2 * number] = (250, 40, 40)
        write_png(folder / f"{number:03d}.png", frame)


def thing_ids(out: Path) -> list[set[int]]:
    """Ids of the objects of each picture."""
    content = json.loads((out / PREDICTIONS).read_text())
    things = {entry["id"] for entry in content["categories"] if entry["isthing"]}
    return [
        {segment["id"] for segment in entry["segments_info"] if segment["category_id"] in things}
        for entry in content["annotations"]
    ]


def test_a_folder_of_frames_is_linked_when_asked_for(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    write_moving_square(tmp_path / "in")
    linked = predict_path(
        tmp_path / "in", network_folder, tmp_path / "video", settings=settings, is_video=True
    )
    alone = predict_path(tmp_path / "in", network_folder, tmp_path / "pictures", settings=settings)
    assert alone.n_tracks is None
    frames, unlinked = thing_ids(tmp_path / "video"), thing_ids(tmp_path / "pictures")
    assert [len(now) for now in frames] == [len(now) for now in unlinked]
    assert linked.n_tracks == len({(number - 1) // 256 for number in set.union(*frames)})
    # In every picture some object goes on, and ids of pictures alone count from 1 in each.
    assert all(now & later for now, later in itertools.pairwise(frames))
    assert all({(number - 1) // 256 for number in now} == set(range(1, len(now) + 1)) for now in unlinked)
    # Stuff has one id always, with links or without.
    check_results(tmp_path / "video", [f"{number:03d}" for number in range(6)])
    assert not list((tmp_path / "video").glob("*.mp4"))


def test_objects_do_not_go_on_from_one_sequence_of_cityscapes_to_the_next(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    # The same picture six times, so that everything would be linked.
    for place in ("one", "two"):
        for number in range(6):
            sequence = number // 3 if place == "two" else 0
            name = f"monday_{sequence:06d}_{number:06d}_leftImg8bit.png"
            write_png(tmp_path / place / name, picture(0))
    found = {
        place: predict_path(
            tmp_path / place, network_folder, tmp_path / f"out_{place}", settings=settings, is_video=True
        )
        for place in ("one", "two")
    }
    together, apart = thing_ids(tmp_path / "out_one"), thing_ids(tmp_path / "out_two")
    assert all(ids == together[0] != set() for ids in together)
    assert apart[:3] == together[:3]
    assert apart[3] == apart[4] == apart[5]
    assert not apart[2] & apart[3]
    assert found["two"].n_tracks == 2 * len(together[0]) == 2 * (found["one"].n_tracks or 0)


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("aachen_000012_000019_leftImg8bit.png", "aachen_000012"),
        ("bad-honnef_000000_000019.jpg", "bad-honnef_000000"),
        ("my_city2_000003_000019_rightImg8bit.png", "my_city2_000003"),
        ("aachen_000012_leftImg8bit.png", None),
        ("drive_000012.png", None),
        ("000012.png", None),
        # Times are no sequences: a date, a second and its millionths.
        ("20240101_120000_123456.png", None),
        ("camera_1697000000_123456789.png", None),
    ],
)
def test_the_sequence_stands_in_names_of_cityscapes_only(name: str, sequence: str | None) -> None:
    assert sequence_of(name) == sequence


def test_a_video_without_links_has_ids_per_frame(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    write_moving_square(tmp_path / "in")
    with VideoFile(tmp_path / "drive.mp4", 10.0) as video:
        for path in sorted((tmp_path / "in").iterdir()):
            video.add(read_image(path))
    source = tmp_path / "drive.mp4"
    alone = predict_path(source, network_folder, tmp_path / "out", settings=settings, is_video=False)
    assert (alone.n_images, alone.n_tracks) == (6, None)
    linked = predict_path(source, network_folder, tmp_path / "linked", settings=settings)
    assert linked.n_tracks is not None
    assert all((tmp_path / out / "drive_overlay.mp4").exists() for out in ("out", "linked"))


def test_only_the_forms_that_were_asked_for_are_written(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    write_png(tmp_path / "street.png", picture(0))
    out = tmp_path / "out"
    predict_path(tmp_path / "street.png", network_folder, out, settings=settings, forms=["cityscapes"])
    assert sorted(path.name for path in out.iterdir()) == [
        "instanceIds.json",
        "street_gtFine_instanceIds.png",
    ]
    with pytest.raises(ConfigError, match="Got: yolo"):
        predict_path(tmp_path / "street.png", network_folder, out, settings=settings, forms=["yolo"])


def test_a_video_that_ends_early_is_predicted_and_reported(
    tmp_path: Path, network_folder: Path, settings: PredictSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Video(iter([picture(0), picture(1)]), 9, 10.0)
    monkeypatch.setattr(paths, "open_video", lambda _: short)
    summary = predict_path(tmp_path / "drive.mp4", network_folder, tmp_path / "out", settings=settings)
    assert summary.n_images == 2
    assert summary.failed == (
        ("drive.mp4", "ends after 2 frames, 7 less than it says; it is cut short or damaged"),
    )


def test_grey_alpha_and_16_bits_give_what_8_bit_colour_gives(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    grey = picture(4)[..., 0]
    colour = np.repeat(grey[..., None], 3, axis=2)
    alpha = np.concatenate([colour, picture(5)[..., :1]], axis=2)
    forms = {"a_colour": colour, "b_grey": grey, "c_alpha": alpha, "d_deep": colour.astype(np.uint16) * 257}
    for name, image in forms.items():
        write_png(tmp_path / "in" / f"{name}.png", image)
    predict_path(tmp_path / "in", network_folder, tmp_path / "out", settings=settings, forms=["coco"])
    first, *others = (read_png(tmp_path / "out" / f"{name}_panoptic.png") for name in forms)
    assert all((first == other).all() for other in others)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that not even root can write")
def test_a_place_that_cannot_be_written_is_said(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    write_png(tmp_path / "street.png", picture(0))
    with pytest.raises(DataError, match=r"/proc/results cannot be written \(.+\); choose another folder"):
        predict_path(tmp_path / "street.png", network_folder, Path("/proc/results"), settings=settings)


def test_the_same_input_gives_the_same_bytes(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    write_png(tmp_path / "street.png", picture(0))
    for out in ("a", "b"):
        predict_path(tmp_path / "street.png", network_folder, tmp_path / out, settings=settings)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["predictions.json", "street_overlay.png", "street_panoptic.png"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_a_source_that_is_missing_unknown_or_empty_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; give an image, a folder of images or a video"):
        find_pictures(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"holds no image with one of the suffixes \.png"):
        find_pictures(tmp_path)
    write_png(tmp_path / "monday" / "street.png", picture(0))
    with pytest.raises(DataError, match=r"holds no image .*; subfolders are not searched, give one of them"):
        find_pictures(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"unknown suffix; known are \.png.*\.mp4"):
        find_pictures(tmp_path / "a.txt")


def test_results_do_not_go_among_the_images(tmp_path: Path, network_folder: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0))
    with pytest.raises(ConfigError, match="choose another --out"):
        predict_path(tmp_path / "in", network_folder, tmp_path / "in" / ".." / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg"):
        (tmp_path / f"street{suffix}").write_bytes(b"")
    with pytest.raises(DataError, match="several images called street"):
        find_pictures(tmp_path)


def test_a_file_that_only_claims_to_be_a_video_is_reported(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot be opened as a video"):
        predict_path(tmp_path / "drive.mp4", network_folder, tmp_path / "out", settings=settings)


def test_nothing_readable_is_an_error_with_the_first_reason(
    tmp_path: Path, network_folder: Path, settings: PredictSettings
) -> None:
    (tmp_path / "street.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"nothing in .* could be predicted: .*neither PNG nor JPEG"):
        predict_path(tmp_path / "street.png", network_folder, tmp_path / "out", settings=settings)


def test_a_picture_counts_when_its_batch_is_done() -> None:
    batches = [[_Picture("a", picture(0)), _Picture("b", None, "why")], [_Picture("c", picture(1))]]
    worked: list[str] = []
    seen = [
        (entry.file_name, len(worked))
        for entry in _each_when_done(batches, lambda batch: worked.extend(entry.file_name for entry in batch))
    ]
    assert seen == [("a", 2), ("b", 2), ("c", 3)]


def test_batches_keep_order_hold_one_size_and_are_not_too_long() -> None:
    sizes = [(4, 4), (4, 4), (4, 4), (2, 2), None, (2, 2), (4, 4)]
    pictures = [_Picture(str(n), None if size is None else picture(n, size)) for n, size in enumerate(sizes)]
    batches = list(_batches(iter(pictures), 2))
    assert [[entry.file_name for entry in batch] for batch in batches] == [
        ["0", "1"],
        ["2"],
        ["3", "4"],
        ["5"],
        ["6"],
    ]
