import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gestalt.config.presets import default_settings
from gestalt.data.images import write_png
from gestalt.data.manifest import (
    build_manifest,
    check_share,
    count_faults,
    read_manifest,
    spread,
    write_manifest,
)
from gestalt.errors import ConfigError, DataError
from stages.manifest import manifest
from tests.data.video import (
    FX,
    HEIGHT,
    SAMPLES,
    STEREO_BASELINE,
    WIDTH,
    needs_samples,
    plane,
    write_cityscapes_video,
    write_folder_video,
    write_source,
)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings():
    return default_settings("manifest")


def reasons(table):
    return dict(zip(table["frame_id"], table["reason"].str.partition(":")[0]))


def test_a_good_batch_has_a_complete_row_per_pair(settings):
    table = build_manifest(write_cityscapes_video(Path("data/raw/b"), range(4)), "b", settings)
    assert table["status"].tolist() == ["ok"] * 3
    row = table.iloc[1]
    assert row["left"] == ("data/raw/b/leftImg8bit_sequence/train/city/city_000000_000001_leftImg8bit.png")
    assert (row["batch"], row["height"], row["width"]) == ("b", HEIGHT, WIDTH)
    assert row["stereo_baseline"] == STEREO_BASELINE
    assert row["intrinsics"][0] == FX
    assert (row["optical_flow"], row["disparity"], row["disparity_next"], row["reason"]) == ("", "", "", "")


def test_what_is_written_is_what_is_read(settings):
    table = build_manifest(write_folder_video(Path("b"), range(3)), "b", settings)
    write_manifest(table, Path("m.parquet"))
    frames = read_manifest(Path("m.parquet"))
    assert [frame.frame_id for frame in frames] == ["sequence_0000", "sequence_0001"]
    assert frames[0].right == Path("b/right/0000.png")
    assert frames[0].intrinsics.shape == (3, 3)
    assert frames[0].intrinsics[1, 1] == 201
    assert not frames[0].has_measurements
    assert pq.read_schema("m.parquet").field("stereo_baseline").type == "double"


def test_the_table_is_the_same_wherever_the_repository_lies(settings, tmp_path, monkeypatch):
    contents = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        table = build_manifest(write_folder_video(Path("data/raw/b"), range(3)), "b", settings)
        write_manifest(table, Path("m.parquet"))
        contents.append(Path("m.parquet").read_bytes())
    assert contents[0] == contents[1]


def test_a_missing_right_image_breaks_its_two_pairs_and_no_other(settings):
    folder = write_folder_video(Path("b"), range(5))
    Path("b/right/0002.png").unlink()
    table = build_manifest(folder, "b", settings)
    assert reasons(table) == {
        "sequence_0000": "",
        "sequence_0001": "missing image",
        "sequence_0002": "missing image",
        "sequence_0003": "",
    }
    assert "b/right/0002.png does not exist" in table["reason"].iloc[1]


def test_a_size_mismatch_names_both_files_and_sizes(settings):
    folder = write_folder_video(Path("b"), range(2))
    write_png(Path("b/right/0000.png"), plane(0, "right")[:-1])
    (row,) = build_manifest(folder, "b", settings).to_dict("records")
    assert row["status"] == "broken"
    assert row["reason"] == (
        "size mismatch: b/right/0000.png is 95 x 192 (rows x columns), but b/left/0000.png is 96 x 192"
    )


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_image_is_found(settings, verify):
    folder = write_folder_video(Path("b"), range(3))
    path = Path("b/left/0002.png")
    path.write_bytes(path.read_bytes()[:1000])
    table = build_manifest(folder, "b", replace(settings, verify_checksums=verify))
    assert reasons(table) == {"sequence_0000": "", "sequence_0001": "unreadable image"}


def test_a_damaged_byte_is_found_when_every_byte_is_checked(settings):
    folder = write_folder_video(Path("b"), range(3))
    path = Path("b/left/0002.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged" in build_manifest(folder, "b", settings)["reason"].iloc[1]


def test_a_zero_stereo_baseline_breaks_every_pair(settings):
    table = build_manifest(write_folder_video(Path("b"), range(3), stereo_baseline=0), "b", settings)
    assert set(table["status"]) == {"broken"}
    assert (
        table["reason"].str.contains("stereo_baseline must be positive. Got: 0 in b/calibration.yaml").all()
    )


def test_swapped_cameras_break_the_whole_sequence_and_no_other(settings):
    write_folder_video(Path("b/good"), range(6))
    write_folder_video(Path("b/swapped"), range(6))
    for name, other in (("left", "x"), ("right", "left"), ("x", "right")):
        Path("b/swapped", name).rename(Path("b/swapped", other))
    table = build_manifest(write_source(Path("b"), "folder"), "b", settings)
    by_sequence = table.groupby("sequence")["reason"].apply(lambda column: set(column.str.partition(":")[0]))
    assert by_sequence.to_dict() == {"good": {""}, "swapped": {"left and right swapped"}}
    assert table["reason"].str.contains("so are 2 of 2 checked pairs of swapped").sum() == 3


def test_one_swapped_pair_among_good_ones_is_alone(settings):
    folder = write_folder_video(Path("b"), range(6))
    write_png(Path("b/left/0001.png"), plane(1, "right"))
    write_png(Path("b/right/0001.png"), plane(1, "left"))
    table = build_manifest(folder, "b", replace(settings, content_checks_per_sequence=5))
    assert reasons(table)["sequence_0001"] == "left and right swapped"
    assert (table["status"] == "ok").sum() == 4


def test_a_pair_that_is_not_rectified_is_found(settings):
    folder = write_folder_video(Path("b"), range(3))
    for path in Path("b/right").iterdir():
        write_png(path, np.roll(plane(int(path.stem), "right"), 3, 0))
    assert set(reasons(build_manifest(folder, "b", settings)).values()) == {"not rectified"}
    unchecked = build_manifest(folder, "b", replace(settings, content_checks_per_sequence=0))
    assert set(unchecked["status"]) == {"ok"}


def test_a_sequence_of_one_frame_is_a_row_with_a_reason(settings):
    table = build_manifest(write_folder_video(Path("b"), range(1)), "b", settings)
    assert reasons(table) == {"sequence_0000": "one-frame sequence"}
    assert np.isnan(table["stereo_baseline"].iloc[0])


def test_a_frame_gap_is_a_row_with_a_reason(settings):
    table = build_manifest(write_folder_video(Path("b"), [0, 1, 4, 5]), "b", settings)
    assert reasons(table) == {"sequence_0000": "", "sequence_0001": "frame gap", "sequence_0004": ""}


def test_one_id_for_two_frames_is_kept_once(settings):
    write_folder_video(Path("b/a b"), range(2))
    write_folder_video(Path("b/a?b"), range(2))
    table = build_manifest(write_source(Path("b"), "folder"), "b", settings)
    assert table["frame_id"].tolist() == ["a-b_0000"] * 2
    assert sorted(table["reason"].str.partition(":")[0]) == ["", "repeated frame id"]


def test_an_empty_folder_says_what_was_looked_for(settings):
    with pytest.raises(
        DataError, match=r"no stereo video in the layout of cityscapes under b; see the docstring"
    ):
        build_manifest(write_source(Path("b"), "cityscapes"), "b", settings)


def test_an_unknown_adapter_is_a_mistake_of_the_configuration(settings):
    with pytest.raises(ConfigError, match="adapter is 'nuscenes'"):
        build_manifest(write_source(Path("b"), "nuscenes"), "b", settings)


def test_the_limit_counts_broken_pairs_and_shows_examples(settings):
    folder = write_folder_video(Path("b"), range(5))
    Path("b/right/0004.png").unlink()
    table = build_manifest(folder, "b", settings)
    check_share(table, 0.25)
    with pytest.raises(
        DataError, match=r"1 of 4 pairs are broken.*max_broken_share = 0\.2 .*\n  1 x missing image, such as"
    ):
        check_share(table, 0.2)


def test_a_manifest_without_a_usable_pair_says_why(settings):
    table = build_manifest(write_folder_video(Path("b"), range(1)), "b", settings)
    write_manifest(table, Path("m.parquet"))
    with pytest.raises(
        DataError, match=r"m\.parquet holds no usable pair\.\n  1 x one-frame sequence, such as"
    ):
        read_manifest(Path("m.parquet"))
    with pytest.raises(DataError, match="1 of 1 pairs are broken"):
        check_share(table, 1.0)


def test_missing_and_foreign_tables_say_so():
    with pytest.raises(DataError, match="does not exist; the stage `manifest` makes it"):
        read_manifest(Path("no.parquet"))
    Path("text.parquet").write_text("hello")
    with pytest.raises(DataError, match="is no manifest"):
        read_manifest(Path("text.parquet"))


@pytest.mark.parametrize(
    ("n", "wanted", "positions"), [(10, 2, [2, 7]), (3, 5, [0, 1, 2]), (4, 0, []), (1, 1, [0])]
)
def test_samples_are_spread_evenly(n, wanted, positions):
    assert spread(n, wanted) == positions


def test_faults_are_counted_by_kind():
    assert count_faults(["b: 1", "a: 2", "b: 3"]) == {"a": 1, "b": 2}


def stage(settings, item="b"):
    return types.SimpleNamespace(item=item, params=types.SimpleNamespace(manifest=settings))


def test_the_stage_writes_the_table_and_counts(settings):
    write_folder_video(Path("data/raw/b"), range(4))
    outcome = manifest(stage(settings))
    assert outcome.metrics == {"n_pairs": 3, "n_ok": 3, "n_broken": 0, "n_sequences": 1, "faults": {}}
    assert len(read_manifest(Path("data/manifests/b.parquet"))) == 3


def test_the_stage_fails_with_too_many_broken_pairs_and_keeps_the_evidence(settings):
    write_folder_video(Path("data/raw/b"), range(4))
    Path("data/raw/b/right/0001.png").unlink()
    with pytest.raises(DataError, match="2 of 3 pairs are broken"):
        manifest(stage(settings))
    assert pq.read_table("data/manifests/b.parquet").num_rows == 3


@needs_samples
def test_the_real_odometry_sample_is_all_right(settings):
    root = str(SAMPLES / "kitti_odometry" / "dataset")
    table = build_manifest(write_source(Path("b"), "kitti_odometry", root), "b", settings)
    assert table["status"].tolist() == ["ok"] * 6
    assert set(zip(table["height"], table["width"])) == {(370, 1226)}


@needs_samples
def test_the_real_frame_with_stored_measurements_is_usable_without_right_images(settings):
    root = str(SAMPLES / "kitti_scene_flow")
    options = {"split": "testing", "measurements": "../kitti_scene_flow_results/self-mono-sf"}
    table = build_manifest(write_source(Path("b"), "kitti_scene_flow", root, **options), "b", settings)
    assert dict(zip(table["frame_id"], table["status"])) == {
        "testing_000059": "broken",
        "testing_000139": "ok",
        "testing_000179": "broken",
    }
    write_manifest(table, Path("m.parquet"))
    (frame,) = read_manifest(Path("m.parquet"))
    assert frame.has_measurements
    assert frame.right is None
    assert frame.left_next.name == "000139_11.png"
    assert (frame.height, frame.width) == (375, 1242)


def test_a_delivery_of_one_camera_is_usable_when_it_says_so(settings):
    folder = write_folder_video(Path("b"), range(3))
    for path in Path("b/right").iterdir():
        path.unlink()
    Path("b/right").rmdir()
    table = build_manifest(folder, "b", settings)
    assert set(table["status"]) == {"broken"}
    assert table["reason"].str.contains(r"says so with `options: \{monocular: true\}` in source.yaml").all()
    write_source(folder, "folder", monocular=True)
    write_manifest(build_manifest(folder, "b", settings), Path("m.parquet"))
    frames = read_manifest(Path("m.parquet"))
    assert [frame.right for frame in frames] == [None, None]
    assert all(frame.is_monocular and np.isnan(frame.stereo_baseline) for frame in frames)
    assert frames[0].intrinsics[0, 0] == FX
