from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gestalt.config.network import PredictSettings
from gestalt.data.images import read_image, read_png, write_png
from gestalt.errors import DataError
from gestalt.inference.paths import PREDICTIONS, _batches, _Picture, find_pictures, predict_path
from gestalt.panoptic import rgb_to_ids


def picture(seed: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def check_results(out: Path, names: list[str]) -> dict[str, object]:
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
    check_results(tmp_path / "out", ["street"])
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
    check_results(tmp_path / "out", [f"drive_{number:06d}" for number in range(5)])
    overlay = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert int(overlay.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert overlay.get(cv2.CAP_PROP_FPS) == pytest.approx(10)


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


def test_batches_keep_order_hold_one_size_and_are_not_too_long() -> None:
    sizes = [(4, 4), (4, 4), (4, 4), (2, 2), None, (2, 2), (4, 4)]
    pictures = [_Picture(str(n), None if size is None else picture(n, size)) for n, size in enumerate(sizes)]
    batches = list(_batches(iter(pictures), 2))
    assert [[entry.name for entry in batch] for batch in batches] == [
        ["0", "1"],
        ["2"],
        ["3", "4"],
        ["5"],
        ["6"],
    ]
